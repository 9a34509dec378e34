"""Noise that is addressed, not drawn: each value depends on its seed and its place alone.

A counter-based generator, Philox 4x32 with 10 rounds (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3"), is keyed by the seed and counts (x, y, latent frame, channel // 4); its four words become the
normals of four channels by Box and Muller. So the same request gives the same clip whatever the batch, tiling
or padding, and a clip that is made longer or wider keeps the noise that it had.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mutoscope.errors import InputError

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def addressed_noise(
    seed: int,
    channels: int,
    frames: int,
    height: int,
    width: int,
    *,
    frame0: int = 0,
    y0: int = 0,
    x0: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise CTHW, float32, for the window of that size with its first corner at (frame0,
    y0, x0).

    Every window equals the crop of any larger one; more channels leave the first ones as they were. Corners
    may be negative (a clip extended backwards). Computed on the CPU and then moved, so that all devices see
    the same bits. Raises InputError for a seed outside [0, 2^64) or an empty window.
    """
    if not 0 <= seed < 2**64:
        raise InputError(f"seed = {seed} is outside 0 to 2^64 - 1; choose one inside.")
    if min(channels, frames, height, width) < 1:
        size = f"{channels}x{frames}x{height}x{width}"
        raise InputError(
            f"noise of size {size} (channels, frames, height, width) is empty; use at least 1 of each."
        )
    blocks = torch.arange(-(-channels // 4))[:, None, None]
    rows = torch.arange(y0, y0 + height)[:, None]
    columns = torch.arange(x0, x0 + width)
    noise_CTHW = torch.empty(channels, frames, height, width)
    for index in range(frames):  # one frame at a time bounds the memory of the 64-bit words
        words = philox((columns, rows, torch.tensor(frame0 + index), blocks), (seed & _WORD, seed >> 32))
        normals = torch.stack([*_normals(words[0], words[1]), *_normals(words[2], words[3])], dim=1)
        noise_CTHW[:, index] = normals.flatten(0, 1)[:channels].float()
    return noise_CTHW.to(device)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox 4x32-10 of int64 counters (low 32 bits, broadcast together) as four int64 tensors of words."""
    c0, c1, c2, c3 = (c & _WORD for c in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        # Products of 32-bit words wrap around int64; the masked shift still yields their unsigned high half.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _WORD) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32 & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _normals(radius_word: Tensor, angle_word: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent float64 normals from two 32-bit words; |value| <= 6.77 (Box & Muller 1958)."""
    radius = (-2 * ((radius_word.double() + 0.5) / 2**32).log()).sqrt()
    angle = angle_word.double() * (2 * math.pi / 2**32)
    return radius * angle.cos(), radius * angle.sin()
