"""Patches over time: which patch of one frame is which of the next, and what the whole path says."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mutoscope.evaluation.segments import Patch

Floats = npt.NDArray[np.float64]

REACH = 0.30  # an object is looked for this far from where its velocity puts it, stage units
STRANGER = 0.20  # added distance of a patch of another colour
SPECK = 0.010  # area below which nothing is an object, square stage units
PATIENCE = 12  # frames that an object may be missing before its track ends
MEMORY = 3  # frames over which a velocity is taken
PARTLY = 0.7  # share of its usual area that an object shows when it comes in, leaves or hides
WHOLE = 0.86  # share of its usual area from which all of it is seen
JUMP = 0.085  # a step that differs this much from those around it is a jump, stage units
RESTLESS = 0.4  # share of steps that turn, above which a path is no motion
DRIFT = 0.012  # added to that for every frame in which the object is not seen
MISSING = 0.15  # share of frames in which an object may be missing


@dataclass(frozen=True)
class Track:
    """One object through the clip: at most one patch per frame, in order."""

    patches: tuple[Patch, ...]

    @cached_property
    def frames(self) -> npt.NDArray[np.int64]:
        return np.array([patch.frame for patch in self.patches])

    @cached_property
    def places(self) -> Floats:
        """(patches, 2) as x, y in stage units."""
        return np.array([(patch.x, patch.y) for patch in self.patches])

    @cached_property
    def areas(self) -> Floats:
        return np.array([patch.area for patch in self.patches])

    @cached_property
    def inside(self) -> npt.NDArray[np.bool_]:
        """(patches,) whether the border does not cut the object."""
        return np.array([not patch.cut for patch in self.patches])

    @cached_property
    def usual_area(self) -> float:
        """The area of the patches that the border does not cut, most of which may be partly hidden."""
        areas = self.areas[self.inside] if self.inside.any() else self.areas
        return float(np.quantile(areas, 0.75))

    @cached_property
    def clear(self) -> npt.NDArray[np.bool_]:
        """(patches,) whether all of the object is seen, and nothing else with it."""
        same = (self.areas > WHOLE * self.usual_area) & (self.areas < self.usual_area / WHOLE)
        chosen = self.inside & same
        return chosen if chosen.any() else np.ones(len(self.patches), bool)

    @cached_property
    def came(self) -> bool:
        """Whether it comes in across the border during the clip."""
        return self.patches[0].cut and self.areas[0] < PARTLY * self.usual_area

    @cached_property
    def left(self) -> bool:
        """Whether it leaves across the border during the clip."""
        return self.patches[-1].cut and self.areas[-1] < PARTLY * self.usual_area

    def place_at(self, frames: npt.NDArray[np.int64]) -> Floats:
        """Places at any frames, (frames, 2): straight between those seen, the nearest one beyond."""
        return np.stack([np.interp(frames, self.frames, axis) for axis in self.places.T], -1)


def link(patches: list[list[Patch]]) -> list[Track]:
    """Greedy linking, the nearest pair first, by place (with constant velocity) and colour; longest track first.

    Tracks of specks, smaller than half of any object, are left out.
    """
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
    tracks = [Track(tuple(track)) for track in sorted(growing, key=len, reverse=True)]
    return [track for track in tracks if track.usual_area >= SPECK]


def _cost(track: list[Patch], patch: Patch) -> float:
    last, before = track[-1], track[max(0, len(track) - 1 - MEMORY)]
    gap, between = patch.frame - last.frame, max(1, last.frame - before.frame)
    dx = patch.x - last.x - (last.x - before.x) * gap / between
    dy = patch.y - last.y - (last.y - before.y) * gap / between
    return float(np.hypot(dx, dy)) + STRANGER * (patch.paint != last.paint)


def is_whole(track: Track, others: Sequence[Track], frames: int) -> bool:
    """Whether the object is there throughout, without jumps.

    It may come in or leave across the border of the frame, and it may pass behind another object.
    """
    first = int(track.frames[0]) if track.came else 0
    last = int(track.frames[-1]) if track.left else frames - 1
    missing = np.setdiff1d(np.arange(first, last + 1), track.frames)
    between = (missing > track.frames[0]) & (missing < track.frames[-1])
    hidden = np.zeros(len(missing), bool)
    for other in others:
        gap = np.linalg.norm(track.place_at(missing) - other.place_at(missing), axis=1)
        hidden |= between & (gap < 0.6 * np.sqrt(other.usual_area) + 0.8 * np.sqrt(track.usual_area / np.pi))
    if (~hidden).sum() > MISSING * (last - first + 1):
        return False
    return not _jumps(track)


def _jumps(track: Track) -> bool:
    """Whether some step of the path lies far from between the steps before and after it, or most steps turn.

    A bounce or a push turns a path within one step, which then lies between its neighbours; a jump does not. At
    the ends of the path the step may also be the mirror image of its only neighbour. The centre of an object that
    is partly hidden may lie off by as much as is hidden.
    """
    if len(track.frames) < 4:
        return False
    gaps = np.diff(track.frames)[:, None]
    steps = np.diff(track.places, axis=0) / gaps
    before = np.concatenate([-steps[1:2], steps[:-1]])
    after = np.concatenate([steps[1:], -steps[-2:-1]])
    ends = np.zeros_like(steps)
    ends[0], ends[-1] = steps[1], steps[-2]
    low = np.minimum(np.minimum(before, after), ends)
    high = np.maximum(np.maximum(before, after), ends)
    seen = gaps[:, 0] == 1
    if seen.any():  # through a gap an object may go on as at any time it is seen
        low = np.where(gaps > 1, steps[seen].min(0), low)
        high = np.where(gaps > 1, steps[seen].max(0), high)
    outside = np.linalg.norm(np.maximum(np.maximum(low - steps, steps - high), 0) * gaps, axis=1)
    odd = np.abs(1 - track.areas / track.usual_area).clip(0, 1) * np.sqrt(track.usual_area / np.pi)
    allowed = JUMP + DRIFT * (gaps[:, 0] - 1) + odd[1:] + odd[:-1]
    turns = np.linalg.norm(np.diff(steps, axis=0), axis=1) > JUMP
    return bool((outside > allowed).any() or turns.mean() > RESTLESS)


def travel(track: Track) -> tuple[float, float]:
    """How far the object goes from where it is first seen to where it is last seen, stage units (x, y)."""
    dx, dy = track.places[-1] - track.places[0]
    return float(dx), float(dy)
