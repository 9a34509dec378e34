"""Short prompts to captions of the training distribution: what is stated is kept, what is open is filled in.

The facts of a prompt are read (world/reading.py) and put in plain words, from which a small sequence model writes the
caption (author.py). A guard reads it back: a caption that lost a stated fact, or tells what nobody asked for, is not
used. Where none of a few is good, and of pictures and stories, the facts are completed to a scene that the world could
show, and the world's own captioner words it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mutoscope.generation.stated import Drafts, draft, lost, objects, plainly, relations, render_facts
from mutoscope.world import words as vocabulary
from mutoscope.world.captions import Kind, parse, tell
from mutoscope.world.facts import OPPOSITE, Fact, Thing, Truth
from mutoscope.world.palette import VISIBLE_ON
from mutoscope.world.stage import BACKGROUNDS, COLOURS, HATS, SIZES, is_hole
from mutoscope.world.words import BACKGROUND_WORDS

LEARNED: tuple[Kind, ...] = ("medium", "detailed")  # the kinds that the sequence model writes, where it can
DRAFTS = 4  # captions that it writes for one that the guard lets pass
DRAWS = 40  # captions of the world tried for one that says what is stated and little else
CUT = re.compile(r"[\s,.;]*\b(?:shot\s*\d+\b|(?:then\s+)?cut to\b|next shot\b)[\s:,.–-]*", re.IGNORECASE)
FIRST = re.compile(r"\bshot\s*1\b[\s:,.–-]*", re.IGNORECASE)
FALLING = re.compile(r"\b(?:fall|drop|plummet|tumbl)", re.IGNORECASE)
ALOFT = re.compile(r"\b(?:fl(?:y|ies|ew|oat)|glid|drift|hover|hang|in the air|soar)", re.IGNORECASE)
ROUND = ("ball", "ring")
PLAIN_MOTIONS = {"left": 1.0, "right": 1.0, "up": 0.8, "down": 0.8, "still": 0.4}


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
    stated, unknown = parse(numbered)
    rng = np.random.default_rng(seed)
    drafts = draft(stated)
    if not stated or (unknown and not drafts):
        return Expansion(prompt, prompt, stated, (), unknown, _notes(drafts, stated, unknown))
    if kind != "detailed" and not unknown and is_caption(prompt, drafts, picture):
        return Expansion(prompt, prompt, stated, (), (), _notes(drafts, stated, ()))
    text = None if picture or kind not in LEARNED else written(stated, kind, seed)
    text = text or _best(numbered, stated, drafts or {0: {}}, (kind, picture), rng) or prompt
    added = lost(parse(text)[0], stated)
    return Expansion(prompt, text, stated, added, unknown, _notes(drafts, stated, unknown))


def number_shots(prompt: str) -> str:
    """The prompt with its shots, divided by "cut to" or numbered anyhow, called "Shot 1:", "Shot 2:", ..."""
    parts = split_shots(prompt)
    if len(parts) < 2:
        return prompt
    first = FIRST.search(prompt)
    before = prompt[: first.start()].strip(" .,;:") if first else ""
    shots = [f"Shot {number}: {part}." for number, part in enumerate(parts, 1)]
    return " ".join([f"{before}.", *shots] if before else shots)


def split_shots(text: str) -> list[str]:
    """The texts of its shots, without what stands before "Shot 1"."""
    if first := FIRST.search(text):
        text = text[first.end() :]
    return [part.strip(" .,;:") for part in CUT.split(text) if part.strip(" .,;:")]


# --- by the sequence model


def written(stated: Sequence[Fact], kind: Kind, seed: int) -> str | None:
    """The first caption of the sequence model's that passes the guard; None when none does, or it is not there."""
    return next((text for text in drafts_of(stated, kind, seed) if fits(text, stated, kind)), None)


def drafts_of(stated: Sequence[Fact], kind: Kind, seed: int) -> Iterator[str]:
    """DRAFTS captions by the sequence model; none of what plain words cannot say."""
    from mutoscope.generation.author import shipped  # reads its weights when they are first needed

    source = plainly(stated)
    author = shipped() if source else None
    if source and author:
        yield from (author.write(source, kind, (seed, draw)) for draw in range(DRAFTS))


def fits(text: str, stated: Sequence[Fact], kind: Kind) -> bool:
    """The guard: whether a caption states what is stated, of as many things, and beyond it only what was left open.

    A medium one adds the colours and ways to move that are open, and then a place; a detailed one may add any of them,
    sizes and the number of things. Nothing is told twice in two ways, and what is added can be seen where it is put.
    """
    said, unknown = parse(text)
    counts = [int(fact.value) for fact in stated if fact.kind == "count"]
    if not said or unknown or lost(stated, said) or objects(said) != max(objects(stated), *counts, 0):
        return False
    drafts, added = draft(stated), lost(said, stated)
    open_kinds = {"colour", "direction"} if kind != "detailed" else {"colour", "direction", "size", "count"}
    if kind == "detailed" or vague(drafts, picture=False):
        open_kinds.add("background")
    if kind == "medium" and not filled(said, drafts):
        return False
    if _repeats(said) > _repeats(stated) or any(fact.kind not in open_kinds for fact in added):
        return False
    return _visible(said, {fact.kind for fact in added}) and _true_count(said)


def filled(said: Sequence[Fact], drafts: Drafts) -> bool:
    """Whether a caption leaves no colour or motion open, and says where if the prompt left one of them open."""
    placed = any(fact.kind == "background" for fact in said) or not vague(drafts, picture=False)
    return placed and not vague(draft(said), picture=False)


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


def _best(
    prompt: str, stated: Sequence[Fact], drafts: Drafts, style: tuple[Kind, bool], rng: np.random.Generator
) -> str | None:
    """The caption with the least beyond what is wanted; the plain rendering when no caption has all that is stated."""
    kind, picture = style
    told = complete(prompt, stated, drafts, picture, rng)
    wanted = [*stated, *_wanted(told, vague(drafts, picture))]
    best, least = None, (10**6, 0)
    for draw in range(
        DRAWS
    ):  # short captions are as common in training as medium ones, and say no more than they must
        text = tell(told, "short" if kind == "medium" and draw % 2 == 0 else kind, rng)
        said = parse(text)[0]
        if lost(stated, said) or not _shots_kept(prompt, text):
            continue
        beyond = 0 if kind == "detailed" else len(lost(said, wanted))
        amiss = beyond + len(lost(wanted, said)), len(_words(text) - USUAL)
        if amiss < least:
            best, least = text, amiss
        if kind == "detailed" or amiss == (0, 0):
            break
    if best is not None:
        return best
    plain = render_facts(stated, told)
    return plain if not lost(stated, parse(plain)[0]) and _shots_kept(prompt, plain) else None


def is_caption(prompt: str, drafts: Drafts, picture: bool) -> bool:
    """Whether a prompt is worded as training captions are, and leaves no colour or motion open."""
    said = re.findall(r"[\w-]+", prompt.lower())
    articles, verbs = sum(word in ("a", "an", "the") for word in said), sum(word in VERBS for word in said)
    moving = sum("direction" in each for each in drafts.values())
    worded = articles >= len(drafts) and verbs >= moving and set(said) <= WRITTEN
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


def _shots_kept(prompt: str, text: str) -> bool:
    """Whether each shot of the text has what the same shot of the prompt states."""
    asked, made = split_shots(prompt), split_shots(text)
    if len(asked) < 2:
        return True
    kinds = ("background", "direction", "event", "camera")
    return len(made) == len(asked) and all(
        {fact.value for fact in parse(one)[0] if fact.kind in kinds}
        <= {fact.value for fact in parse(f"a ball {other}")[0]} | {fact.value for fact in parse(other)[0]}
        for one, other in zip(asked, made, strict=True)
    )


def complete(
    prompt: str, stated: Sequence[Fact], drafts: Drafts, picture: bool, rng: np.random.Generator
) -> Truth:
    """A truth of which everything stated holds, as far as one truth can, and the rest is plausible."""
    clip = {
        kind: [fact.value for fact in stated if fact.subject is None and fact.kind == kind]
        for kind in ("background", "camera", "style", "count", "shots")
    }
    number = max([1 + max(drafts), *(int(count) for count in clip["count"])])
    drafts = {index: drafts.get(index, {}) for index in range(min(number, len(COLOURS)))}
    background = clip["background"][0] if clip["background"] else _background(drafts, rng)
    moods = (bool(FALLING.search(prompt)), bool(ALOFT.search(prompt)))
    camera, style = (clip["camera"] or ["static"])[0], (clip["style"] or ["paper"])[0]
    things: list[Thing] = []
    for index in drafts:
        things.append(_thing(index, drafts, things, (background, camera), moods, rng))
    if picture:
        things = [replace(thing, manner="picture", direction="") for thing in things]
    told = Truth(background, style, tuple(things), tuple(relations(drafts)), camera)
    if not clip["shots"]:
        return told
    return replace(told, shots=_shots(prompt, told, rng))


def _background(drafts: Drafts, rng: np.random.Generator) -> str:
    """A backdrop before which everything whose colour is stated can be seen."""
    colours = {colour for each in drafts.values() for colour in each.get("colour", ())}
    seen = [name for name in BACKGROUNDS if colours <= set(VISIBLE_ON[name])]
    return str(rng.choice(seen or BACKGROUNDS))


def _thing(
    index: int,
    drafts: Drafts,
    others: Sequence[Thing],
    setting: tuple[str, str],
    moods: tuple[bool, bool],
    rng: np.random.Generator,
) -> Thing:
    """One object: what is stated of it, and what the world would add. setting: background and camera."""
    mine = drafts[index]
    shape = mine.get("shape", ["ball"])[0]
    taken = {other.colour for other in others}
    taken |= {colour for each in drafts.values() for colour in each.get("colour", ())}
    visible = [name for name in VISIBLE_ON[setting[0]] if name not in taken] or list(COLOURS)
    open_colours = [name for name in visible if not is_hole(name, shape, "")] or visible
    colour = mine["colour"][0] if "colour" in mine else str(rng.choice(open_colours))
    direction = _direction(index, drafts, setting[1], shape, rng)
    events = tuple(mine.get("event", ()))
    material = mine.get("material", [""])[0]
    aloft = moods[1] or any(word.startswith("above") for word in _related(index, drafts))
    manner = _manner(shape, direction, events, moods[0] or bool(material), aloft)
    size = mine["size"][0] if "size" in mine else _size(index, drafts, rng)
    hat, eyes = _face(mine, colour, rng)
    x = 0.25 if any(word.startswith("right of") for word in _related(index, drafts)) else 0.0
    x = -0.25 if any(word.startswith("left of") for word in _related(index, drafts)) else x
    y = 0.5 if manner in ("drift", "float", "sink", "hang", "drop", "hop") else 0.13 + SIZES[size] / 2
    return Thing(colour, shape, size, direction, manner, x, y, events, material, hat, eyes)


def _related(index: int, drafts: Drafts) -> list[str]:
    """The relations of an object, from its own side: "behind 1"."""
    return [
        *drafts[index].get("relation", ()),
        *(f"{OPPOSITE[word]} {i}" for i, word, j in relations(drafts) if j == index),
    ]


def _direction(index: int, drafts: Drafts, camera: str, shape: str, rng: np.random.Generator) -> str:
    """The stated direction, the one that an event or relation needs, or any that training shows."""
    mine = drafts[index]
    events = mine.get("event", [])
    if "direction" in mine:
        return mine["direction"][0]
    for event in events:
        verb, _, side = event.partition(" ")
        if verb == "enter":
            return "right" if side == "left" else "left"
        if verb == "leave":
            return side
    if "bounce" in events:
        return ""
    struck = [int(event.split()[1]) for event in events if event.startswith("collide")]
    related = [relation.rsplit(" ", 1) for relation in _related(index, drafts)]
    if any(other < index for other in struck) or any(
        word not in ("behind", "in front of") or int(other) < index for word, other in related
    ):
        return "still"
    weights = {name: weight for name, weight in PLAIN_MOTIONS.items() if not is_hole("", shape, name)}
    if struck or related or camera == "follow":
        weights = {"left": 1.0, "right": 1.0}
    shares = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=shares / shares.sum()))


def _manner(shape: str, direction: str, events: Sequence[str], falls: bool, aloft: bool) -> str:
    """How a body moves: round ones roll, others slide, what is aloft drifts or hangs."""
    if "bounce" in events:
        return "hop" if direction in ("left", "right") else "drop"
    if direction in ("left", "right"):
        return "drift" if aloft else "roll" if shape in ROUND else "slide"
    vertical = {"up": "float", "down": "drop" if falls else "sink"}
    return vertical.get(direction, "hang" if aloft else "stand")


def _size(index: int, drafts: Drafts, rng: np.random.Generator) -> str:
    """Who passes behind something is small and the screen large; else any."""
    for word, other in (relation.rsplit(" ", 1) for relation in _related(index, drafts)):
        if word in ("behind", "in front of"):
            return "small" if index < int(other) else "large"
    return str(rng.choice(tuple(SIZES)))


def _face(
    mine: Mapping[str, list[str]], colour: str, rng: np.random.Generator
) -> tuple[tuple[str, str] | None, int]:
    """Hat (shape, colour) and eyes, both or none: so do the characters of the world."""
    if "hat" not in mine and "eyes" not in mine:
        return None, 0
    words = mine.get("hat", [""])[0].split()
    shapes = [word for word in words if word not in COLOURS and word not in SIZES]
    colours = [word for word in words if word in COLOURS]
    other = str(rng.choice([name for name in COLOURS if name != colour]))
    shape = shapes[0] if shapes else str(rng.choice(HATS))
    eyes = int(mine["eyes"][0]) if "eyes" in mine else int(rng.integers(1, 4))
    return (shape, colours[0] if colours else other), eyes


def _shots(prompt: str, told: Truth, rng: np.random.Generator) -> tuple[Truth, ...]:
    """The shots of a story: each has the things of the whole, and its own place and motion."""
    parts = [parse(f"the {told.things[0].shape}. {part}")[0] for part in split_shots(prompt)]
    places = [next((fact.value for fact in part if fact.kind == "background"), "") for part in parts]
    free = [name for name in VISIBLE_PLACES[told.things[0].colour] if name not in places]
    hat, eyes = told.things[0].hat, told.things[0].eyes
    if hat is None:
        hat, eyes = _face({"hat": [""]}, told.things[0].colour, rng)
    shots = []
    for part, place in zip(parts, places, strict=True):
        drafts = draft(
            fact for fact in part if fact.subject == 0 and fact.kind in ("direction", "event", "size")
        )
        mine = drafts.get(0, {})
        way = _direction(0, {0: mine}, "follow", told.things[0].shape, rng)
        events = tuple(event for event in mine.get("event", ()) if not event.startswith("collide"))
        manner = _manner("box", way, events, falls=False, aloft=False)
        actor = replace(told.things[0], direction=way, events=events, manner=manner, hat=hat, eyes=eyes)
        actor = replace(actor, size=mine["size"][0]) if "size" in mine else actor
        place = place or str(rng.choice(free or BACKGROUNDS))
        free = [name for name in free if name != place]
        shots.append(Truth(place, told.style, (actor, *told.things[1:]), (), "static"))
    return tuple(shots)


VISIBLE_PLACES = {colour: [name for name in BACKGROUNDS if colour in VISIBLE_ON[name]] for colour in COLOURS}


def _notes(drafts: Drafts, stated: Sequence[Fact], unknown: Sequence[str]) -> tuple[str, ...]:
    """What cannot be shown, or hardly."""
    notes = []
    if unknown:
        words = ", ".join(repr(word) for word in unknown)
        notes.append(f"The built-in world has no {words}; that part of the prompt cannot be shown.")
    for place in (fact.value for fact in stated if fact.kind == "background"):
        for each in drafts.values():
            colour = each.get("colour", [""])[0]
            if colour and colour not in VISIBLE_ON[place]:
                notes.append(
                    f"A {colour} {each['shape'][0]} is hard to see {BACKGROUND_WORDS[place][0]}; "
                    f"{', '.join(VISIBLE_ON[place])} stand out there."
                )
    return tuple(notes)
