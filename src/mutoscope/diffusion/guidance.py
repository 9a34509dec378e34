"""Classifier-free guidance: away from what the model draws for the null (or negative) prompt.

Guidance acts on x0. Velocity, epsilon, v and x0 are affine in one another at a given z and sigma, and the
guided value is an affine combination, unconditional + scale (conditional - unconditional), whose weights add
up to 1; so guiding x0 is guiding the velocity or the epsilon (Ho & Salimans 2022 guide epsilon). Only
`rescale` and the clipping of x0 depend on the choice, and both are meant for x0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mutoscope.diffusion.process import Process
from mutoscope.diffusion.sampler import Denoise
from mutoscope.errors import InputError


@dataclass(frozen=True)
class Guidance:
    """How strongly, and when, to follow the prompt.

    scale: 1 is no guidance (and spares the second branch); 3 to 8 is usual.
    rescale: in [0, 1], how far the spread of the guided x0 is brought back to that of the conditional one,
        against washed-out contrast and saturation (Lin et al. 2023; they advise 0.7).
    interval: the noise levels (low, high) within which guidance acts; in the noisiest it hurts variety, in
        the cleanest it does nothing (Kynkaanniemi et al. 2024). Outside, the conditional x0 is used as it is.

    Raises InputError for values out of range.
    """

    scale: float = 5.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)

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

    def acts_at(self, sigma: float) -> bool:
        """Whether the unconditional branch matters at this noise level."""
        return self.scale != 1 and self.interval[0] <= sigma <= self.interval[1]


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
    """The guided x0, BCTHW, from both branches' x0 at the level sigma ().

    unknown_B1THW: bool, broadcastable, True where the clip is to be made; elsewhere the conditional x0 stays
    as it is and does not count for the rescaling. None means everywhere.
    """
    if not guidance.acts_at(float(sigma)):
        return conditional_BCTHW
    x0 = unconditional_BCTHW + guidance.scale * (conditional_BCTHW - unconditional_BCTHW)
    if guidance.rescale > 0:
        ratio = _spread(conditional_BCTHW, unknown_B1THW) / _spread(x0, unknown_B1THW)
        x0 = x0 * (1 + guidance.rescale * (ratio - 1))
    return x0 if unknown_B1THW is None else torch.where(unknown_B1THW, x0, conditional_BCTHW)


def guide(
    branches: Branches, guidance: Guidance, process: Process, unknown_B1THW: Tensor | None = None
) -> Denoise:
    """A denoiser for the samplers: both branches where guidance acts, one where it does not, then the
    clipping that the process asks for. Known places (False in unknown_B1THW) are neither guided nor
    clipped."""

    def denoise(latent_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        both = guidance.acts_at(float(sigma))
        x0 = branches(latent_BCTHW, sigma, both)
        if both:
            conditional, unconditional = x0.chunk(2)
            x0 = guided(conditional, unconditional, sigma, guidance, unknown_B1THW)
        clipped = process.clipped(x0)
        return clipped if unknown_B1THW is None else torch.where(unknown_B1THW, clipped, x0)

    return denoise


def _spread(x0_BCTHW: Tensor, unknown_B1THW: Tensor | None) -> Tensor:
    """Standard deviation of each clip over its unknown places, (B, 1, 1, 1, 1), never 0."""
    weight = (
        torch.ones_like(x0_BCTHW) if unknown_B1THW is None else unknown_B1THW.expand_as(x0_BCTHW).to(x0_BCTHW)
    )
    axes = tuple(range(1, x0_BCTHW.ndim))
    count = weight.sum(axes, keepdim=True).clamp(min=1)
    mean = (weight * x0_BCTHW).sum(axes, keepdim=True) / count
    variance = (weight * (x0_BCTHW - mean).square()).sum(axes, keepdim=True) / count
    return variance.sqrt().clamp(min=torch.finfo(x0_BCTHW.dtype).tiny ** 0.5)
