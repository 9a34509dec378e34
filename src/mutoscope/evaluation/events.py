"""What happens to objects: they bounce, meet, pass behind each other, come in and leave. Read from their paths."""

import math
from collections.abc import Sequence

import numpy as np

from mutoscope.evaluation.tracks import Floats, Track
from mutoscope.world.physics import GRAVITY, RESTITUTION

RISE = 0.02  # height of the lowest bounce that is seen, stage units
FALL = 0.10  # and of the fall before it
TOUCHING = 1.35  # distance of centres, in sums of radii, at which two objects may have met
TURN = 0.35  # change of velocity at a meeting, as a share of the speed at which they met
OVERLAP = 0.85  # distance of centres, in sums of radii, below which one must hide part of the other
HIDES = 0.4  # of the smaller one's area


def bounces(track: Track) -> bool:
    """Whether the object falls, lands and rises again."""
    y = track.places[:, 1]
    low = _landing(y)
    return bool(y[: low + 1].max() - y[low] >= FALL and y[low:].max() - y[low] >= RISE)


def material(track: Track, fps: float, rest: float) -> str | None:
    """The material whose restitution fits the first bounce; None for an object that does not fall and land."""
    seen = restitution(track, fps, rest)
    return None if seen is None else min(RESTITUTION, key=lambda name: abs(RESTITUTION[name] - seen))


def restitution(track: Track, fps: float, rest: float) -> float | None:
    """Speed of leaving by speed of landing at the first bounce; None for an object that does not fall and land.

    rest: the height at which the object lies on the ground. The height of the fall gives the speed of landing
    (energy) and its moment; the places after that, a flight under gravity from the ground, the speed of leaving.
    """
    seconds, y = track.frames / fps, track.places[:, 1]
    height = y[0] - rest
    if height < FALL or y.min() > rest + FALL or track.frames[0] != 0:
        return None
    landing = math.sqrt(2 * height / GRAVITY)
    after = seconds - landing
    flight = (after > 0.04) & (after < 0.36)
    if not flight.any():
        return None
    leaving = (y[flight] - rest + 0.5 * GRAVITY * after[flight] ** 2) / after[flight]
    return float(np.median(leaving)) / (GRAVITY * landing)


def _landing(y: Floats) -> int:
    """Index of the first local minimum after a fall, of the lowest place when there is none."""
    for index in range(1, len(y) - 1):
        if (
            y[index] <= y[index - 1]
            and y[index] < y[index + 1] - 0.005
            and y[: index + 1].max() - y[index] >= FALL
        ):
            return index
    return int(y.argmin())


def collides(one: Track, other: Track, radii: tuple[float, float]) -> bool:
    """Whether two objects come close and one of them is turned or pushed at that moment."""
    frames = np.intersect1d(one.frames, other.frames)
    if len(frames) < 5:
        return False
    places = [track.place_at(frames) for track in (one, other)]
    gap = np.linalg.norm(places[0] - places[1], axis=1)
    meeting = int(gap.argmin())
    if gap[meeting] > TOUCHING * sum(radii) or not 1 <= meeting <= len(frames) - 2:
        return False
    changes, speeds = [], []
    for path in places:
        before = path[max(0, meeting - 1)] - path[max(0, meeting - 4)]
        after = path[min(len(path) - 1, meeting + 4)] - path[meeting + 1]
        before = before / max(1, frames[max(0, meeting - 1)] - frames[max(0, meeting - 4)])
        after = after / max(1, frames[min(len(path) - 1, meeting + 4)] - frames[meeting + 1])
        changes.append(float(np.linalg.norm(after - before)))
        speeds.append(before)
    met_at = float(np.linalg.norm(speeds[0] - speeds[1]))
    return max(changes) >= TURN * met_at > 0


def goes_behind(one: Track, other: Track, radii: tuple[float, float]) -> bool:
    """Whether part of one object is hidden while the other, over the same place, is all seen."""
    frames = np.arange(max(one.frames[0], other.frames[0]), min(one.frames[-1], other.frames[-1]) + 1)
    gap = np.linalg.norm(one.place_at(frames) - other.place_at(frames), axis=1)
    over = frames[gap < OVERLAP * sum(radii)]
    if len(over) == 0:
        return False
    lost, kept = _hidden(one, over), _hidden(other, over)
    return lost > HIDES * min(one.usual_area, other.usual_area) and kept < lost / 2


def _hidden(track: Track, frames: Sequence[int] | np.ndarray) -> float:
    """The largest part of its usual area that an object hides in some frames, square stage units."""
    areas = dict(zip(track.frames.tolist(), track.areas.tolist(), strict=True))
    return track.usual_area - float(min(areas.get(int(frame), 0.0) for frame in frames))


def happened(event: str, track: Track, radius: float, other: tuple[Track, float] | None) -> bool:
    """Whether an event of world.facts befell an object; `other`: the object that a collision names."""
    if event == "bounce":
        return bounces(track)
    kind, _, which = event.partition(" ")
    side = -1 if which == "left" else 1
    if kind == "enter":
        return track.came and track.places[0, 0] * side > 0
    if kind == "leave":
        return track.left and track.places[-1, 0] * side > 0
    return other is not None and collides(track, other[0], (radius, other[1]))
