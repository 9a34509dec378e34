"""A scene is a state of the paper theatre: who stands where, who moves how, seen by which camera.

Lengths are in stage units. A view always shows the unit square of the stage (x in [-0.5, 0.5], y in [0, 1],
y upwards) and more of the stage on its longer side, so that one scene serves every size and aspect.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mutoscope.errors import InputError
from mutoscope.world.palette import BACKDROPS, PALETTE, VISIBLE_ON
from mutoscope.world.physics import Path, positions, straight

COLOURS: tuple[str, ...] = tuple(PALETTE)
SHAPES = ("ball", "box", "triangle", "star", "ring", "capsule")
SIZES: dict[str, float] = {"small": 0.20, "medium": 0.28, "large": 0.38}  # diameters in stage units
DIRECTIONS = ("left", "right", "up", "down", "still")
BACKGROUNDS: tuple[str, ...] = tuple(BACKDROPS)
STYLES = ("paper", "outline", "neon")

# Latin-square holes: combinations that no training clip shows, though each value alone is seen often.
COLOUR_SHAPE_HOLES = frozenset(
    {
        ("red", "capsule"), ("orange", "star"), ("green", "ring"), ("cyan", "triangle"),
        ("purple", "box"), ("pink", "ball"), ("white", "capsule"),
    }
)  # fmt: skip
SHAPE_MOTION_HOLES = frozenset({("triangle", "up"), ("capsule", "left"), ("ring", "down"), ("star", "still")})

GROUND = 0.13  # where feet stand
FLOOR = 0.20  # upper edge of the floor strip
# Half extents of a shape of diameter 1: side, foot, head.
EXTENTS: dict[str, tuple[float, float, float]] = {
    "ball": (0.5, 0.5, 0.5),
    "box": (0.45, 0.45, 0.45),
    "triangle": (0.563, 0.325, 0.65),
    "star": (0.590, 0.502, 0.62),
    "ring": (0.52, 0.52, 0.52),
    "capsule": (0.62, 0.30, 0.30),
}


@dataclass(frozen=True)
class View:
    """Where pixels come from: size in pixels, number of frames, frames per second."""

    width: int
    height: int
    frames: int
    fps: float = 8.0

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or self.frames < 1 or not 0 < self.fps <= 1000:
            raise InputError(f"view {self} is empty: width, height, frames and fps must be positive.")

    @property
    def unit(self) -> int:
        """Pixels per stage unit: the shorter side."""
        return min(self.width, self.height)


@dataclass(frozen=True)
class Body:
    """One paper cut-out. `diameter` in stage units; `path` from physics; `manner` is how it moves."""

    shape: str
    colour: str
    size: str
    diameter: float
    path: Path
    manner: str


@dataclass(frozen=True)
class Shot:
    """A run of time without a cut. Bodies are in painter's order: later ones are nearer."""

    background: str
    bodies: tuple[Body, ...]
    phase: float  # where the paper hills begin, radians
    start: float = 0.0  # seconds


@dataclass(frozen=True)
class Scene:
    """One or more shots in one style. The same seed and mix give the same scene, for ever."""

    seed: int
    shots: tuple[Shot, ...]
    style: str = "paper"


@dataclass(frozen=True)
class SceneMix:
    """What may happen, with which probability. Restrict it for a curriculum.

    `objects[k]` is the weight of k + 1 objects; `motions` weighs the directions of plain motion;
    `seconds` is the duration that motions are staged for.
    """

    objects: tuple[float, ...] = (0.55, 0.45)
    motions: Mapping[str, float] = field(
        default_factory=lambda: {"left": 1.0, "right": 1.0, "up": 0.8, "down": 0.8, "still": 0.6}
    )
    colours: tuple[str, ...] = COLOURS
    shapes: tuple[str, ...] = SHAPES
    sizes: tuple[str, ...] = tuple(SIZES)
    backgrounds: tuple[str, ...] = BACKGROUNDS
    seconds: float = 2.0
    allow_holes: bool = False


TRAVEL = (0.38, 0.60)  # distance covered in `seconds`, stage units
TRIES = 60


def sample_scene(seed: int, mix: SceneMix = SceneMix()) -> Scene:
    """The scene of a seed (0 <= seed < 2**63): a pure function of seed and mix."""
    if not 0 <= seed < 2**63:
        raise InputError(f"seed {seed} is out of range: give an integer from 0 to 2**63 - 1.")
    rng = np.random.Generator(np.random.Philox(key=seed))
    background = str(rng.choice(mix.backgrounds))
    phase = float(rng.uniform(0, 2 * np.pi))
    weights = np.array(mix.objects, np.float64)
    count = 1 + int(rng.choice(len(weights), p=weights / weights.sum()))
    bodies = _plain_bodies(rng, mix, background, count)
    return Scene(seed, (Shot(background, bodies, phase),))


def is_hole(colour: str, shape: str, motion: str) -> bool:
    """Whether training never shows this combination."""
    return (colour, shape) in COLOUR_SHAPE_HOLES or (shape, motion) in SHAPE_MOTION_HOLES


def _plain_bodies(rng: np.random.Generator, mix: SceneMix, background: str, count: int) -> tuple[Body, ...]:
    """Bodies in uniform motion that keep clear of each other; crowded tries end with fewer bodies."""
    bodies: list[Body] = []
    for _ in range(TRIES):
        if len(bodies) == count:
            break
        body = _plain_body(rng, mix, background, count)
        if all(_apart(body, other, mix.seconds) and body.colour != other.colour for other in bodies):
            bodies.append(body)
    return tuple(bodies)


def _plain_body(rng: np.random.Generator, mix: SceneMix, background: str, count: int) -> Body:
    """One body in uniform motion, wholly inside the unit square for `mix.seconds`."""
    while True:
        colour = str(rng.choice([name for name in mix.colours if name in VISIBLE_ON[background]]))
        shape = str(rng.choice(mix.shapes))
        names = list(mix.motions)
        weights = np.array([mix.motions[name] for name in names])
        motion = str(rng.choice(names, p=weights / weights.sum()))
        if mix.allow_holes or not is_hole(colour, shape, motion):
            break
    sizes = [name for name in mix.sizes if count < 3 or name != "large"] or list(mix.sizes)
    size = str(rng.choice(sizes))
    diameter = SIZES[size] * float(rng.uniform(0.94, 1.06))
    side, foot, head = (extent * diameter for extent in EXTENTS[shape])
    reach = 0.48 - side
    airborne = bool(rng.random() < 0.35)
    angle = float(rng.uniform(-0.2, 0.2)) if motion in ("up", "down") or airborne else 0.0
    low, high = FLOOR + 0.04 + foot, 0.96 - head
    x = float(rng.uniform(-reach, reach))
    y = float(rng.uniform(low, high)) if airborne else GROUND + foot
    vx = vy = spin = 0.0
    if motion in ("left", "right"):
        travel = min(float(rng.uniform(*TRAVEL)), 2 * reach)
        start = float(rng.uniform(-reach, reach - travel))
        x, vx = (start, travel) if motion == "right" else (-start, -travel)
        if not airborne and shape in ("ball", "ring"):
            spin = -vx / (diameter / 2)
        manner = "drift" if airborne else ("roll" if shape in ("ball", "ring") else "slide")
    elif motion in ("up", "down"):
        bottom = GROUND + foot
        travel = min(float(rng.uniform(*TRAVEL)), high - bottom)
        start = float(rng.uniform(bottom, max(bottom, high - travel)))
        y, vy = (start, travel) if motion == "up" else (start + travel, -travel)
        manner = "float" if motion == "up" else "sink"
    else:
        manner = "hang" if airborne else "stand"
    path = straight(x, y, vx / mix.seconds, vy / mix.seconds, angle, spin / mix.seconds)
    return Body(shape, colour, size, diameter, path, manner)


def _apart(one: Body, other: Body, seconds: float) -> bool:
    """Whether two bodies never touch on the picture during `seconds`."""
    first, second = positions((one.path, other.path), np.linspace(0, seconds, 17))
    gap = np.linalg.norm(first[:, :2] - second[:, :2], axis=-1).min()
    reach_one, reach_other = (max(EXTENTS[body.shape]) * body.diameter for body in (one, other))
    return bool(gap >= 0.96 * (reach_one + reach_other))
