"""Short prompts to captions of the training distribution: what is stated is kept, what is open is filled in.

The facts of a prompt are read (world/reading.py), what it leaves to choice is chosen, and all of it is put in plain
words, from which a small sequence model writes the caption (author.py). A guard reads it back: a caption that lost a
stated fact, or tells what nobody asked for, is not used. Where none of a few is good, and of pictures and stories, the
facts are completed to a scene that the world could show (staging.py), and the world's own captioner words it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mutoscope.generation.shots import number_shots, shots_kept
from mutoscope.generation.staging import (
    ALOFT,
    FALLING,
    GROUNDED,
    PLACES,
    Wish,
    complete,
    place_of,
    settled,
)
from mutoscope.generation.stated import Drafts, draft, lost, objects, plainly, relations, render_facts
from mutoscope.world import words as vocabulary
from mutoscope.world.captions import Kind, parse, tell
from mutoscope.world.facts import OPPOSITE, Fact, Truth
from mutoscope.world.palette import VISIBLE_ON
from mutoscope.world.reading import Reading, read
from mutoscope.world.stage import COLOURS
from mutoscope.world.words import BACKGROUND_WORDS

LEARNED: tuple[Kind, ...] = ("medium", "detailed")  # the kinds that the sequence model writes, where it can
DRAFTS = 3  # captions that it writes for one that the guard lets pass
DRAWS = (
    80  # captions of the world tried for one that says what is stated and little else; of many things, less
)
SLIP = re.compile(r"\b(\w+) \1\b|\ba [aeiou]|\ban [^aeiou]")  # of the pen: a word twice, a wrong article
NAMED, LONG_WORD = 20, 40  # unknown words that a note names, and letters of the longest
TAUGHT = 4  # things at once that training shows


@dataclass(frozen=True)
class Expansion:
    """A prompt and the text that a model is given for it.

    stated: the facts of the prompt; all of them are in the text. added: those of the text that are not stated.
    unknown: words of the prompt that the world does not have. notes: sentences for whoever wrote the prompt.
    """

    prompt: str
    text: str
    stated: tuple[Fact, ...]
    added: tuple[Fact, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def expand(prompt: str, seed: int = 0, kind: Kind = "medium", picture: bool = False) -> Expansion:
    """The caption of a prompt: a pure function of its arguments.

    kind: "medium" adds little: colours and motions where they are open, and then a background; "detailed" sizes and
    places too. picture: of one frame, where nothing moves. Kept word for word are a prompt that is such a caption
    already, one in which nothing of the world is named, and one that no caption can say.
    """
    numbered = number_shots(prompt)
    reading = read(numbered)
    stated, unknown = reading.facts, reading.unknown
    rng = np.random.default_rng(seed)
    drafts, notes = draft(stated), _notes(prompt, reading)
    if not stated or (unknown and not drafts):
        return Expansion(prompt, prompt, stated, (), unknown, notes)
    if objects(stated) > len(COLOURS):
        return Expansion(prompt, prompt, stated, (), unknown, notes)
    asked = settled(reading, picture, rng)
    if kind != "detailed" and not unknown and asked == stated and is_caption(prompt, drafts, picture):
        return Expansion(prompt, prompt, stated, (), (), notes)
    wish = Wish(numbered, asked, draft(asked) or {0: {}}, reading, picture, place_of(reading))
    text = None if picture or reading.places or kind not in LEARNED else written(wish, kind, seed)
    text = text or _best(wish, kind, rng) or _shot_by_shot(wish, rng) or prompt
    return Expansion(prompt, text, stated, lost(parse(text)[0], stated), unknown, notes)


# --- by the sequence model


def written(wish: Wish, kind: Kind, seed: int) -> str | None:
    """The first caption of the sequence model's that passes the guard; None when none does, or it is not there."""
    drafts = drafts_of(wish.asked, kind, seed)
    return next((text for text in drafts if fits(text, wish.asked, kind) and in_mood(text, wish)), None)


def in_mood(text: str, wish: Wish) -> bool:
    """Whether a caption lets fall what falls and fly what flies, and tells nothing that is denied."""
    fell, flew, went = (mood.search(wish.prompt) is not None for mood in (FALLING, ALOFT, GROUNDED))
    falls, flies, goes = (mood.search(text) is not None for mood in (FALLING, ALOFT, GROUNDED))
    if (fell and not falls) or (flew and not went and goes) or (went and not flew and flies):
        return False
    return not wish.denies(parse(text)[0])


def drafts_of(stated: Sequence[Fact], kind: Kind, seed: int) -> Iterator[str]:
    """DRAFTS captions by the sequence model; none of what plain words cannot say."""
    from mutoscope.generation.author import shipped  # reads its weights when they are first needed

    source = plainly(stated)
    author = shipped() if source and objects(stated) <= TAUGHT else None
    if source and author:
        yield from (author.write(source, kind, (seed, draw)) for draw in range(DRAFTS))


def fits(text: str, stated: Sequence[Fact], kind: Kind) -> bool:
    """The guard: whether a caption states what is stated, of as many things, and beyond it only what was left open.

    A medium one adds the colours and ways to move that are open, and then a place; a detailed one may add any of them,
    sizes and the number of things. Nothing is told twice in two ways, and what is added can be seen where it is put.
    """
    said, unknown = parse(text)
    counts = [int(fact.value) for fact in stated if fact.kind == "count"]
    if (
        SLIP.search(text.lower())
        or not said
        or unknown
        or lost(stated, said)
        or objects(said) != max(objects(stated), *counts, 0)
    ):
        return False
    drafts, added = draft(stated), lost(said, stated)
    open_kinds = {"colour", "direction"} if kind != "detailed" else {"colour", "direction", "size", "count"}
    if kind == "detailed" or vague(drafts, picture=False):
        open_kinds.add("background")
    if kind == "medium" and not (filled(said, drafts) and is_whole(text, said)):
        return False
    if _repeats(said) > _repeats(stated) or any(fact.kind not in open_kinds for fact in added):
        return False
    return _visible(said, {fact.kind for fact in added}) and _true_count(said)


def filled(said: Sequence[Fact], drafts: Drafts) -> bool:
    """Whether a caption leaves no colour or motion open, and says where if the prompt left one of them open."""
    placed = any(fact.kind == "background" for fact in said) or not vague(drafts, picture=False)
    return placed and not vague(draft(said), picture=False)


def is_whole(text: str, said: Sequence[Fact]) -> bool:
    """Whether everything moves or rests; a relation in a clause of its own is no verb: "a star; the star is above"."""
    return ";" not in text or all({"direction", "event"} & each.keys() for each in draft(said).values())


def _repeats(told: Sequence[Fact]) -> int:
    """How often something is told once more, in another way: two directions of one thing, two backgrounds."""
    single = ("colour", "direction", "background", "size", "camera", "style", "count")
    slots = [(fact.kind, fact.subject) for fact in told if fact.kind in single]
    return len(slots) - len(set(slots))


def _visible(said: Sequence[Fact], added: set[str]) -> bool:
    """Whether the colours stand out before the background, if the caption chose one of them itself."""
    places = [fact.value for fact in said if fact.kind == "background"]
    colours = {fact.value for fact in said if fact.kind == "colour"}
    return not added & {"colour", "background"} or all(colours <= set(VISIBLE_ON[place]) for place in places)


def _true_count(said: Sequence[Fact]) -> bool:
    """Whether there are as many things as the caption says."""
    return all(int(fact.value) == objects(said) for fact in said if fact.kind == "count")


# --- what is open


def _best(wish: Wish, kind: Kind, rng: np.random.Generator) -> str | None:
    """The caption with the least beyond what is wanted; the plain rendering when no caption has all that is stated."""
    told = complete(wish, rng)
    wanted = [*wish.asked, *_wanted(told, vague(wish.drafts, wish.picture))]
    best, least = None, (10**6, 0)
    draws = DRAWS // (max(1, len(told.things) - 2) * max(1, len(told.shots) // 3))
    for draw in range(max(DRAWS // 4, draws)):  # short captions are as common in training as medium ones
        text = tell(told, "short" if kind == "medium" and draw % 2 == 0 else kind, rng)
        text = placed(text, wish.place) if kind != "detailed" else text
        if not _says(text, wish):
            continue
        said = parse(text)[0]
        beyond = 0 if kind == "detailed" else len(lost(said, wanted)) + (not is_whole(text, said))
        amiss = beyond + len(lost(wanted, said)), len(_words(text) - USUAL)
        if amiss < least:
            best, least = text, amiss
        if kind == "detailed" or amiss == (0, 0):
            break
    if best is not None:
        return best
    plain = render_facts(wish.asked, told)
    return plain if _says(plain, replace(wish, place=())) else None


def _says(text: str, wish: Wish) -> bool:
    """Whether a caption has all that is asked for, each in its shot, and nothing that is denied."""
    said = parse(text)[0]
    where = all(PLACES[place] in text.lower() for place in wish.place)
    return where and not lost(wish.asked, said) and not wish.denies(said) and shots_kept(wish.prompt, text)


def placed(text: str, place: Sequence[str]) -> str:
    """The caption of one thing with the place where it is: "a ball stands still at night, on the left"."""
    if not place:
        return text
    head, comma, rest = text.partition(", ")
    where = ", ".join(PLACES[each] for each in place)
    return (
        f"{head}, {where}{comma}{rest}" if comma else f"{text.rstrip('.')}, {where}{'.' * text.endswith('.')}"
    )


def _shot_by_shot(wish: Wish, rng: np.random.Generator) -> str | None:
    """A story that the captions of the world cannot tell, such as one of two things: a caption for each shot."""
    told = complete(wish, rng)
    looks = [{"colour": [thing.colour], "shape": [thing.shape]} for thing in told.things]
    texts = []
    for shot in wish.reading.shots:
        seen = sorted({fact.subject for fact in shot if fact.subject is not None})
        if any(index >= len(looks) for index in seen):
            return None
        drafts = {place: looks[index] | draft(shot).get(index, {}) for place, index in enumerate(seen)}
        facts = [
            Fact(kind, i, value)
            for i, each in drafts.items()
            for kind, values in each.items()
            for value in values
        ]
        facts = [replace(fact, value=_renumbered(fact, seen)) for fact in facts]
        facts += [fact for fact in shot if fact.subject is None]
        part = Wish("", tuple(facts), draft(facts) or {0: {}}, replace(wish.reading, shots=()), wish.picture)
        if not (text := _best(part, "medium", rng)):
            return None
        texts.append(f"{text[0].upper()}{text[1:].rstrip('.')}.")
    story = " ".join(f"Shot {number}: {text}" for number, text in enumerate(texts, 1))
    return story if texts and _says(story, wish) else None


def _renumbered(fact: Fact, seen: Sequence[int]) -> str:
    """The value of a fact about another thing, with the number of that thing in its shot."""
    words, _, other = fact.value.rpartition(" ")
    return (
        f"{words} {seen.index(int(other))}"
        if other.isdigit() and words and int(other) in seen
        else fact.value
    )


def is_caption(prompt: str, drafts: Drafts, picture: bool) -> bool:
    """Whether a prompt is worded as training captions are, and leaves no colour or motion open."""
    said = re.findall(r"[\w-]+", prompt.lower())
    articles, verbs = sum(word in ("a", "an", "the") for word in said), sum(word in VERBS for word in said)
    moving = sum("direction" in each for each in drafts.values())
    loose = DESCRIPTION.search(NOUN.sub("", prompt.lower())) or not CLEAN.fullmatch(prompt)
    worded = articles >= len(drafts) and verbs >= moving and set(said) <= WRITTEN and not loose
    return worded and not vague(drafts, picture)


def vague(drafts: Drafts, picture: bool) -> bool:
    """Whether an object has no colour, or neither a motion nor a place beside another."""
    moves = {"direction", "event", "relation"}
    beside = {j for _, _, j in relations(drafts)}
    return not drafts or any(
        "colour" not in each or not (picture or moves & each.keys() or index in beside)
        for index, each in drafts.items()
    )


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w-]+", text.lower()))


def _one_of(*names: str) -> str:
    """A pattern for the phrases of some tables of words, longest first."""
    phrases = [
        phrase for name in names for row in getattr(vocabulary, f"{name}_WORDS").values() for phrase in row
    ]
    return "|".join(sorted(phrases, key=len, reverse=True))


TABLES = [
    getattr(vocabulary, f"{name}_WORDS")
    for name in ("COLOUR", "SHAPE", "SIZE", "BACKGROUND", "RELATION", "MATERIAL", "CAMERA", "STYLE")
] + [vocabulary.SIDEWAYS, vocabulary.TO_SIDE, vocabulary.VERTICAL, vocabulary.STILL, vocabulary.PASSES]
TABLES += [vocabulary.ENTERS, vocabulary.LEAVES, vocabulary.NUMBERS]
LISTS = (vocabulary.BOUNCES, vocabulary.LANDS, vocabulary.FALLS, vocabulary.HOPS, vocabulary.HITS)
GRAMMAR = _words("a an the and is with hat passes shot 1 2 3 one two three eye eyes")
WRITTEN = GRAMMAR.union(  # all words of captions
    *(_words(phrase) for table in TABLES for phrases in table.values() for phrase in phrases),
    *(_words(phrase) for phrases in LISTS for phrase in phrases),
)
VERBS = {"bumps"} | {
    phrase.removeprefix("is ").split()[0]
    for phrases in (
        *LISTS,
        *vocabulary.SIDEWAYS.values(),
        *vocabulary.VERTICAL.values(),
        *vocabulary.STILL.values(),
    )
    for phrase in phrases
}
CLEAN = re.compile(r"[A-Z]?[a-z0-9,;-]*(?:[.:] [A-Z]?[a-z0-9,;-]*| [a-z0-9,;-]+)*[.]?")  # sentences
LOOK, SHAPE, PLACE = _one_of("COLOUR", "SIZE", "MATERIAL"), _one_of("SHAPE"), _one_of("BACKGROUND")
NOUN = re.compile(rf"\b(?:(?:{PLACE})|(?:an?|the) (?:(?:{LOOK}) )*(?:{SHAPE})(?: hat)?)\b")  # of a caption
DESCRIPTION = re.compile(rf"\b(?:{LOOK}|{SHAPE})\b")
USUAL = GRAMMAR.union(  # the usual ones
    *(_words(phrases[0]) for table in TABLES for phrases in table.values()),
    *(_words(phrases[0]) for phrases in LISTS),
)


def _wanted(told: Truth, vague: bool) -> list[Fact]:
    """What a caption should say although nobody asked: who moves how, and of a vague prompt where."""
    shots = told.shots or (told,)
    found = [Fact("background", None, shot.background) for shot in shots if vague or told.shots]
    for index, thing in enumerate(told.things):
        found += [Fact("colour", index, thing.colour), Fact("shape", index, thing.shape)]
        found += [
            Fact("direction", index, shot.things[index].direction)
            for shot in shots
            if thing.manner not in ("picture", "drop", "hop") and shot.things[index].direction
        ]
    return found


def _notes(prompt: str, reading: Reading) -> tuple[str, ...]:
    """What cannot be shown, or hardly, and what contradicts itself."""
    drafts = draft(reading.facts)
    notes = [*_unshown(prompt, reading), *_hard_to_see(reading, drafts), *_contradictions(reading, drafts)]
    if len(drafts) > TAUGHT:
        notes.append(
            f"The built-in world was learned from scenes of up to {TAUGHT} things; here are {len(drafts)}."
        )
    return tuple(notes)


def _places(reading: Reading) -> list[str]:
    return [fact.value for fact in reading.facts if fact.kind == "background"]


def _unshown(prompt: str, reading: Reading) -> Iterator[str]:
    """Words that the world does not have; or that it has none of what is named."""
    if reading.unknown:
        words = ", ".join(
            repr(word if len(word) <= LONG_WORD else f"{word[:LONG_WORD]}…")
            for word in reading.unknown[:NAMED]
        )
        words += f" and {len(reading.unknown) - NAMED} words more" if len(reading.unknown) > NAMED else ""
        yield f"The built-in world has no {words}; that part of the prompt cannot be shown."
    elif not reading.facts and prompt.strip():
        yield "The prompt names nothing that the built-in world shows, such as a red ball or a box at night."


def _hard_to_see(reading: Reading, drafts: Drafts) -> Iterator[str]:
    """Colours too near to those of their background."""
    for place in _places(reading):
        for each in drafts.values():
            colour = each.get("colour", [""])[0]
            if colour and colour not in VISIBLE_ON[place]:
                yield (
                    f"A {colour} {each.get('shape', ['thing'])[0]} is hard to see {BACKGROUND_WORDS[place][0]}; "
                    f"{', '.join(VISIBLE_ON[place])} stand out there."
                )


def _contradictions(reading: Reading, drafts: Drafts) -> Iterator[str]:
    """What cannot be true at once, and which of it counts."""
    for left, kept in reading.overruled:
        yield f"One thing is called {left!r} and {kept!r}; it is {kept!r} here."
    places = _places(reading)
    if len(places) > 1 and not reading.shots:
        yield f"The built-in world shows one place at a time; {' and '.join(places)} at once may be mixed."
    if not reading.shots and any(len(set(each.get("direction", ()))) > 1 for each in drafts.values()):
        yield "In one clip of the built-in world a thing moves one way; of two ways one may be missing."
    both = [fact.value for fact in reading.facts if (fact.kind, fact.value) in reading.denied]
    for value in dict.fromkeys(both):
        yield f"The prompt asks for {value!r} and denies it; it is asked for here."
    pairs = set(relations(drafts))
    for i, word, j in sorted(pairs):
        if word < OPPOSITE[word] and ((i, OPPOSITE[word], j) in pairs or (j, word, i) in pairs):
            yield f"Nothing is {word} and {OPPOSITE[word]} the same thing at once; one of both may be missing."
