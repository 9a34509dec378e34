"""What a prompt leaves open, chosen: a scene that the world could show, of which everything that is asked for holds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from mutoscope.generation.stated import Drafts, draft, relations
from mutoscope.world.facts import OPPOSITE, Fact, Thing, Truth
from mutoscope.world.palette import VISIBLE_ON
from mutoscope.world.reading import Reading
from mutoscope.world.stage import BACKGROUNDS, COLOURS, HATS, SHAPES, SIZES, is_hole

FALLING = re.compile(r"(?<!light )\b(?:fall|drop|plummet|tumbl)", re.IGNORECASE)
ALOFT = re.compile(
    r"\b(?:fl(?:y|ies|ew|oat)|glid|drift|hover|hang|in the (?:air|sky)|soar|levitat)", re.IGNORECASE
)
GROUNDED = re.compile(r"\b(?:stand|rests on the floor|roll|slid)", re.IGNORECASE)
ROUND = ("ball", "ring")
PLAIN_MOTIONS = {"left": 1.0, "right": 1.0, "up": 0.8, "down": 0.8, "still": 0.4}
WAYS = {
    "sideways": ("left", "right"),
    "vertical": ("up", "down"),
    "any": ("left", "right", "up", "down"),
    "aloft": ("up", "left", "right"),
}
SIDES = {"left": -1, "right": 1, "bottom": -1, "top": 1, "back": -1, "front": 1}
AXES = (  # places, and how things at them are related
    ("left", "right", "left of", "right of"),
    ("bottom", "top", "below", "above"),
    ("back", "front", "behind", "in front of"),
)
PLACES = {  # as captions say it
    "left": "on the left", "right": "on the right", "middle": "in the middle", "top": "high up", "bottom": "low down",
}  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """What a caption is to say.

    asked: what is stated, and what was chosen where the prompt leaves a choice (`settled`). drafts: the same, object by
    object. place: of the only thing, such as ("left", "top"); empty when that is not said.
    """

    prompt: str
    asked: tuple[Fact, ...]
    drafts: Drafts
    reading: Reading
    picture: bool = False
    place: tuple[str, ...] = ()

    def denies(self, said: Sequence[Fact]) -> bool:
        """Whether something is told that must not be there."""
        wanted = {(fact.kind, fact.value) for fact in self.asked}
        denied = self.reading.denied - wanted
        return any((fact.kind, fact.value) in denied or (fact.kind, "") in denied for fact in said)


def settled(reading: Reading, picture: bool, rng: np.random.Generator) -> tuple[Fact, ...]:
    """The facts of a prompt, and those that it leaves to choice: "it rolls", "beside", "the one on the left"."""
    drafts = draft(reading.facts)
    chosen: list[Fact] = []
    for index in () if picture else dict.fromkeys(index for index, _ in reading.open_ways):
        ways = _ways(index, reading)
        alike = [fact.value for fact in chosen if _look(drafts, fact.subject or 0) == _look(drafts, index)]
        way = alike[0] if alike and alike[0] in ways and _look(drafts, index) else str(rng.choice(ways))
        chosen.append(Fact("direction", index, way))
    if len(drafts) == 1 and reading.places and not picture and not {"direction", "event"} & drafts[0].keys():
        chosen += [Fact("direction", 0, "still")] if not chosen else []
    related = {frozenset((i, j)) for i, _, j in relations(drafts)}
    side = str(rng.choice(("left of", "right of"))) if reading.beside else ""
    for i, j in reading.beside:
        if frozenset((i, j)) not in related:
            related.add(frozenset((i, j)))
            chosen.append(Fact("relation", i, f"{side} {j}"))
    for low, high, before, behind in AXES:
        sides = {i: SIDES[place] for i, place in reading.places if place in (low, high)}
        for i, j in combinations(sorted(drafts), 2) if sides else ():
            if sides.get(i, 0) != sides.get(j, 0) and frozenset((i, j)) not in related:
                related.add(frozenset((i, j)))
                word = before if sides.get(i, 0) < sides.get(j, 0) else behind
                chosen.append(Fact("relation", i, f"{word} {j}"))
    return (*reading.facts, *dict.fromkeys(chosen))


def _ways(index: int, reading: Reading) -> list[str]:
    """The directions in which a thing may go, if all that is said of it holds: "moves", "vertically"."""
    ways = list(WAYS["any"])
    for other, way in reading.open_ways:
        if other == index:
            ways = [name for name in ways if name in WAYS[way]] or list(WAYS[way])
    return [name for name in ways if ("direction", name) not in reading.denied] or ways


def _look(drafts: Drafts, index: int) -> list[str]:
    mine = drafts.get(index, {})
    return [value for kind in ("size", "colour", "shape") for value in mine.get(kind, ())]


def place_of(reading: Reading) -> tuple[str, ...]:
    """Where the only thing is, as far as a caption says it."""
    alone = sum(fact.kind == "shape" for fact in reading.facts) == 1
    return tuple(place for place in PLACES if alone and (0, place) in reading.places)


# --- a truth


def complete(wish: Wish, rng: np.random.Generator) -> Truth:
    """A truth of which everything asked for holds, as far as one truth can, and the rest is plausible."""
    clip = {
        kind: [fact.value for fact in wish.asked if fact.subject is None and fact.kind == kind]
        for kind in ("background", "camera", "style", "count", "shots")
    }
    number = max([1 + max(wish.drafts), *(int(count) for count in clip["count"])])
    drafts = {index: wish.drafts.get(index, {}) for index in range(min(number, len(COLOURS)))}
    wish = replace(wish, drafts=drafts)
    background = clip["background"][0] if clip["background"] else _background(wish, rng)
    camera, style = (clip["camera"] or ["static"])[0], (clip["style"] or ["paper"])[0]
    things: list[Thing] = []
    for index in drafts:
        things.append(_thing(index, wish, things, (background, camera), rng))
    if wish.picture:
        things = [replace(thing, manner="picture", direction="") for thing in things]
    told = Truth(background, style, tuple(things), tuple(relations(drafts)), camera)
    if not clip["shots"] or not wish.reading.shots:
        return told
    return replace(told, shots=_shots(wish.reading.shots, told, rng))


def _allowed(kind: str, names: Sequence[str], wish: Wish) -> list[str]:
    """The names that are not denied; all of them if none is left."""
    return [name for name in names if (kind, name) not in wish.reading.denied] or list(names)


def _background(wish: Wish, rng: np.random.Generator) -> str:
    """A backdrop before which everything whose colour is stated can be seen."""
    colours = {colour for each in wish.drafts.values() for colour in each.get("colour", ())}
    seen = [name for name in BACKGROUNDS if colours <= set(VISIBLE_ON[name])]
    return str(rng.choice(_allowed("background", seen or BACKGROUNDS, wish)))


def _thing(
    index: int, wish: Wish, others: Sequence[Thing], setting: tuple[str, str], rng: np.random.Generator
) -> Thing:
    """One object: what is asked of it, and what the world would add. setting: background and camera."""
    drafts, mine = wish.drafts, wish.drafts[index]
    shape = mine["shape"][0] if "shape" in mine else str(rng.choice(_allowed("shape", SHAPES, wish)))
    taken = {other.colour for other in others}
    taken |= {colour for each in drafts.values() for colour in each.get("colour", ())}
    visible = [name for name in VISIBLE_ON[setting[0]] if name not in taken] or list(COLOURS)
    open_colours = [name for name in visible if not is_hole(name, shape, "")] or visible
    open_colours = _allowed("colour", open_colours, wish)
    colour = mine["colour"][0] if "colour" in mine else str(rng.choice(open_colours))
    direction = _direction(index, wish, setting[1], shape, rng)
    events = tuple(mine.get("event", ()))
    material = mine.get("material", [""])[0]
    aloft = ALOFT.search(wish.prompt) is not None or "top" in wish.place
    aloft = aloft or any(word.startswith("above") for word in _related(index, drafts))
    falls = FALLING.search(wish.prompt) is not None or bool(material)
    manner = _manner(shape, direction, events, falls, aloft)
    size = mine["size"][0] if "size" in mine else _size(index, drafts, rng)
    hat, eyes = _face(mine, colour, rng)
    hat = None if ("hat", "") in wish.reading.denied else hat
    where = [place for other, place in wish.reading.places if other == index]
    x = next((0.25 * SIDES[place] for place in where if place in ("left", "right")), 0.0)
    x = 0.25 if not where and any(word.startswith("right of") for word in _related(index, drafts)) else x
    x = -0.25 if not where and any(word.startswith("left of") for word in _related(index, drafts)) else x
    y = 0.5 if manner in ("drift", "float", "sink", "hang", "drop", "hop") else 0.13 + SIZES[size] / 2
    y = next(({"top": 0.7, "bottom": 0.2}[place] for place in where if place in ("top", "bottom")), y)
    return Thing(colour, shape, size, direction, manner, x, y, events, material, hat, eyes)


def _related(index: int, drafts: Drafts) -> list[str]:
    """The relations of an object, from its own side: "behind 1"."""
    return [
        *drafts[index].get("relation", ()),
        *(f"{OPPOSITE[word]} {i}" for i, word, j in relations(drafts) if j == index),
    ]


def _direction(index: int, wish: Wish, camera: str, shape: str, rng: np.random.Generator) -> str:
    """The stated direction, the one that an event or relation needs, or any that training shows."""
    drafts, mine = wish.drafts, wish.drafts[index]
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
    weights = {name: weights[name] for name in _allowed("direction", list(weights), wish)}
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


def _shots(parts: Sequence[Sequence[Fact]], told: Truth, rng: np.random.Generator) -> tuple[Truth, ...]:
    """The shots of a story: each has the things of the whole, and its own place and motion."""
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
        alone = Wish("", (), {0: mine}, Reading((), ()))
        way = _direction(0, alone, "follow", told.things[0].shape, rng)
        events = tuple(event for event in mine.get("event", ()) if not event.startswith("collide"))
        manner = _manner("box", way, events, falls=False, aloft=False)
        actor = replace(told.things[0], direction=way, events=events, manner=manner, hat=hat, eyes=eyes)
        actor = replace(actor, size=mine["size"][0]) if "size" in mine else actor
        place = place or str(rng.choice(free or BACKGROUNDS))
        free = [name for name in free if name != place]
        shots.append(Truth(place, told.style, (actor, *told.things[1:]), (), "static"))
    return tuple(shots)


VISIBLE_PLACES = {colour: [name for name in BACKGROUNDS if colour in VISIBLE_ON[name]] for colour in COLOURS}
