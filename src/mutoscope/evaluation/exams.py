"""Exams: kinds of questions (prompt, ground truth, what is asked of the clip), each a pure function of a seed."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mutoscope.evaluation.truth import JUDGED
from mutoscope.generation.expand import expand
from mutoscope.world.captions import Kind, caption, parse
from mutoscope.world.facts import Fact, truth
from mutoscope.world.palette import VISIBLE_ON
from mutoscope.world.physics import straight
from mutoscope.world.portrait import last_shot
from mutoscope.world.scene import (
    COLOURS,
    EXTENTS,
    GROUND,
    PLAIN,
    SHAPES,
    SIZES,
    Body,
    Scene,
    SceneMix,
    Shot,
    View,
    is_hole,
    sample_scene,
)
from mutoscope.world.words import COLOUR_WORDS, HELD_OUT_SYNONYMS, SHAPE_WORDS, SIZE_WORDS

FRESH = 2**62  # scenes from this seed on are for exams: training stays below
PROMPTS: tuple[Kind, ...] = ("short", "medium")  # by turns
LENGTHS: dict[str, Kind] = {
    "short": "short",
    "detailed": "detailed",
    "long": "detailed",
}  # of wordings that have one
STEP = 16  # sides of a view are multiples of it, in pixels
BESIDE = 0.22  # half the distance of two bodies in a minimal pair, stage units
ABOVE = 0.74  # height of the upper one
PAIR_SHAPES = ("ball", "box", "triangle", "ring")  # of minimal pairs; stars may never stand still
OPPOSITES = {"left of": "right of", "above": "below"}
SAID = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}

FOREIGN = (
    "ein rotes Dreieck fliegt langsam davon", "una pelota azul rueda hacia la derecha", "红色的球向右滚动",
    "красный шар катится вправо", "赤いボールが右に転がる", "كرة حمراء تتدحرج إلى اليمين",
    "\U0001f534 \u27a1\ufe0f \U0001f7e6",
)  # fmt: skip
PADDING = "and so it goes on and on, "
ENDLESS = 5000  # characters of the longest prompt that is asked

Wording = Literal["plain", "short", "detailed", "strange", "typos", "terse", "long", "odd"]
Task = Literal["generate", "extend", "back", "connect", "loop", "edit", "described", "named"]
Measured = Literal["", "physics", "permanence", "identity", "framing", "drift", "seams", "robust"]


@dataclass(frozen=True)
class Exam:
    """A set of questions.

    holes: only scenes with a combination that training never shows. words: how the prompt is put (detailed: judged by
    what the short caption of its scene states); expanded: the kind of caption that `expand` makes of it for the model.
    aspect: width by height, of the area of the model's own size. scale: factors of width and height; length: of the
    frames after the first. known: frames of the truth that the model is shown, at the beginning; at the end of what is
    made longer `back`; at both ends of what it is to `connect`. A character is asked for in another place than that of
    its picture: in words, which seldom tell its size (`described`), or also with the picture (`named`).
    hurry: how much faster everything goes than in training. pairs: minimal pairs, two questions each. least: objects
    that a scene must have. measured: what is measured of a clip besides the facts of its prompt.
    """

    name: str
    count: int
    holes: bool = False
    words: Wording = "plain"
    expanded: Kind | None = None
    aspect: float | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    length: float = 1.0
    fps: float | None = None
    mix: SceneMix = PLAIN
    known: int = 0
    task: Task = "generate"
    hurry: float = 1.0
    pairs: bool = False
    least: int = 1
    measured: Measured = ""

    @property
    def family(self) -> str:
        """P0 to P11."""
        return self.name.split("_")[0]


@dataclass(frozen=True)
class Question:
    """One clip that is asked for. told: what must be seen in it; pair: which other question it belongs to.

    source: the scene of the clip that is to become this one, of an edit; the one that a character is taken from.
    """

    exam: Exam
    prompt: str
    scene: Scene
    view: View
    told: tuple[Fact, ...]
    pair: int | None = None
    source: Scene | None = None

    @property
    def seed(self) -> int:
        """Of the noise."""
        return self.scene.seed


def questions(exam: Exam, view: View, seed: int) -> list[Question]:
    """The questions of an exam for a model whose own view is `view`."""
    asked = view_of(exam, view)
    if exam.pairs:
        return [question for i in range(exam.count // 2) for question in _pair(exam, asked, seed, i)]
    return [
        _question(exam, asked, scene, index) for index, scene in enumerate(fresh_scenes(exam, asked, seed))
    ]


def view_of(exam: Exam, view: View) -> View:
    """The view of an exam: sides in whole multiples of 16, 1 + 4k frames unless the model's own are asked for."""
    width, height, frames = view.width, view.height, view.frames
    if exam.aspect is not None:
        high = math.sqrt(width * height / exam.aspect)
        height = max(STEP, round(high / STEP) * STEP)
        width = max(STEP, round(height * exam.aspect / STEP) * STEP)
    if exam.scale != (1.0, 1.0):
        width, height = (
            max(STEP, round(side * factor / STEP) * STEP)
            for side, factor in zip((width, height), exam.scale, strict=True)
        )
    fps = exam.fps or view.fps
    if exam.length != 1.0 or fps != view.fps:
        frames = 1 + 4 * round((frames - 1) * exam.length * fps / view.fps / 4)
    return View(width, height, frames, fps)


def fresh_scenes(exam: Exam, view: View, seed: int) -> list[Scene]:
    """Scenes that no training run draws, from seed FRESH + (seed << 32) on; those with holes only if asked.

    Motion is staged for the length of the view, as in training, or for a part of it if the exam is in a hurry.
    """
    seconds = max(PLAIN.seconds, (view.frames - 1) / view.fps) / exam.hurry
    mix = replace(exam.mix, seconds=seconds, allow_holes=exam.holes)
    scenes: list[Scene] = []
    next_seed = FRESH + (seed << 32)
    while len(scenes) < exam.count:
        scene = sample_scene(next_seed, mix)
        things = truth(scene, view).things
        fits = not exam.holes or any(is_hole(thing.colour, thing.shape, thing.direction) for thing in things)
        if fits and len(things) >= exam.least:
            scenes.append(scene)
        next_seed += 1
    return scenes


def stated(prompt: str) -> tuple[Fact, ...]:
    """The facts that a prompt states and that the oracle can judge, and that nothing else is there."""
    told = [fact for fact in parse(prompt)[0] if fact.kind != "count" and fact.kind in JUDGED]
    subjects = {fact.subject for fact in told if fact.subject is not None}
    return (*told, Fact("count", None, str(len(subjects))))


def _question(exam: Exam, view: View, scene: Scene, index: int) -> Question:
    """A short or a medium caption of the scene, by turns, put as the exam wants it."""
    if exam.words == "odd":
        return odd(exam, view, scene, index)
    source = scene if exam.task in ("edit", "described", "named") else None
    if source is not None:
        scene = repainted(source) if exam.task == "edit" else last_shot(source)
    kind = LENGTHS.get(exam.words, PROMPTS[index % len(PROMPTS)])
    plain = caption(scene, view, kind, seed=index)
    told = stated(caption(scene, view, "short", seed=index) if exam.words == "detailed" else plain)
    if exam.measured == "identity" or exam.task == "loop":
        told = ()  # the oracle reads shots one by one; what goes there and back has no direction
    elif exam.least > 4:
        told = tuple(fact for fact in told if fact.kind == "count")  # matching 6 objects takes too long
    match exam.words:
        case "plain" | "short" | "detailed":
            prompt = plain
        case "strange":
            prompt = with_strange_words(plain)
        case "typos":
            prompt = with_typos(plain, np.random.default_rng((scene.seed, index)))
        case "terse":
            prompt, told = terse(told)
        case "long":
            prompt = running_on(plain)
    if exam.expanded is not None:
        prompt = expand(prompt, seed=index, kind=exam.expanded).text
    return Question(exam, prompt, scene, view, told, source=source)


def odd(exam: Exam, view: View, scene: Scene, index: int) -> Question:
    """By turns: no words at all, thousands of characters, another language or signs, and two colours for one thing.

    Of what is endless the beginning counts, and of two colours the last, as in `parse`; nothing is asked of a prompt
    without words that the world knows.
    """
    told: tuple[Fact, ...] = ()
    match index % 4:
        case 0:
            prompt = " " * (index % 8)
        case 1:
            plain = caption(scene, view, "short", seed=index)
            prompt, told = f"{plain.rstrip('.')}, {PADDING * ENDLESS}"[:ENDLESS], stated(plain)
        case 2:
            prompt = FOREIGN[index // 4 % len(FOREIGN)]
        case _:
            body = scene.shots[0].bodies[0]
            other = next(colour for colour in COLOURS[index % 7 :] if colour != body.colour)
            scene = replace(scene, shots=(replace(scene.shots[0], bodies=(body,)),))
            prompt = f"a {other} {body.colour} {body.shape}"
            told = stated(prompt)
    return Question(exam, prompt, scene, view, told)


def repainted(scene: Scene) -> Scene:
    """The scene with its first body in another colour that can be seen there and that training shows with its shape."""
    (shot, *others), choose = scene.shots, np.random.default_rng((scene.seed, 3))
    first, *rest = shot.bodies
    taken = {body.colour for body in shot.bodies}
    colours = [
        name
        for name in COLOURS
        if name in VISIBLE_ON[shot.background] and name not in taken and not is_hole(name, first.shape, "")
    ]
    first = replace(first, colour=str(choose.choice(colours)))
    return replace(scene, shots=(replace(shot, bodies=(first, *rest)), *others))


def with_strange_words(text: str) -> str:
    """The text in synonyms that training never shows, where there are any."""
    tables = {"colour": COLOUR_WORDS, "shape": SHAPE_WORDS, "size": SIZE_WORDS}
    for strange, (kind, value) in HELD_OUT_SYNONYMS.items():
        if kind in tables:
            known = "|".join(sorted(map(re.escape, tables[kind][value]), key=len, reverse=True))
            text = re.sub(rf"\b(?:{known})\b", strange, text)
    return text


def with_typos(text: str, choose: np.random.Generator, most: int = 2) -> str:
    """One or two words of five letters or more misspelt: a letter dropped, doubled, or two swapped."""
    words = text.split(" ")
    long = [place for place, word in enumerate(words) if len(word.strip(".,;")) >= 5]
    for place in choose.permutation(long)[: int(choose.integers(1, most + 1))]:
        words[place] = _misspelt(words[place], choose)
    return " ".join(words)


def _misspelt(word: str, choose: np.random.Generator) -> str:
    """One edit behind the first letter."""
    at = int(choose.integers(1, len(word.strip(".,;")) - 1))
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    edits = {word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], swapped} - {word}
    return sorted(edits)[int(choose.integers(len(edits)))]


def terse(told: Sequence[Fact]) -> tuple[str, tuple[Fact, ...]]:
    """Colour, shape and direction of each object and no other word; and the facts that are left."""
    parts = []
    for subject in sorted({fact.subject for fact in told if fact.subject is not None}):
        values = {fact.kind: fact.value for fact in told if fact.subject == subject}
        parts.append(" ".join(values[kind] for kind in ("colour", "shape", "direction") if kind in values))
    kept = ("colour", "shape", "direction", "count")
    return ", ".join(parts), tuple(fact for fact in told if fact.kind in kept)


def running_on(text: str) -> str:
    """The sentences of a text as one long one."""
    sentences = [sentence[0].lower() + sentence[1:] for sentence in text.rstrip(".").split(". ")]
    return "so in this clip what we see is that " + ", and then also ".join(sentences)


def _pair(exam: Exam, view: View, seed: int, index: int) -> tuple[Question, Question]:
    """Two still objects, and the same two the other way round: the prompts differ in one word of relation."""
    first = FRESH + (seed << 32) + (1 << 31) + 2 * index
    choose = np.random.default_rng((first, 2))
    relation = ("left of", "above")[index % 2]
    background = str(choose.choice(PLAIN.backgrounds))
    colours = choose.permutation([name for name in COLOURS if name in VISIBLE_ON[background]])
    looks = [
        (str(colour), str(shape))
        for colour, shape in zip(colours, choose.choice(PAIR_SHAPES, size=len(colours)), strict=True)
        if not is_hole(str(colour), str(shape), "still")
    ][:2]
    size = str(choose.choice([name for name in SIZES if name != "large"]))
    phase = float(choose.uniform(0, 2 * np.pi))
    one, other = (f"{colour} {shape}" for colour, shape in looks)
    asked = []
    for turn, said in enumerate((relation, OPPOSITES[relation])):
        bodies = _placed(looks if turn == 0 else looks[::-1], size, relation)
        scene = Scene(first + turn, (Shot(background, bodies if turn == 0 else bodies[::-1], phase),))
        prompt = (
            f"a {one} stands still {SAID[said]} a {other}"
            if index % 4 < 2
            else f"a {one} and a {other}; the {one} is {SAID[said]} the {other}"
        )
        asked.append(Question(exam, prompt, scene, view, stated(prompt), pair=index))
    return asked[0], asked[1]


def _placed(looks: Sequence[tuple[str, str]], size: str, relation: str) -> tuple[Body, ...]:
    """Two bodies at rest, the first left of or above the second."""
    bodies = []
    for place, (colour, shape) in enumerate(looks):
        low = GROUND + EXTENTS[shape][1] * SIZES[size]
        x, y = (-BESIDE, low) if relation == "left of" else (0.0, ABOVE)
        if place == 1:
            x, y = (BESIDE, low) if relation == "left of" else (0.0, low)
        bodies.append(Body(shape, colour, size, SIZES[size], straight(x, y), "stand" if y == low else "hang"))
    return tuple(bodies)


def only(*plays: str) -> SceneMix:
    """A mix of nothing but some plays, with one object where a play leaves the choice."""
    return SceneMix(objects=(1.0,), plays=dict.fromkeys(plays, 1.0))


_STILL = SceneMix(
    objects=(1.0,), motions={"still": 1.0}, shapes=tuple(name for name in SHAPES if name != "star")
)
_ONE_MOVING = SceneMix(objects=(1.0,), motions={"left": 1.0, "right": 1.0, "up": 1.0, "down": 1.0})
_MANY = replace(_STILL, objects=(0.0, 0.0, 0.0, 0.0, 0.5, 0.5), shapes=SHAPES, sizes=("small",))
_STORY = SceneMix(plays={"story": 1.0})

SUITES: dict[str, tuple[Exam, ...]] = {
    "quick": (Exam("P0", 48), Exam("P1", 24, holes=True)),
    "full": (
        Exam("P0", 512),
        Exam("P1", 512, holes=True),
        Exam("P2", 384, pairs=True),
        Exam("P3", 128, mix=_MANY, least=5),
        Exam("P4_short", 96, words="short"),
        Exam("P4_short_expanded", 96, words="short", expanded="medium"),
        Exam("P4_short_detailed", 96, words="short", expanded="detailed"),
        Exam("P4_detailed", 96, words="detailed"),
        Exam("P4_synonyms", 96, words="strange"),
        Exam("P4_typos", 96, words="typos"),
        Exam("P4_terse", 96, words="terse"),
        Exam("P4_long", 96, words="long"),
        Exam("P4_synonyms_expanded", 96, words="strange", expanded="medium"),
        Exam("P4_typos_expanded", 96, words="typos", expanded="medium"),
        Exam("P4_terse_expanded", 96, words="terse", expanded="medium"),
        Exam("P5_glide", 64, mix=_ONE_MOVING, known=5, measured="physics"),
        Exam("P5_hurry", 64, mix=_ONE_MOVING, known=5, hurry=1.6, measured="physics"),
        Exam("P5_fall", 64, mix=only("drop"), known=1, measured="physics"),
        Exam("P5_meet", 64, mix=only("collide"), known=5, measured="physics"),
        Exam("P6_told", 96, mix=only("behind"), measured="permanence"),
        Exam("P6_seen", 96, mix=only("behind"), known=5, measured="permanence"),
        Exam("P7", 128, mix=_STORY, length=2.0, measured="identity"),
        Exam("P7_seen", 64, mix=_STORY, length=2.0, known=9, measured="identity"),
        Exam("P7_described", 64, words="short", mix=_STORY, hurry=0.5, task="described", measured="identity"),
        Exam("P7_named", 64, words="short", mix=_STORY, hurry=0.5, task="named", measured="identity"),
        Exam("P8_9by16", 48, aspect=9 / 16, measured="framing"),
        Exam("P8_3by4", 48, aspect=3 / 4, measured="framing"),
        Exam("P8_16by9", 48, aspect=16 / 9, measured="framing"),
        Exam("P8_21by9", 48, aspect=21 / 9, measured="framing"),
        Exam("P9_1.5x", 48, scale=(1.5, 1.5), measured="framing"),
        Exam("P9_2x", 32, scale=(2.0, 2.0), measured="framing"),
        Exam("P9_24fps", 16, fps=24.0, measured="framing"),
        Exam("P9_long2x", 32, mix=_STILL, length=2.0, measured="drift"),
        Exam("P9_long4x", 24, mix=_STILL, length=4.0, measured="drift"),
        Exam("P9_long10x", 16, mix=_STILL, length=10.0, measured="drift"),
        Exam("P10_picture", 64, known=1, measured="seams"),
        Exam("P10_extend", 64, mix=_ONE_MOVING, known=9, task="extend", measured="seams"),
        Exam("P10_back", 64, mix=_ONE_MOVING, known=9, task="back", measured="seams"),
        Exam("P10_connect", 64, mix=_ONE_MOVING, length=2.0, known=9, task="connect", measured="seams"),
        Exam("P10_loop", 64, mix=_ONE_MOVING, task="loop", measured="seams"),
        Exam("P10_recolour", 64, mix=SceneMix(objects=(1.0,)), task="edit"),
        Exam("P11", 64, words="odd", measured="robust"),
    ),
}  # fmt: skip
