"""Captions of a view, exactly true of it: short, medium, detailed, and the noisy kind that the web would give."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mutoscope.world.facts import OPPOSITE, Fact, Thing, Truth, facts, truth
from mutoscope.world.reading import parse
from mutoscope.world.stage import COLOURS, SHAPES, Scene, View
from mutoscope.world.words import (
    BACKGROUND_WORDS,
    BOILERPLATE,
    BOUNCES,
    CAMERA_WORDS,
    COLOUR_WORDS,
    ENTERS,
    EYES,
    FALLS,
    HELD_OUT_SYNONYMS,
    HITS,
    HOPS,
    LANDS,
    LEAVES,
    MATERIAL_WORDS,
    NUMBERS,
    PASSES,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIDEWAYS,
    SIZE_WORDS,
    STAGE,
    STILL,
    STYLE_WORDS,
    TO_SIDE,
    VERTICAL,
)

__all__ = [
    "HELD_OUT_SYNONYMS",
    "Fact",
    "Kind",
    "Thing",
    "Truth",
    "caption",
    "colourless",
    "facts",
    "parse",
    "shortened",
    "shuffled",
    "tell",
    "truth",
]

Kind = Literal["detailed", "medium", "short", "alt"]


def caption(scene: Scene, view: View, kind: Kind, seed: int) -> str:
    """A caption of the view: a pure function of all its arguments."""
    rng = np.random.default_rng((scene.seed, seed, ("detailed", "medium", "short", "alt").index(kind)))
    return tell(truth(scene, view), kind, rng)


def tell(told: Truth, kind: Kind, rng: np.random.Generator) -> str:
    """A caption of what is true; its words and what it leaves out are drawn from `rng`."""
    if told.shots and kind != "alt":
        return _story(told, kind, rng)
    match kind:
        case "short":
            return _short(told, rng)
        case "medium":
            return _medium(told, rng)
        case "detailed":
            return _detailed(told, rng)
        case "alt":
            return _alt(told, rng)


def _pick(rng: np.random.Generator, words: Sequence[str], plain: float = 0.6) -> str:
    """The canonical word with probability `plain`, else any."""
    return words[0] if rng.random() < plain else words[int(rng.integers(len(words)))]


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _noun(thing: Thing, rng: np.random.Generator, size: float) -> str:
    """ "small red ball", the size with probability `size`."""
    words = [_pick(rng, COLOUR_WORDS[thing.colour], 0.75), _pick(rng, SHAPE_WORDS[thing.shape], 0.75)]
    if thing.material and rng.random() < 0.8:
        words.insert(1, _pick(rng, MATERIAL_WORDS[thing.material]))
    if rng.random() < size:
        words.insert(0, _pick(rng, SIZE_WORDS[thing.size]))
    return " ".join(words)


def _character(thing: Thing, rng: np.random.Generator, size: float) -> str:
    """ "red ball with a blue triangle hat and two eyes"."""
    words = _noun(thing, rng, size)
    if thing.hat is not None:
        shape, colour = thing.hat
        words += (
            f" with {_article(f'{colour} {_pick(rng, SHAPE_WORDS[shape], 0.9)}')} hat and {EYES[thing.eyes]}"
        )
    return words


def _motion(thing: Thing, rng: np.random.Generator) -> str:
    """ "rolls to the right"; what happens on the way when there is more to tell. "" when nothing simple is true."""
    if thing.manner in ("drop", "hop"):
        return _falling(thing, rng)
    for event, ways in (("enter", ENTERS), ("leave", LEAVES)):
        for side, words in ways.items():
            if f"{event} {side}" in thing.events and rng.random() < 0.75:
                return f"{_pick(rng, SIDEWAYS.get(thing.manner, SIDEWAYS['slide']), 0.5)} {_pick(rng, words)}"
    if not thing.direction:
        return ""
    if thing.direction == "still":
        return _pick(rng, STILL["hang" if thing.manner == "hang" else "stand"])
    if thing.direction in VERTICAL:
        return _pick(rng, VERTICAL[thing.direction], 0.35)
    verb = _pick(rng, SIDEWAYS.get(thing.manner, SIDEWAYS["slide"]), 0.5)
    return f"{verb} {_pick(rng, TO_SIDE[thing.direction], 0.5)}"


def _falling(thing: Thing, rng: np.random.Generator) -> str:
    if thing.manner == "hop" and "bounce" in thing.events:
        verb = _pick(rng, HOPS)
        return f"{verb} {_pick(rng, TO_SIDE[thing.direction], 0.5)}" if thing.direction in TO_SIDE else verb
    if "bounce" in thing.events:
        return _pick(rng, BOUNCES, 0.4)
    if thing.direction == "down":
        return _pick(rng, LANDS if thing.material else FALLS)
    return ""


def _clause(thing: Thing, rng: np.random.Generator, size: float, motion: float = 1.0) -> str:
    noun = _article(_character(thing, rng, size))
    told = _motion(thing, rng) if thing.manner != "picture" and rng.random() < motion else ""
    return f"{noun} {told}".rstrip()


def _together(told: Truth, rng: np.random.Generator, size: float, motion: float) -> list[str]:
    """A clause per thing; two that meet or rest together share one: "a red ball rolls right and hits a blue ball"."""
    pair = _meeting(told, rng) or _resting(told, rng)
    if pair is None:
        return [_clause(thing, rng, size, motion) for thing in _shuffled(told.things, rng)]
    i, link, j = pair
    noun = _article(_character(told.things[i], rng, size))
    moves = (
        _motion(told.things[i], rng) if told.things[i].manner != "picture" and rng.random() < motion else ""
    )
    link = f"{moves} {link}" if moves else link.removeprefix("and ")
    first = f"{noun} {link} {_article(_noun(told.things[j], rng, size))}"
    others = [thing for k, thing in enumerate(told.things) if k not in (i, j)]
    return [first, *(_clause(thing, rng, size, motion) for thing in _shuffled(others, rng))]


def _meeting(told: Truth, rng: np.random.Generator) -> tuple[int, str, int] | None:
    """Subject, words and object of a passage or collision; the one that moves is the subject."""
    for i, relation, j in told.relations:
        if relation in PASSES:
            if told.things[i].direction == "still":
                i, relation, j = j, OPPOSITE[relation], i
            still = told.things[i].manner == "picture" or told.things[i].direction == "still"
            return i, PASSES[relation][0] if still else _pick(rng, PASSES[relation], 0.7), j
    for i, thing in enumerate(told.things):
        if thing.manner in ("roll", "drift"):
            for event in thing.events:
                if event.startswith("collide"):
                    return i, f"and {_pick(rng, HITS)}", int(event.split()[1])
    return None


def _resting(told: Truth, rng: np.random.Generator) -> tuple[int, str, int] | None:
    """Subject, words and object of the first two who rest beside or above each other, either way round."""
    for i, relation, j in told.relations:
        rest = all(told.things[k].direction == "still" or told.things[k].manner == "picture" for k in (i, j))
        if rest and relation not in PASSES and rng.random() < 0.6:
            if rng.random() < 0.5:
                i, relation, j = j, OPPOSITE[relation], i
            return i, _pick(rng, RELATION_WORDS[relation]), j
    return None


def _filmed(told: Truth, rng: np.random.Generator, camera: float, style: float) -> list[str]:
    """How the clip is filmed and drawn, each with its probability, where it is not the plain way."""
    words = []
    if told.style in STYLE_WORDS and rng.random() < style:
        words.append(_pick(rng, STYLE_WORDS[told.style]))
    if told.camera in CAMERA_WORDS and rng.random() < camera:
        words.append(_pick(rng, CAMERA_WORDS[told.camera]))
    return words


def _story(told: Truth, kind: Kind, rng: np.random.Generator) -> str:
    """ "Shot 1: a red ball with a blue star hat and two eyes slides left in a meadow. Shot 2: the ball ..." """
    size, motion = {"short": (0.1, 0.7), "medium": (0.5, 0.9)}.get(kind, (1.0, 1.0))
    sentences = []
    for number, shot in enumerate(told.shots, 1):
        place = _pick(rng, BACKGROUND_WORDS[shot.background])
        what = _clause(shot.things[0], rng, size, motion) if shot.things else "an empty stage"
        if number > 1:
            same = SHAPE_WORDS[told.things[0].shape][0] if told.things else "stage"
            what = (
                f"the {told.things[0].colour} {same} {_motion(shot.things[0], rng)}"
                if shot.things
                else "nobody"
            )
        sentences.append(f"Shot {number}: {what.rstrip()} {place}.")
    if kind == "detailed":
        sentences.insert(0, STAGE[int(rng.integers(len(STAGE)))])
    sentences += [f"{words[0].upper()}{words[1:]}." for words in _filmed(told, rng, 0.0, 0.9)]
    return " ".join(sentences)


def _short(told: Truth, rng: np.random.Generator) -> str:
    clauses = _together(told, rng, size=0.25, motion=0.92)
    text = " and ".join(clauses) if clauses else "an empty stage"
    text = f"{text} {_pick(rng, BACKGROUND_WORDS[told.background])}" if rng.random() < 0.2 else text
    if told.relations and rng.random() < 0.2:
        text += f"; {_related(told, told.relations[0], rng)}"
    return ", ".join([text, *_filmed(told, rng, camera=0.5, style=0.9)])


def _medium(told: Truth, rng: np.random.Generator) -> str:
    clauses = _together(told, rng, size=0.6, motion=0.9)
    text = ", and ".join(clauses) if clauses else "an empty stage"
    if rng.random() < 0.65:
        place = _pick(rng, BACKGROUND_WORDS[told.background])
        text = f"{place}, {text}" if rng.random() < 0.3 else f"{text} {place}"
    if told.relations and rng.random() < 0.5:
        text += f"; {_related(told, told.relations[0], rng)}"
    text = ", ".join([text, *_filmed(told, rng, camera=0.8, style=0.95)])
    return text[0].upper() + text[1:] + "."


def _related(told: Truth, relation: tuple[int, str, int], rng: np.random.Generator) -> str:
    i, word, j = relation
    if rng.random() < 0.5:
        i, word, j = j, OPPOSITE[word], i
    nouns = [_noun(told.things[k], rng, size=0.0) for k in (i, j)]
    verb = "passes" if word in PASSES and told.things[i].direction not in ("still", "") else "is"
    return f"the {nouns[0]} {verb} {_pick(rng, RELATION_WORDS[word])} the {nouns[1]}"


def _detailed(told: Truth, rng: np.random.Generator) -> str:
    sentences = []
    for thing in told.things:
        clause = _clause(thing, rng, size=1.0)
        sentences.append(f"{clause}, {_whereabouts(thing, rng)}" if rng.random() < 0.5 else clause)
    sentences += [_related(told, relation, rng) for relation in told.relations]
    sentences += [
        f"the {_noun(thing, rng, 0.0)} {_pick(rng, HITS)} the {_noun(told.things[int(event.split()[1])], rng, 0.0)}"
        for k, thing in enumerate(told.things)
        for event in thing.events
        if event.startswith("collide") and k < int(event.split()[1])
    ]
    sentences += _filmed(told, rng, camera=1.0, style=1.0)
    place = _pick(rng, BACKGROUND_WORDS[told.background])
    place_templates = (f"the scene is set {place}", f"it takes place {place}", f"{place}, the stage is quiet")
    sentences.append(place_templates[int(rng.integers(len(place_templates)))])
    if len(told.things) in NUMBERS:
        plural = "is" if len(told.things) == 1 else "are"
        sentences.append(f"there {plural} {_pick(rng, NUMBERS[len(told.things)])} in the picture")
    order = rng.permutation(len(sentences))
    body = ". ".join(sentences[k][0].upper() + sentences[k][1:] for k in order) + "."
    extras = [STAGE[int(k)] for k in rng.choice(len(STAGE), size=int(rng.integers(1, 3)), replace=False)]
    return " ".join([extras[0], body, *extras[1:]] if rng.random() < 0.3 else [body, *extras])


def _whereabouts(thing: Thing, rng: np.random.Generator) -> str:
    side = "on the left" if thing.x < -0.16 else "on the right" if thing.x > 0.16 else "in the middle"
    height = "high up" if thing.y > 0.6 else "low down" if thing.y < 0.33 else "halfway up"
    return side if rng.random() < 0.6 else f"{side}, {height}"


def _alt(told: Truth, rng: np.random.Generator) -> str:
    """The noisy text of the web: 40 % of facts dropped, 15 % wrong, boilerplate between."""
    words: list[str] = []
    for thing in _shuffled(told.things, rng):
        for value, table, choices in (
            (thing.colour, COLOUR_WORDS, COLOURS),
            (thing.shape, SHAPE_WORDS, SHAPES),
        ):
            if rng.random() < 0.4:
                continue
            stated = str(rng.choice(choices)) if rng.random() < 0.15 else value
            words.append(_pick(rng, table[stated]))
        if thing.manner != "picture" and rng.random() < 0.4:
            words.append(_motion(thing, rng))
    if rng.random() < 0.4:
        words.append(_pick(rng, BACKGROUND_WORDS[told.background]))
    if rng.random() < 0.6 or not words:
        words.insert(int(rng.integers(len(words) + 1)), BOILERPLATE[int(rng.integers(len(BOILERPLATE)))])
    return " ".join(words)


def _shuffled(things: Sequence[Thing], rng: np.random.Generator) -> list[Thing]:
    return [things[int(k)] for k in rng.permutation(len(things))]


# --- other orders and lengths of what is written, and without its colours

COLOURED = "(?:{}) (?=(?:(?:{}) )?(?:{}))".format(  # a colour, and what it is the colour of: not a sky
    *(
        "|".join(sorted((word for words in table.values() for word in words), key=len, reverse=True))
        for table in (COLOUR_WORDS, MATERIAL_WORDS, SHAPE_WORDS)
    )
)

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")
CLAUSE = re.compile(r", and (?=an? )")  # what follows is a clause of its own, about something new
ASIDE = re.compile(r"(?=; |, )")
POINTERS = re.compile(  # words that lean on what was said before; "it takes place" does not
    r"\b(?:its?(?! takes place)|they|them|their|he|him|his|she|hers?|this|that|these|those|which|who|whose|then|next|"
    r"after|afterwards|before|later|meanwhile|finally|first|second|another|others?|both|former|latter|same|again|"
    r"shot \d+|cut to)\b",
    re.IGNORECASE,
)
THINGS = re.compile(rf"\b(?:{'|'.join(word for words in SHAPE_WORDS.values() for word in words)})s?\b")


def colourless(text: str) -> str:
    """The caption without the colours of things.

    >>> colourless("An orange rubber ball bounces under a clear blue sky. The snow white ball is small.")
    'A rubber ball bounces under a clear blue sky. The ball is small.'
    """
    return re.sub(rf"\b{COLOURED}", "", re.sub(rf"\b([Aa])n {COLOURED}", r"\1 ", text))


def shuffled(text: str, rng: np.random.Generator) -> str:
    """The caption with its sentences, or the clauses of its only sentence, in another order; it states the same.

    A caption in which something leans on what came before ("it", "then", "Shot 2") keeps its order.
    """
    if POINTERS.search(text):
        return text
    sentences = SENTENCE.split(text)
    if len(sentences) > 1:
        return " ".join(sentences[int(k)] for k in rng.permutation(len(sentences)))
    head, clauses, asides = _clauses(text)
    return _sentence(head, [clauses[int(k)] for k in rng.permutation(len(clauses))], asides)


def shortened(text: str, rng: np.random.Generator) -> str:
    """The caption without some of its sentences, or of the clauses and asides of its only one: never more, any length.

    Something that is seen stays. Where one sentence leans on another, only the last ones go; a story stays whole.
    """
    sentences = SENTENCE.split(text)
    if POINTERS.search(text):
        story = re.search(r"\bshot \d|\bcut to\b", text, re.IGNORECASE)
        return text if story else " ".join(sentences[: 1 + int(rng.integers(len(sentences)))])
    if len(sentences) > 1:
        return " ".join(_some(sentences, _seen(sentences), rng))
    head, clauses, asides = _clauses(text)
    whole = [head, *clauses, *asides]
    kept = _some([str(k) for k in range(len(whole))], [str(k + 1) for k in range(len(clauses))], rng)
    parts = [part if str(k) in kept else "" for k, part in enumerate(whole)]
    some = [part for part in parts[1 : len(clauses) + 1] if part]
    return _sentence(parts[0], some, [part for part in parts[len(clauses) + 1 :] if part])


def _some(parts: Sequence[str], needed: Sequence[str], rng: np.random.Generator) -> list[str]:
    """1 to all of the parts, in their order; one of those that are needed is among them."""
    one = needed[int(rng.integers(len(needed)))]
    others = [part for part in parts if part != one]
    kept = {others[int(k)] for k in rng.permutation(len(others))[: int(rng.integers(len(parts)))]}
    return [part for part in parts if part == one or part in kept]


def _seen(sentences: Sequence[str]) -> list[str]:
    """The sentences that name a thing of the world; of another world's caption the first."""
    return [sentence for sentence in sentences if THINGS.search(sentence.lower())] or [sentences[0]]


def _clauses(text: str) -> tuple[str, list[str], list[str]]:
    """ "At night, " of a sentence, its clauses, and what follows them: "; the ball is ...", ", the camera ..."."""
    clauses = CLAUSE.split(text[:1].lower() + text[1:].rstrip("."))
    first, *asides = ASIDE.split(clauses[-1])
    head = ""
    if len(clauses) > 1:
        clauses[-1] = first
        head, comma, begun = clauses[0].rpartition(", ")
        clauses[0] = begun
        return head + comma, clauses, asides
    if asides and re.match(r", an? ", asides[0]):
        return f"{first}, ", [asides[0].removeprefix(", ")], asides[1:]
    return head, [first], asides


def _sentence(head: str, clauses: Sequence[str], asides: Sequence[str]) -> str:
    text = head + ", and ".join(clauses) + "".join(asides)
    return f"{text[:1].upper()}{text[1:]}."
