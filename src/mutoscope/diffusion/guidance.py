"""Guidance: away from what the model draws for the null (or negative) prompt, in three kinds.

* ``cfg``: classifier-free guidance (Ho & Salimans 2022), unconditional + scale (conditional - unconditional).
* ``zero-star``: CFG-Zero* (Fan et al. 2025, arXiv 2503.18886), for flow models: the unconditional velocity is first
  multiplied by the number s that brings it nearest to the conditional one, and the velocity of the first steps,
  where the model knows least, is zero.
* ``apg``: adaptive projected guidance (Sadat et al. 2024, arXiv 2410.02416): of the difference between the two x0, the
  part along the conditional x0, which saturates colours, is left out; the rest is kept short and free of what the
  steps before did already.

cfg and apg act on x0. Velocity, epsilon, v and x0 are affine in one another at a given z and sigma, and the value
guided by cfg is a combination whose weights add up to 1; so guiding x0 is guiding the velocity or the epsilon. Only
`rescale` and the clipping of x0 depend on the choice, and both are meant for x0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from mutoscope.diffusion.process import Process
from mutoscope.diffusion.sampler import Denoise
from mutoscope.errors import InputError

Kind = Literal["cfg", "zero-star", "apg"]

ZERO_SHARE = 0.04
"""Share of the steps, from the noisiest on, whose velocity zero-star takes as zero (2 of 50: Fan et al.'s for Wan)."""


@dataclass(frozen=True)
class Guidance:
    """How strongly, when, and in which way to follow the prompt.

    scale: 1 is no guidance (and spares the second branch); 3 to 8 is usual.
    rescale: in [0, 1], how far the spread of the guided x0 is brought back to that of the conditional one,
        against washed-out contrast and saturation (Lin et al. 2023; they advise 0.7).
    interval: the noise levels (low, high) within which guidance acts; in the noisiest it hurts variety, in
        the cleanest it does nothing (Kynkaanniemi et al. 2024). Outside, the conditional x0 is used as it is.
    kind: see the module's text.
    zero_from: zero-star: the noise level from which upwards the velocity is zero; see `zero_level`.
    parallel: apg: how much of the part along the conditional x0 is kept (eta of the paper; 1 is all, as in cfg).
    momentum: apg: how much of the last difference is added to this one (beta; negative, against repetition).
    radius: apg: the longest difference, as a root mean square over its values (r of the paper is for a whole latent:
        15 for the 4 x 128 x 128 values of SDXL is 0.06 here).

    Raises InputError for values out of range.
    """

    scale: float = 5.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    kind: Kind = "cfg"
    zero_from: float = math.inf
    parallel: float = 0.0
    momentum: float = -0.5
    radius: float = 0.06

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= self.scale <= 100:
            raise InputError(f"guidance scale = {self.scale} is outside 0 to 100; 1 is none, 5 is usual.")
        if not 0 <= self.rescale <= 1:
            raise InputError(f"guidance rescale = {self.rescale} is outside 0 to 1; 0 is none, 0.7 is usual.")
        if not 0 <= low <= high <= 1:
            raise InputError(
                f"guidance interval = {low} to {high} is not rising within 0 to 1; 0 to 1 is always."
            )
        if self.kind not in get_args(Kind):
            raise InputError(
                f"There is no guidance {self.kind!r}; choose one of {', '.join(get_args(Kind))}."
            )
        if not self.radius > 0:
            raise InputError(f"guidance radius = {self.radius} is not greater than 0; 0.06 is usual.")

    def acts_at(self, sigma: float) -> bool:
        """Whether the unconditional branch matters at this noise level."""
        return self.scale != 1 and self.interval[0] <= sigma <= self.interval[1]

    def zero_at(self, sigma: float) -> bool:
        """Whether the velocity is zero at this noise level, and the model is not asked."""
        return self.kind == "zero-star" and self.scale != 1 and sigma >= self.zero_from


def zero_level(sigmas: Tensor) -> float:
    """`Guidance.zero_from` for these noise levels of a run (steps + 1,): its first steps, none of 12 or fewer."""
    count = round(ZERO_SHARE * (len(sigmas) - 1))
    return float(sigmas[count - 1]) * (1 - 1e-6) if count else math.inf


class Branches(Protocol):
    """The model with its prompts: x0 of one latent for the conditional branch (B, ...) or, if `both`, for the
    conditional and then the unconditional one, stacked along the batch (2B, ...), in one call of the
    model."""

    def __call__(self, latent_BCTHW: Tensor, sigma: Tensor, both: bool, /) -> Tensor: ...


def guided(
    conditional_BCTHW: Tensor,
    unconditional_BCTHW: Tensor,
    sigma: Tensor,
    guidance: Guidance,
    unknown_B1THW: Tensor | None = None,
) -> Tensor:
    """The x0 guided by cfg, BCTHW, from both branches' x0 at the level sigma ().

    unknown_B1THW: bool, broadcastable, True where the clip is to be made; elsewhere the conditional x0 stays
    as it is and does not count for the rescaling. None means everywhere.
    """
    if not guidance.acts_at(float(sigma)):
        return conditional_BCTHW
    x0 = unconditional_BCTHW + guidance.scale * (conditional_BCTHW - unconditional_BCTHW)
    return _rescaled(x0, conditional_BCTHW, guidance, unknown_B1THW)


def zero_star(
    conditional_BCTHW: Tensor, unconditional_BCTHW: Tensor, scale: float, unknown_B1THW: Tensor | None = None
) -> Tensor:
    """The guided velocity of CFG-Zero*, from both branches' velocities: s u + scale (c - s u), s = c.u / u.u.

    That s makes |c - s u| least; each clip has its own, from its unknown places.
    """
    along = _dot(conditional_BCTHW, unconditional_BCTHW, unknown_B1THW)
    whole = _dot(unconditional_BCTHW, unconditional_BCTHW, unknown_B1THW)
    nearest = along / whole.clamp(min=torch.finfo(whole.dtype).tiny) * unconditional_BCTHW
    return nearest + scale * (conditional_BCTHW - nearest)


def projected(
    conditional_BCTHW: Tensor,
    difference_BCTHW: Tensor,
    guidance: Guidance,
    unknown_B1THW: Tensor | None = None,
) -> Tensor:
    """The x0 guided by apg, from the conditional x0 and the difference of the two x0 with its momentum.

    c + (scale - 1) (orthogonal + eta parallel), of the difference made no longer than the radius (Sadat et al. 2024,
    algorithm 1).
    """
    tiny = torch.finfo(difference_BCTHW.dtype).tiny
    squares = _dot(difference_BCTHW, difference_BCTHW, unknown_B1THW)
    count = _dot(torch.ones_like(difference_BCTHW), torch.ones_like(difference_BCTHW), unknown_B1THW)
    length = (squares / count.clamp(min=1)).sqrt()
    short = difference_BCTHW * (guidance.radius / length.clamp(min=tiny**0.5)).clamp(max=1)
    along = _dot(short, conditional_BCTHW, unknown_B1THW)
    whole = _dot(conditional_BCTHW, conditional_BCTHW, unknown_B1THW).clamp(min=tiny)
    parallel = along / whole * conditional_BCTHW
    update = short - (1 - guidance.parallel) * parallel
    return conditional_BCTHW + (guidance.scale - 1) * update


def guide(
    branches: Branches, guidance: Guidance, process: Process, unknown_B1THW: Tensor | None = None
) -> Denoise:
    """A denoiser for the samplers: both branches where guidance acts, one where it does not, then the
    clipping that the process asks for. Known places (False in unknown_B1THW) are neither guided nor
    clipped. It serves one run: the momentum of apg is that of its calls."""
    difference: Tensor | None = None  # of apg, with its momentum

    def denoise(latent_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        nonlocal difference
        if guidance.zero_at(float(sigma)):
            return x0_of(torch.zeros_like(latent_BCTHW), latent_BCTHW, sigma, process)
        both = guidance.acts_at(float(sigma))
        x0 = branches(latent_BCTHW, sigma, both)
        if both:
            conditional, unconditional = x0.chunk(2)
            if guidance.kind == "cfg":
                x0 = guided(conditional, unconditional, sigma, guidance, unknown_B1THW)
            elif guidance.kind == "apg":
                before = 0.0 if difference is None else guidance.momentum * difference
                difference = conditional - unconditional + before
                x0 = projected(conditional, difference, guidance, unknown_B1THW)
                x0 = _rescaled(x0, conditional, guidance, unknown_B1THW)
            else:
                toward, away = (velocity_of(one, latent_BCTHW, sigma, process) for one in x0.chunk(2))
                velocity = zero_star(toward, away, guidance.scale, unknown_B1THW)
                x0 = x0_of(velocity, latent_BCTHW, sigma, process)
                x0 = _rescaled(x0, conditional, guidance, unknown_B1THW)
        clipped = process.clipped(x0)
        return clipped if unknown_B1THW is None else torch.where(unknown_B1THW, clipped, x0)

    return denoise


def velocity_of(x0_BCTHW: Tensor, latent_BCTHW: Tensor, sigma: Tensor, process: Process) -> Tensor:
    """epsilon - x0 at the level sigma () above 0, on any path."""
    return (latent_BCTHW - (process.alpha(sigma) + sigma) * x0_BCTHW) / sigma


def x0_of(velocity_BCTHW: Tensor, latent_BCTHW: Tensor, sigma: Tensor, process: Process) -> Tensor:
    """The inverse of `velocity_of`."""
    return (latent_BCTHW - sigma * velocity_BCTHW) / (process.alpha(sigma) + sigma)


def _rescaled(
    x0_BCTHW: Tensor, conditional_BCTHW: Tensor, guidance: Guidance, unknown_B1THW: Tensor | None
) -> Tensor:
    """With the spread that `rescale` asks for, and the conditional x0 in known places."""
    if guidance.rescale > 0:
        ratio = _spread(conditional_BCTHW, unknown_B1THW) / _spread(x0_BCTHW, unknown_B1THW)
        x0_BCTHW = x0_BCTHW * (1 + guidance.rescale * (ratio - 1))
    return x0_BCTHW if unknown_B1THW is None else torch.where(unknown_B1THW, x0_BCTHW, conditional_BCTHW)


def _dot(one_BCTHW: Tensor, other_BCTHW: Tensor, unknown_B1THW: Tensor | None) -> Tensor:
    """Inner product of each clip over its unknown places, (B, 1, 1, 1, 1)."""
    product = one_BCTHW * other_BCTHW
    if unknown_B1THW is not None:
        product = torch.where(unknown_B1THW, product, 0.0)
    return product.sum(tuple(range(1, product.ndim)), keepdim=True)


def _spread(x0_BCTHW: Tensor, unknown_B1THW: Tensor | None) -> Tensor:
    """Standard deviation of each clip over its unknown places, (B, 1, 1, 1, 1), never 0."""
    ones = torch.ones_like(x0_BCTHW)
    count = _dot(ones, ones, unknown_B1THW).clamp(min=1)
    from_mean = x0_BCTHW - _dot(x0_BCTHW, ones, unknown_B1THW) / count
    variance = _dot(from_mean, from_mean, unknown_B1THW) / count
    return variance.sqrt().clamp(min=torch.finfo(x0_BCTHW.dtype).tiny ** 0.5)
