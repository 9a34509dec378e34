"""Frame rates are exact, and frames at any time fall where a player would show them."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.errors import InputError
from mutoscope.rates import Timing, exact_rate, steady


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (8.0, Fraction(8)),
        (12.5, Fraction(25, 2)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (0.5, Fraction(1, 2)),
        (1000.0, Fraction(1000)),
    ],
)
def test_rates_are_the_fractions_that_are_meant(fps: float, rate: Fraction) -> None:
    assert exact_rate(fps) == rate
    assert exact_rate(float(rate)) == rate


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 1001.0])
def test_impossible_rates_are_refused(fps: float) -> None:
    with pytest.raises(InputError, match="out of range"):
        exact_rate(fps)


@settings(deadline=None)
@given(st.integers(1, 60), st.sampled_from([8, 24, 30, 60]))
def test_steady_frames_stay_as_they_are(frames: int, fps: int) -> None:
    rate = Fraction(fps)
    timing = steady(frames, rate)
    assert timing.constant_rate(8.0) == rate
    assert list(timing.shown(rate)) == list(range(frames))


@settings(deadline=None)
@given(st.integers(2, 40), st.sampled_from([Fraction(30000, 1001), Fraction(24), Fraction(60)]))
def test_times_in_milliseconds_are_seen_through(frames: int, rate: Fraction) -> None:
    times = tuple(Fraction(round(1000 * index / rate), 1000) for index in range(frames))
    timing = Timing(times, times[-1] + 1 / rate, rate, Fraction(1, 1000))
    assert timing.constant_rate(8.0) == rate
    assert list(timing.shown(rate)) == list(range(frames))


def test_a_gap_holds_the_frame_before_it() -> None:
    times = tuple(Fraction(tenth, 10) for tenth in (0, 1, 2, 6, 7))
    timing = Timing(times, Fraction(8, 10), None, Fraction(1, 1000))
    assert timing.constant_rate(8.0) == 10
    assert list(timing.shown(Fraction(10))) == [0, 1, 2, 2, 2, 2, 3, 4]


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [(2, 4, [0, 0, 1, 1, 2, 2, 3, 3]), (4, 2, [0, 2]), (3, 2, [0, 2, 3]), (4, 4, [0, 1, 2, 3])],
)
def test_another_rate_takes_the_nearest_frames(old: int, new: int, shown: list[int]) -> None:
    assert list(steady(4, Fraction(old)).shown(Fraction(new))) == shown


@settings(deadline=None)
@given(st.lists(st.fractions(Fraction(1, 100), Fraction(1)), min_size=1, max_size=20), st.integers(1, 60))
def test_every_moment_shows_a_frame_that_has_begun_or_is_about_to(steps: list[Fraction], fps: int) -> None:
    times, now = [], Fraction(0)
    for step in steps:
        times.append(now)
        now += step
    timing, rate = Timing(tuple(times), now, None, Fraction(0)), Fraction(fps)
    shown = list(timing.shown(rate))
    assert shown == sorted(shown)
    assert len(shown) == timing.count(rate)
    if not timing.follows(rate):
        assert len(shown) == max(1, round(timing.end * rate))
        for index, frame in enumerate(shown):
            assert times[frame] <= index / rate + 1 / rate / 2
