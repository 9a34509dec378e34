"""Words for scenes: the truth of a view, its facts, captions that state them, and the way back from text to facts.

Every statement is true of the pixels of the view: motion is what happens between its first and its last frame, and
what is out of the picture is not mentioned. One vocabulary serves writing and reading; a share of the synonyms is
only ever read (HELD_OUT_SYNONYMS), so that understanding them can be measured.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mutoscope.world.physics import positions
from mutoscope.world.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Body, Scene, View

Kind = Literal["detailed", "medium", "short", "alt"]

# --- vocabulary: the first word of each row is the canonical one

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "bright red"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden", "lemon yellow"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue", "royal blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "white": ("white", "snow white"),
    "black": ("black", "jet black"),
}
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "circle", "disc"),
    "box": ("box", "square", "block"),
    "triangle": ("triangle",),
    "star": ("star", "five-pointed star"),
    "ring": ("ring", "hoop"),
    "capsule": ("capsule", "pill"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium-sized", "mid-sized", "medium"),
    "large": ("large", "big"),
}
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "day": ("by day", "under a clear blue sky", "on a sunny day"),
    "sunset": ("at sunset", "in front of a sunset"),
    "night": ("at night", "under a dark night sky"),
    "desert": ("in the desert", "in a sandy desert"),
    "meadow": ("in a meadow", "in front of a green meadow"),
    "ocean": ("by the ocean", "in front of the sea"),
    "lavender": ("in a lavender room", "in a pale violet room"),
    "snow": ("in the snow", "in front of snowy peaks"),
}
HELD_OUT_SYNONYMS: dict[str, tuple[str, str]] = {
    "scarlet": ("colour", "red"),
    "amber": ("colour", "orange"),
    "teal": ("colour", "cyan"),
    "azure": ("colour", "blue"),
    "magenta": ("colour", "pink"),
    "sphere": ("shape", "ball"),
    "cube": ("shape", "box"),
    "lozenge": ("shape", "capsule"),
    "huge": ("size", "large"),
    "mini": ("size", "small"),
    "dusk": ("background", "sunset"),
    "dunes": ("background", "desert"),
    "ascends": ("direction", "up"),
    "plunges": ("direction", "down"),
    "motionless": ("direction", "still"),
}

# Verbs by how a body moves (scene.Body.manner), each with the words that give the direction.
SIDEWAYS = {
    "roll": ("rolls", "is rolling", "moves"),
    "slide": ("slides", "is sliding", "moves", "glides"),
    "drift": ("drifts", "flies", "moves", "glides"),
}
TO_SIDE = {
    "left": ("to the left", "left", "from right to left", "towards the left side"),
    "right": ("to the right", "right", "from left to right", "towards the right side"),
}
VERTICAL = {
    "up": ("floats up", "rises", "moves up", "goes up", "flies upwards"),
    "down": ("sinks", "moves down", "goes down", "floats down", "descends"),
}
STILL = {
    "stand": ("stands still", "rests on the floor", "stays still", "does not move"),
    "hang": ("hangs still in the air", "hovers in place", "stays still"),
}
RELATION_WORDS = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below", "under"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
NUMBERS = {
    1: ("one object", "a single object"),
    2: ("two objects",),
    3: ("three objects",),
    4: ("four objects",),
}
STAGE = (
    "The scene is a small paper theatre.",
    "Everything is cut from paper, with soft shadows.",
    "The clip shows a paper stage with layered scenery.",
    "Soft light falls from the upper left on the paper cut-outs.",
)
BOILERPLATE = (
    "free download", "hd stock video", "click to subscribe", "IMG 2043", "my favourite clip", "watch till the end",
    "4k royalty free", "posted by user",
)  # fmt: skip

STILL_BELOW = 0.06  # stage units travelled in a view below which a body counts as still
RELATED_FROM = 0.16  # distance of centres that makes a relation


# --- truth


@dataclass(frozen=True)
class Thing:
    """A body as the view shows it. x, y: its mean place in stage units."""

    colour: str
    shape: str
    size: str
    direction: str
    manner: str
    x: float
    y: float


@dataclass(frozen=True)
class Truth:
    """What a view shows. relations: (subject, relation, other) with indices into `things`."""

    background: str
    style: str
    things: tuple[Thing, ...]
    relations: tuple[tuple[int, str, int], ...]


@dataclass(frozen=True)
class Fact:
    """One checkable statement. subject: index of the object it is about, None for the whole clip.

    kind "colour", "shape", "size", "direction": value names it. "relation": value is "left of 1" with the index of
    the other object. "count": value is a number in digits. "background": one of scene.BACKGROUNDS.
    """

    kind: str
    subject: int | None
    value: str


def truth(scene: Scene, view: View) -> Truth:
    """What the first shot shows between the first and the last frame of the view."""
    shot = scene.shots[0]
    last = (view.frames - 1) / view.fps
    things = tuple(_thing(body, last, view) for body in shot.bodies)
    return Truth(shot.background, scene.style, things, _relations(shot.bodies, last))


def _thing(body: Body, last: float, view: View) -> Thing:
    (track,) = positions((body.path,), (0.0, last / 2, last))
    dx, dy = track[2, :2] - track[0, :2]
    if max(abs(dx), abs(dy)) < STILL_BELOW:
        direction = "still"
    elif abs(dx) >= abs(dy):
        direction = "right" if dx > 0 else "left"
    else:
        direction = "up" if dy > 0 else "down"
    manner = body.manner if view.frames > 1 else "picture"
    return Thing(
        body.colour, body.shape, body.size, direction, manner, float(track[1, 0]), float(track[1, 1])
    )


def _relations(bodies: Sequence[Body], last: float) -> tuple[tuple[int, str, int], ...]:
    """Who is left of or above whom throughout: the clear cases only."""
    tracks = positions([body.path for body in bodies], np.linspace(0.0, last, 9))
    found = []
    for i in range(len(bodies)):
        for j in range(i + 1, len(bodies)):
            gap = tracks[i, :, :2] - tracks[j, :, :2]
            across, along = np.abs(gap[:, 0]), np.abs(gap[:, 1])
            if (gap[:, 0] < -RELATED_FROM).all() and (across > 1.5 * along).all():
                found.append((i, "left of", j))
            elif (gap[:, 0] > RELATED_FROM).all() and (across > 1.5 * along).all():
                found.append((i, "right of", j))
            elif (gap[:, 1] > RELATED_FROM).all() and (along > 1.5 * across).all():
                found.append((i, "above", j))
            elif (gap[:, 1] < -RELATED_FROM).all() and (along > 1.5 * across).all():
                found.append((i, "below", j))
    return tuple(found)


def facts(truth: Truth) -> tuple[Fact, ...]:
    """Every fact of a truth. A picture (one frame) has no directions."""
    found = [Fact("count", None, str(len(truth.things))), Fact("background", None, truth.background)]
    for i, thing in enumerate(truth.things):
        found += [Fact("colour", i, thing.colour), Fact("shape", i, thing.shape), Fact("size", i, thing.size)]
        if thing.manner != "picture":
            found.append(Fact("direction", i, thing.direction))
    for i, relation, j in truth.relations:
        found += [Fact("relation", i, f"{relation} {j}"), Fact("relation", j, f"{OPPOSITE[relation]} {i}")]
    return tuple(found)


# --- captions


def caption(scene: Scene, view: View, kind: Kind, seed: int) -> str:
    """A caption of the view: a pure function of all its arguments."""
    rng = np.random.default_rng((scene.seed, seed, ("detailed", "medium", "short", "alt").index(kind)))
    told = truth(scene, view)
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
    if rng.random() < size:
        words.insert(0, _pick(rng, SIZE_WORDS[thing.size]))
    return " ".join(words)


def _motion(thing: Thing, rng: np.random.Generator) -> str:
    """ "rolls to the right"."""
    if thing.direction == "still":
        return _pick(rng, STILL["hang" if thing.manner == "hang" else "stand"])
    if thing.direction in VERTICAL:
        return _pick(rng, VERTICAL[thing.direction], 0.35)
    verb = _pick(rng, SIDEWAYS.get(thing.manner, SIDEWAYS["slide"]), 0.5)
    return f"{verb} {_pick(rng, TO_SIDE[thing.direction], 0.5)}"


def _clause(thing: Thing, rng: np.random.Generator, size: float, motion: float = 1.0) -> str:
    noun = _article(_noun(thing, rng, size))
    return f"{noun} {_motion(thing, rng)}" if thing.manner != "picture" and rng.random() < motion else noun


def _short(told: Truth, rng: np.random.Generator) -> str:
    clauses = [_clause(thing, rng, size=0.25, motion=0.92) for thing in _shuffled(told.things, rng)]
    text = " and ".join(clauses) if clauses else "an empty stage"
    return f"{text} {_pick(rng, BACKGROUND_WORDS[told.background])}" if rng.random() < 0.2 else text


def _medium(told: Truth, rng: np.random.Generator) -> str:
    clauses = [_clause(thing, rng, size=0.6, motion=0.9) for thing in _shuffled(told.things, rng)]
    text = ", and ".join(clauses) if clauses else "an empty stage"
    if rng.random() < 0.65:
        place = _pick(rng, BACKGROUND_WORDS[told.background])
        text = f"{place}, {text}" if rng.random() < 0.3 else f"{text} {place}"
    if told.relations and rng.random() < 0.5:
        text += f"; {_related(told, told.relations[0], rng)}"
    return text[0].upper() + text[1:] + "."


def _related(told: Truth, relation: tuple[int, str, int], rng: np.random.Generator) -> str:
    i, word, j = relation
    if rng.random() < 0.5:
        i, word, j = j, OPPOSITE[word], i
    nouns = [_noun(told.things[k], rng, size=0.0) for k in (i, j)]
    return f"the {nouns[0]} is {_pick(rng, RELATION_WORDS[word])} the {nouns[1]}"


def _detailed(told: Truth, rng: np.random.Generator) -> str:
    sentences = []
    for thing in told.things:
        clause = _clause(thing, rng, size=1.0)
        sentences.append(f"{clause}, {_whereabouts(thing, rng)}" if rng.random() < 0.5 else clause)
    sentences += [_related(told, relation, rng) for relation in told.relations]
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


# --- reading

READING: dict[str, tuple[str, str]] = {
    **{word: ("colour", name) for name, words in COLOUR_WORDS.items() for word in words},
    **{word: ("shape", name) for name, words in SHAPE_WORDS.items() for word in words},
    **{word: ("size", name) for name, words in SIZE_WORDS.items() for word in words},
    **{word: ("background", name) for name, words in BACKGROUND_WORDS.items() for word in words},
    **{name: ("background", name) for name in BACKGROUNDS if name not in ("day", "lavender", "snow")},
    **{word: ("direction", name) for name, words in TO_SIDE.items() for word in words},
    **{word: ("direction", name) for name, words in VERTICAL.items() for word in words},
    **{word: ("direction", "still") for words in STILL.values() for word in words},
    **{
        word: ("direction", name)
        for name, words in {
            "up": ("up", "upwards", "upward", "ascending", "rising", "climbs", "lifts off"),
            "down": ("down", "downwards", "downward", "falls", "drops", "falling", "sinking", "lands"),
            "left": ("leftwards", "leftward"),
            "right": ("rightwards", "rightward"),
            "still": ("still", "stands", "rests", "hangs", "hovers", "waits"),
        }.items()
        for word in words
    },
    "crate": ("shape", "box"), "circular shape": ("shape", "ball"), "orb": ("shape", "ball"),
    "sea": ("background", "ocean"), "sunny": ("background", "day"), "snowy": ("background", "snow"),
    "sky blue": ("colour", "cyan"),
    **dict.fromkeys(
        (
            "on the left", "on the right", "in the middle", "high up", "low down", "halfway up", "upper left",
            "light falls",
        ),
        ("function", ""),
    ),
    **HELD_OUT_SYNONYMS,
}  # fmt: skip
RELATIONS_READ = {word: name for name, words in RELATION_WORDS.items() for word in words}
COUNT_WORDS = {word: number for number, words in NUMBERS.items() for word in words}
FUNCTION_WORDS = frozenset(
    "a an the and or of is are it its on in at to from with by there this that one two single scene clip video stage "
    "paper theatre soft shadows light small shows show set takes place picture object objects everything cut cut-outs "
    "layered scenery falls upper middle halfway low high side towards toward front quiet while then as slowly quickly "
    "fast gently across over past behind rolls rolling roll slides sliding slide moves moving move glides gliding "
    "drifts drifting flies flying floats floating float goes going travels is be being clear pale room sky under air "
    "place floor ground does not stays stay bounces some his her into out".split()
)
WORD = re.compile(r"[a-z0-9]+(?:-[a-z]+)*")


def parse(text: str) -> tuple[tuple[Fact, ...], tuple[str, ...]]:
    """(facts stated, content words not known). Typos at edit distance 1 in words of 5 letters and more are read.

    Colours and sizes belong to the next shape, motion to the last one. A noun repeated with "the" is the same
    object.
    """
    tokens = list(_tokens(text.lower()))
    nouns, found = _read_nouns(tokens)
    unknown: list[str] = []
    stated: list[Fact] = []
    subject: int | None = None
    pending: tuple[int, str] | None = None
    for position, (kind, value) in enumerate(tokens):
        match kind:
            case "shape":
                subject = nouns[position]
                if pending is not None and pending[0] != subject:
                    stated.append(Fact("relation", pending[0], f"{pending[1]} {subject}"))
                pending = None
            case "direction" if subject is not None:
                stated.append(Fact("direction", subject, value))
            case "relation" if subject is not None:
                pending = (subject, value)
            case "background" | "count":
                stated.append(Fact(kind, None, value))
            case "unknown":
                unknown.append(value)
    return tuple(dict.fromkeys([*found, *stated])), tuple(dict.fromkeys(unknown))


def _read_nouns(tokens: Sequence[tuple[str, str]]) -> tuple[dict[int, int], list[Fact]]:
    """Object index of every shape word by position, and the facts its adjectives state."""
    nouns: dict[int, int] = {}
    things: list[dict[str, str]] = []
    announced: set[int] = set()  # spoken of with "the" and not yet introduced with "a"
    adjectives: dict[str, str] = {}
    definite = False
    for position, (kind, value) in enumerate(tokens):
        if kind == "article":
            adjectives, definite = {}, value == "the"
        elif kind in ("colour", "size"):
            adjectives[kind] = value
        elif kind == "shape":
            thing = {**adjectives, "shape": value}
            candidates = range(len(things)) if definite else sorted(announced)
            same = next((i for i in candidates if _agrees(thing, things[i])), len(things))
            if same == len(things):
                things.append({})
                if definite:
                    announced.add(same)
            things[same] |= thing
            nouns[position] = same
            if not definite:
                announced.discard(same)
            adjectives, definite = {}, False
    facts_found = [Fact(kind, i, value) for i, thing in enumerate(things) for kind, value in thing.items()]
    return nouns, facts_found


def _agrees(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(other.get(kind, value) == value for kind, value in one.items())


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, value) of every phrase, longest first; function words are dropped, articles kept."""
    words = WORD.findall(text)
    tokens, position = [], 0
    while position < len(words):
        for length in range(min(6, len(words) - position), 0, -1):
            phrase = " ".join(words[position : position + length])
            token = _phrase(phrase, alone=length == 1)
            if token is not None:
                break
        else:
            length, token = 1, _single(words[position])
        if token[0] != "function":
            tokens.append(token)
        position += length
    return tokens


def _phrase(phrase: str, alone: bool) -> tuple[str, str] | None:
    if phrase in RELATIONS_READ and not (alone and phrase in ("left of", "right of")):
        return "relation", RELATIONS_READ[phrase]
    if phrase in COUNT_WORDS:
        return "count", str(COUNT_WORDS[phrase])
    return READING.get(phrase)


def _single(word: str) -> tuple[str, str]:
    """A word that begins no known phrase."""
    if word in ("a", "an", "the"):
        return "article", word
    if word in FUNCTION_WORDS:
        return "function", word
    if word.endswith("s") and READING.get(word[:-1], ("", ""))[0] == "shape":
        return READING[word[:-1]]
    if len(word) >= 5:
        close = [
            known for known in _SINGLE_WORDS if abs(len(known) - len(word)) <= 1 and _one_edit(word, known)
        ]
        if close:
            return READING.get(close[0], ("function", word))
    return "unknown", word


_SINGLE_WORDS = tuple(
    sorted({word for word in (*READING, *FUNCTION_WORDS) if " " not in word and len(word) >= 4})
)


def _one_edit(one: str, other: str) -> bool:
    """Whether one insertion, deletion, substitution or swap of neighbours turns `one` into `other`."""
    if one == other:
        return True
    if len(one) > len(other):
        one, other = other, one
    i = next((k for k in range(len(one)) if one[k] != other[k]), len(one))
    if len(one) < len(other):
        return one[i:] == other[i + 1 :]
    swapped = one[:i] + one[i : i + 2][::-1] + one[i + 2 :]
    return one[i + 1 :] == other[i + 1 :] or swapped == other


assert set(BACKGROUND_WORDS) == set(BACKGROUNDS)
assert set(SIZE_WORDS) == set(SIZES)
