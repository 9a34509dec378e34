"""The paper theatre as data: views, bodies, cameras, shots, scenes, and the mix that scenes are drawn from.

Lengths are in stage units. A view always shows the unit square of the stage (x in [-0.5, 0.5], y in [0, 1],
y upwards) and more of the stage on its longer side, so that one scene serves every size and aspect.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mutoscope.errors import InputError
from mutoscope.world.palette import BACKDROPS, PALETTE
from mutoscope.world.physics import Path

COLOURS: tuple[str, ...] = tuple(PALETTE)
SHAPES = ("ball", "box", "triangle", "star", "ring", "capsule")
SIZES: dict[str, float] = {"small": 0.20, "medium": 0.28, "large": 0.38}  # diameters in stage units
DIRECTIONS = ("left", "right", "up", "down", "still")
BACKGROUNDS: tuple[str, ...] = tuple(BACKDROPS)
STYLES = ("paper", "outline", "neon")
CAMERAS = (
    "static", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "follow",
)  # fmt: skip
HATS = ("triangle", "box", "ball", "star")

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
    """One paper cut-out. `diameter` in stage units; `path` from physics; `manner` is how it moves.

    `material` ("" or a key of physics.RESTITUTION) is named only where it can be seen. A character has a hat
    (shape, colour) and eyes.
    """

    shape: str
    colour: str
    size: str
    diameter: float
    path: Path
    manner: str
    material: str = ""
    hat: tuple[str, str] | None = None
    eyes: int = 0


@dataclass(frozen=True)
class Camera:
    """What the frame shows: its centre moves from (x, y), relative to the stage's, at (vx, vy) units per second,
    magnified by zoom e^(rate s); after `until` seconds it rests."""

    kind: str = "static"
    x: float = 0.0
    y: float = 0.0
    vx: float = 0.0
    vy: float = 0.0
    zoom: float = 1.0
    rate: float = 0.0
    until: float = 0.0

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """x, y, zoom at each time, (times, 3) in float64."""
        s = np.minimum(np.asarray(seconds, np.float64), self.until)
        return np.stack([self.x + self.vx * s, self.y + self.vy * s, self.zoom * np.exp(self.rate * s)], -1)


@dataclass(frozen=True)
class Shot:
    """A run of time without a cut. Bodies are in painter's order: later ones are nearer."""

    background: str
    bodies: tuple[Body, ...]
    phase: float  # where the paper hills begin, radians
    start: float = 0.0  # seconds
    camera: Camera = Camera()


@dataclass(frozen=True)
class Scene:
    """One or more shots in one style. The same seed and mix give the same scene, for ever."""

    seed: int
    shots: tuple[Shot, ...]
    style: str = "paper"

    def takes(self, view: View) -> list[tuple[Shot, slice]]:
        """The shots that a view shows, with their frames. Cuts fall on frames 1 + 4k, the borders of latent frames."""
        cuts = [0]
        for shot in self.shots[1:]:
            cuts.append(max(cuts[-1] + 4, 1 + 4 * max(0, round((shot.start * view.fps - 1) / 4))))
        ends = [*cuts[1:], view.frames]
        return [
            (shot, slice(cut, min(end, view.frames)))
            for shot, cut, end in zip(self.shots, cuts, ends, strict=True)
            if cut < view.frames
        ]


@dataclass(frozen=True)
class SceneMix:
    """What may happen, with which probability (weights, any sum). Restrict it for a curriculum.

    `objects[k]` is the weight of k + 1 objects and `motions` weighs the directions, both of plain motion; `plays`
    weighs what happens (plays.PLAYS), `cameras` how it is filmed, `styles` how it is drawn; `seconds` is the
    duration that motions are staged for. The default is the plain beginning of a curriculum, EVERYTHING its end.
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
    plays: Mapping[str, float] = field(default_factory=lambda: {"plain": 1.0})
    cameras: Mapping[str, float] = field(default_factory=lambda: {"static": 1.0})
    styles: Mapping[str, float] = field(default_factory=lambda: {"paper": 1.0})


def is_hole(colour: str, shape: str, motion: str) -> bool:
    """Whether training never shows this combination."""
    return (colour, shape) in COLOUR_SHAPE_HOLES or (shape, motion) in SHAPE_MOTION_HOLES


PLAIN = SceneMix()
EVERYTHING = SceneMix(
    objects=(0.35, 0.35, 0.2, 0.1),
    plays={
        "plain": 0.36, "drop": 0.14, "throw": 0.06, "collide": 0.08, "behind": 0.12, "front": 0.05, "beside": 0.04,
        "enter": 0.05, "leave": 0.05, "story": 0.05,
    },
    cameras={
        "static": 0.70, "pan left": 0.05, "pan right": 0.05, "tilt up": 0.03, "tilt down": 0.03, "zoom in": 0.05,
        "zoom out": 0.05, "follow": 0.04,
    },
    styles={"paper": 0.90, "outline": 0.05, "neon": 0.05},
)  # fmt: skip
