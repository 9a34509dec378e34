"""Patches over time: which patch of one frame is which of the next, and what the whole path says."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mutoscope.evaluation.segments import Patch

REACH = 0.30  # an object is looked for this far from where its velocity puts it, stage units
STRANGER = 0.20  # added distance of a patch of another colour
PATIENCE = 3  # frames that an object may be missing before its track ends
PARTLY = 0.7  # share of its usual area that an object shows when it comes in or leaves
JUMP = 0.085  # a step that differs this much from the usual one is a jump, stage units
MISSING = 0.15  # share of frames in which an object may be missing


@dataclass(frozen=True)
class Track:
    """One object through the clip: at most one patch per frame, in order."""

    patches: tuple[Patch, ...]

    @property
    def frames(self) -> npt.NDArray[np.int64]:
        return np.array([patch.frame for patch in self.patches])

    @property
    def places(self) -> npt.NDArray[np.float64]:
        """(patches, 2) as x, y in stage units."""
        return np.array([(patch.x, patch.y) for patch in self.patches])


def link(patches: list[list[Patch]]) -> list[Track]:
    """Greedy linking, the nearest pair first, by place (with constant velocity) and colour; longest track first."""
    growing: list[list[Patch]] = []
    for frame, found in enumerate(patches):
        alive = [track for track in growing if frame - track[-1].frame <= PATIENCE + 1]
        pairs = sorted(
            (cost, i, j)
            for i, track in enumerate(alive)
            for j, patch in enumerate(found)
            if (cost := _cost(track, patch)) < REACH
        )
        taken: set[int] = set()
        fed: set[int] = set()
        for _, i, j in pairs:
            if i not in fed and j not in taken:
                alive[i].append(found[j])
                fed.add(i)
                taken.add(j)
        growing += [[patch] for j, patch in enumerate(found) if j not in taken]
    return [Track(tuple(track)) for track in sorted(growing, key=len, reverse=True)]


def _cost(track: list[Patch], patch: Patch) -> float:
    last = track[-1]
    gap = patch.frame - last.frame
    vx = vy = 0.0
    if len(track) > 1:
        before = track[-2]
        between = last.frame - before.frame
        vx, vy = (last.x - before.x) / between, (last.y - before.y) / between
    distance = float(np.hypot(patch.x - last.x - vx * gap, patch.y - last.y - vy * gap))
    return distance + STRANGER * (patch.paint != last.paint)


def is_whole(track: Track, frames: int) -> bool:
    """Whether the object is there throughout, without jumps.

    It may come in or leave across the border of the frame, which then cuts off a good part of it.
    """
    times, places = track.frames, track.places
    usual = float(np.median([patch.area for patch in track.patches]))
    came, left = (
        patch.cut and patch.area < PARTLY * usual for patch in (track.patches[0], track.patches[-1])
    )
    first = int(times[0]) if came else 0
    last = int(times[-1]) if left else frames - 1
    expected = last - first + 1
    if expected - len(times) > MISSING * expected:
        return False
    if len(times) < 3:
        return True
    steps = np.diff(places, axis=0) / np.diff(times)[:, None]
    odd = np.linalg.norm(steps - np.median(steps, axis=0), axis=1) * np.diff(times)
    return bool(odd.max() <= JUMP)


def travel(track: Track, frames: int) -> tuple[float, float]:
    """How far the straight line fitted to the path goes in `frames` frames, stage units (x, y)."""
    times, places = track.frames.astype(np.float64), track.places
    if len(times) < 2:
        return 0.0, 0.0
    centred = times - times.mean()
    slope = (centred[:, None] * places).sum(0) / (centred**2).sum() * (frames - 1)
    return float(slope[0]), float(slope[1])
