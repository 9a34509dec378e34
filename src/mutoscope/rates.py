"""Frame rates: exact fractions, and constant rates out of frames that come at any time."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from mutoscope.errors import InputError

SLOWEST, FASTEST = Fraction(1, 1000), Fraction(1000)


def exact_rate(fps: float) -> Fraction:
    """Frames per second as a fraction: 29.97 means 30000/1001, and 8.0 means 8.

    Raises InputError outside 0.001 to 1000.
    """
    if not (math.isfinite(fps) and SLOWEST <= fps <= FASTEST):
        raise InputError(f"{fps} frames per second is out of range; give 0.001 to 1000.")
    television = Fraction(round(fps * 1.001) * 1000, 1001)
    if abs(television - fps) < 0.002 < abs(round(fps) - fps):
        return television
    return Fraction(fps).limit_denominator(1001)


@dataclass(frozen=True)
class Timing:
    """When each frame of a file appears (ascending, from 0), when the last one ends, all in seconds.

    `rate` is what the file says of itself, `tick` the resolution of its clock. Programs often do not know how
    long the last frame lasts: when it would be less than half of the others, it lasts as long as they do.
    """

    times: tuple[Fraction, ...]
    end: Fraction
    rate: Fraction | None
    tick: Fraction

    def __post_init__(self) -> None:
        if self.end < self.times[-1] + self.step / 2:
            object.__setattr__(self, "end", self.times[-1] + self.step)

    def suits(self, rate: Fraction) -> bool:
        """Whether frames begin on ticks of a constant rate only, up to the clock or a quarter of a step."""
        slack = max(self.tick, Fraction(1, 4) / rate)
        return all(abs(time - round(time * rate) / rate) <= slack for time in self.times)

    def follows(self, rate: Fraction) -> bool:
        """Whether there is one frame for every tick of that rate, the last one's length included."""
        slack = max(self.tick, Fraction(1, 4) / rate)
        return abs(self.end - len(self.times) / rate) <= slack + Fraction(1, 2) / rate and all(
            abs(time - index / rate) <= slack for index, time in enumerate(self.times)
        )

    def constant_rate(self, default: float) -> Fraction:
        """The file's rate if its frames follow it, else the usual rate nearest to the median step."""
        stated = self.rate if self.rate and SLOWEST <= self.rate <= FASTEST else None
        if len(self.times) == 1 and not stated:
            return exact_rate(default)
        if stated and self.follows(stated):
            return stated
        return exact_rate(float(min(FASTEST, max(SLOWEST, 1 / self.step))))

    @property
    def step(self) -> Fraction:
        """The median time between frames; for a lone frame its length, or what the file's rate says."""
        steps = sorted(after - before for before, after in pairwise(self.times))
        if steps:
            return steps[len(steps) // 2]
        return max(self.end, 1 / self.rate if self.rate else Fraction(1))

    def count(self, rate: Fraction) -> int:
        """How many frames a constant rate needs for the same time."""
        return len(self.times) if self.follows(rate) else max(1, round(self.end * rate))

    def shown(self, rate: Fraction) -> Sequence[int]:
        """Which frame is on screen at 0, 1/rate, 2/rate...

        It is the last one that began, or begins within half a step: the nearest in time where frames are
        regular, the one that a player holds where there is a gap.
        """
        if self.follows(rate):
            return range(len(self.times))
        early = min(self.step, 1 / rate) / 2
        moments = (index / rate + early for index in range(self.count(rate)))
        return [max(0, bisect_right(self.times, moment) - 1) for moment in moments]


def steady(frames: int, rate: Fraction) -> Timing:
    """The timing of frames that already come at a constant rate."""
    times = tuple(index / rate for index in range(frames))
    return Timing(times, frames / rate, rate, Fraction(0))
