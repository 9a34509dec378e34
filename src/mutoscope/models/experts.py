"""Two transformers of one shape, one for high noise and one for low (Wan 2.2 A14B), behind the calls of one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models.dit import DiT, DiTConfig, TextCache


@dataclass(frozen=True)
class ExpertsCache:
    """What each expert needs of a text."""

    high: TextCache
    low: TextCache


class Experts(nn.Module):
    """The expert for high noise works from the timestep 1000 down to 1000 times the boundary, the other below.

    boundary: a noise level in (0, 1). low_share: guidance beyond 1 of the expert for low noise, as a share of that
    of the other: Wan's pair of scales 4 and 3 is a share of 2/3.
    """

    def __init__(self, high: DiT, low: DiT, boundary: float, low_share: float = 1.0) -> None:
        super().__init__()
        if high.config != low.config:
            raise InputError(
                "Two experts of different shapes are not one model; take both from one download."
            )
        self.high, self.low, self.boundary, self.low_share = high, low, boundary, low_share

    @property
    def config(self) -> DiTConfig:
        return self.high.config

    def cache_text(self, text_BLD: Tensor, mask_BL: Tensor | None = None) -> ExpertsCache:
        """The caches of both; see `DiT.cache_text`."""
        return ExpertsCache(self.high.cache_text(text_BLD, mask_BL), self.low.cache_text(text_BLD, mask_BL))

    def forward(
        self,
        latent_BCTHW: Tensor,
        timestep: Tensor,
        text: ExpertsCache,
        text_mask_BL: Tensor | None = None,
        fps_B: Tensor | None = None,
    ) -> Tensor:
        """The prediction of the expert for this noise; see `DiT.forward`."""
        if self.noisy(float(timestep.max())):
            high: Tensor = self.high(latent_BCTHW, timestep, text.high)
            return high
        low: Tensor = self.low(latent_BCTHW, timestep, text.low)
        return low

    def noisy(self, timestep: float) -> bool:
        return timestep >= self.boundary * 1000
