"""The oracle: reads pixels only and says which facts of a caption hold.

It knows the world's paints, backdrops and shapes, and nothing about the clip. Patches of paint are found in every
frame (segments), followed through time (tracks) and compared with the shapes (silhouettes). A fact about an object
holds only for an object that is there throughout and never jumps.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

from mutoscope.errors import InputError
from mutoscope.evaluation.camera import filmed
from mutoscope.evaluation.events import goes_behind, happened, material
from mutoscope.evaluation.silhouettes import centre_height, shape_area, shape_scores
from mutoscope.evaluation.tracks import Track, is_whole, link, travel
from mutoscope.world.facts import Fact
from mutoscope.world.scene import COLOURS, EXTENTS, GROUND, SHAPES, SIZES

MOST_OBJECTS = 6  # looked at: the longest tracks
SHORT = 0.25  # share of the frames that makes a track an object
MISFIT = 14.0  # mean CIELAB distance from a backdrop above which it is not that backdrop
STILL_BELOW = 0.055  # stage units travelled in the clip
SLANT = math.radians(30)  # of a path, from the direction it is said to have
USUALLY = 0.7  # share of the frames in which a relation or a count must hold
APART = 0.06  # distance of centres in the direction of a relation


@dataclass(frozen=True)
class Seen:
    """One object as the oracle sees it. Paths in stage units (x right, y up); `whole`: throughout, no jumps."""

    colour: str
    shape: str
    size: str
    diameter: float
    direction: str | None  # None: of one frame, or slanted
    material: str | None  # None: it does not fall and land
    whole: bool
    track: Track


@dataclass(frozen=True)
class Observation:
    """What the oracle sees in a clip. `background` is None when no backdrop fits."""

    background: str | None
    style: str
    camera: str
    misfit: float
    objects: tuple[Seen, ...]
    counts: tuple[int, ...]  # objects in each frame


def check(frames_THWC: npt.NDArray[np.uint8], fps: float, facts: Sequence[Fact]) -> dict[Fact, bool]:
    """Which of the facts hold in the pixels. Subjects are matched to objects so that most facts hold.

    Raises InputError for frames that are not uint8 RGB and for kinds of facts that it cannot judge.
    """
    return judge(observe(frames_THWC, fps), facts)


def observe(frames_THWC: npt.NDArray[np.uint8], fps: float) -> Observation:
    """What the clip shows. Raises InputError for frames that are not uint8 (T, H, W, 3)."""
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3 or fps <= 0:
        raise InputError(
            f"The oracle reads uint8 frames (T, H, W, 3) at a positive rate, not {frames_THWC.dtype} "
            f"{frames_THWC.shape} at {fps} per second."
        )
    frames, height, width = frames_THWC.shape[:3]
    parts, camera = filmed(frames_THWC, fps)
    linked = link(parts.patches)
    tracks = [track for track in linked if len(track.patches) >= SHORT * frames][:MOST_OBJECTS]
    unit = min(height, width)
    seen = tuple(
        _look(track, [other for other in tracks if other is not track], (frames, unit, fps))
        for track in tracks
    )
    counts = tuple(
        np.bincount([frame for track in linked for frame in track.frames], minlength=frames).tolist()
    )
    background = parts.background if parts.misfit < MISFIT else None
    return Observation(background, parts.style, camera, parts.misfit, seen, counts)


def judge(seen: Observation, facts: Sequence[Fact]) -> dict[Fact, bool]:
    """Which of the facts hold in an observation."""
    subjects = sorted({fact.subject for fact in facts if fact.subject is not None})
    about = [fact for fact in facts if fact.subject is not None]
    best: dict[Fact, bool] = dict.fromkeys(about, False)
    places: list[Seen | None] = [*seen.objects, *[None] * len(subjects)]
    for choice in dict.fromkeys(permutations(range(len(places)), len(subjects))):
        cast = {subject: places[place] for subject, place in zip(subjects, choice, strict=True)}
        verdict = {fact: _holds(fact, cast) for fact in about}
        if _weight(verdict) > _weight(best):
            best = verdict
    return {fact: best[fact] if fact.subject is not None else _holds_at_all(fact, seen) for fact in facts}


def _weight(verdict: Mapping[Fact, bool]) -> int:
    """How well objects are matched to subjects: one for each fact that holds, two for a colour."""
    return sum(holds * (2 if fact.kind == "colour" else 1) for fact, holds in verdict.items())


def _look(track: Track, others: Sequence[Track], about: tuple[int, int, float]) -> Seen:
    """What one track shows. about: frames of the clip, pixels per stage unit, frames per second."""
    frames, unit, fps = about
    clear = [patch for patch, chosen in zip(track.patches, track.clear, strict=True) if chosen]
    votes = np.bincount([patch.paint for patch in clear], minlength=len(COLOURS))
    shape = SHAPES[int(shape_scores(clear, unit).argmax())]
    diameter = math.sqrt(float(np.median([patch.area for patch in clear])) / shape_area(shape))
    size = min(SIZES, key=lambda name: abs(math.log(diameter / SIZES[name])))
    return Seen(
        COLOURS[int(votes.argmax())],
        shape,
        size,
        diameter,
        _direction(track, frames),
        material(track, fps, GROUND + (EXTENTS[shape][1] + centre_height(shape)) * diameter),
        is_whole(track, others, frames),
        track,
    )


def _direction(track: Track, frames: int) -> str | None:
    if frames < 2 or len(track.patches) < 2:
        return None
    dx, dy = travel(track)
    if math.hypot(dx, dy) < STILL_BELOW:
        return "still" if np.ptp(track.places[track.clear], axis=0).max() < 2 * STILL_BELOW else None
    angle = math.atan2(dy, dx)
    for name, axis in (("right", 0.0), ("up", math.pi / 2), ("left", math.pi), ("down", -math.pi / 2)):
        if abs(math.remainder(angle - axis, 2 * math.pi)) <= SLANT:
            return name
    return None


def _holds(fact: Fact, cast: dict[int, Seen | None]) -> bool:
    """A fact about an object, given which object each subject is."""
    seen = cast[fact.subject] if fact.subject is not None else None
    if seen is None or not seen.whole:
        return False
    match fact.kind:
        case "colour":
            return seen.colour == fact.value
        case "shape":
            return seen.shape == fact.value
        case "size":
            return seen.size == fact.value
        case "direction":
            return seen.direction == fact.value
        case "material":
            return seen.material == fact.value
        case "event":
            name, _, index = fact.value.partition(" ")
            met = cast.get(int(index)) if name == "collide" else None
            other_one = (met.track, met.diameter / 2) if met else None
            return happened(fact.value, seen.track, seen.diameter / 2, other_one)
        case "relation":
            relation, _, index = fact.value.rpartition(" ")
            other = cast.get(int(index))
            return other is not None and _related(seen, relation, other)
    raise InputError(f"The oracle cannot judge {fact.kind!r}; it judges {', '.join(JUDGED)}.")


def _related(one: Seen, relation: str, other: Seen) -> bool:
    if relation in ("behind", "in front of"):
        far, near = (one, other) if relation == "behind" else (other, one)
        return goes_behind(far.track, near.track, (far.diameter / 2, near.diameter / 2))
    places = {patch.frame: (patch.x, patch.y) for patch in other.track.patches}
    gaps = [
        (patch.x - places[patch.frame][0], patch.y - places[patch.frame][1])
        for patch in one.track.patches
        if patch.frame in places
    ]
    if not gaps:
        return False
    dx, dy = np.array(gaps).T
    ahead, aside = {"left of": (-dx, dy), "right of": (dx, dy), "above": (dy, dx), "below": (-dy, dx)}[
        relation
    ]
    return bool(((ahead > APART) & (ahead > np.abs(aside))).mean() >= USUALLY)


def _holds_at_all(fact: Fact, seen: Observation) -> bool:
    """A fact about the clip as a whole."""
    match fact.kind:
        case "background":
            return seen.background == fact.value
        case "camera":
            return seen.camera == fact.value
        case "style":
            return seen.style == fact.value
        case "count":
            number = int(fact.value)
            not_more = np.mean(np.array(seen.counts) <= number)
            return len(seen.objects) == number and bool(not_more >= USUALLY)
    raise InputError(f"The oracle cannot judge {fact.kind!r}; it judges {', '.join(JUDGED)}.")


JUDGED = (
    "colour", "shape", "size", "direction", "material", "event", "relation", "count", "background", "style", "camera",
)  # fmt: skip
