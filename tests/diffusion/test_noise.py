"""Addressed noise: the published generator, windows, and the statistics of a normal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.diffusion.noise import addressed_noise, philox
from mutoscope.errors import InputError

FULL = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((FULL, FULL, FULL, FULL), (FULL, FULL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    c0, c1, c2, c3 = (torch.tensor(c) for c in counter)
    assert tuple(int(w) for w in philox((c0, c1, c2, c3), key)) == words


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    start=st.tuples(st.integers(-3, 3), st.integers(0, 9), st.integers(0, 9)),
    size=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    channels=st.integers(1, 9),
)
def test_every_window_is_the_crop_of_the_whole(
    seed: int, start: tuple[int, int, int], size: tuple[int, int, int], channels: int
) -> None:
    whole = addressed_noise(seed, 9, 9, 16, 16, frame0=-3)
    (f, y, x), (frames, height, width) = start, size
    part = addressed_noise(seed, channels, frames, height, width, frame0=f, y0=y, x0=x)
    assert part.shape == (channels, frames, height, width)
    assert torch.equal(part, whole[:channels, f + 3 : f + 3 + frames, y : y + height, x : x + width])


def test_it_is_standard_normal() -> None:
    noise = addressed_noise(7, 16, 8, 64, 64).double().flatten()
    n = len(noise)
    assert abs(noise.mean()) < 4 / math.sqrt(n)
    assert abs(noise.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((noise**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((noise**4).mean() - 3) < 4 * math.sqrt(96 / n)
    # Kolmogorov-Smirnov against the normal's distribution function, at 0.1 %.
    share = torch.special.ndtr(noise.sort().values)
    assert (share - (torch.arange(n) + 0.5) / n).abs().max() < 1.95 / math.sqrt(n)


def test_neighbours_channels_and_seeds_are_unrelated() -> None:
    noise = addressed_noise(7, 16, 8, 32, 32).double()
    others = [addressed_noise(seed, 16, 8, 32, 32).double() for seed in (8, 6, 7 + 2**32, 7 << 32)]
    pairs = [(noise, other) for other in others]
    for axis in range(4):
        for lag in (1, 2, 4):
            n = noise.shape[axis] - lag
            pairs.append((noise.narrow(axis, 0, n), noise.narrow(axis, lag, n)))
    for a, b in pairs:
        for f in (lambda v: v, lambda v: v**2 - 1):  # the squares would betray a shared radius
            correlation = (f(a) * f(b)).mean() / (f(a).std() * f(b).std())
            assert abs(correlation) < 4.5 / math.sqrt(a.numel())


def test_the_spectrum_is_white() -> None:
    noise = addressed_noise(11, 4, 4, 64, 64).double()
    power = torch.fft.fft2(noise).abs().square().mean((0, 1)) / 64**2
    assert abs(power.mean() - 1) < 0.02
    assert power.max() < 3.5  # 16 clips averaged: the maximum of 4096 gamma(16)/16 is about 2.3


def test_a_batch_or_a_longer_clip_changes_nothing() -> None:
    short = addressed_noise(5, 4, 2, 8, 8)
    assert torch.equal(short, addressed_noise(5, 16, 5, 24, 40)[:4, :2, :8, :8])
    assert torch.equal(short, addressed_noise(5, 4, 2, 8, 8))
    assert short.dtype == torch.float32


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed = {seed}"):
        addressed_noise(seed, 1, 1, 1, 1)


def test_empty_windows_are_refused() -> None:
    with pytest.raises(InputError, match="4x0x8x8"):
        addressed_noise(0, 4, 0, 8, 8)
