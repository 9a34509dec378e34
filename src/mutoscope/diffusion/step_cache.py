"""A step cache: where the model is expected to say what it said before, it is not asked, and its line is drawn on.

The criterion is EasyCache's (Zhou et al. 2025, arXiv 2507.02860), which knows inputs and outputs of the model alone and
so serves every transformer: between two answers the velocity has changed k times as much as the latent; from then on
k times the change of the latent, as a share of the velocity, is added up step by step, as TeaCache adds up the changes
of its modulated input (Liu et al. 2024, arXiv 2411.19108), and the model is asked again when the sum reaches the
threshold. What is given meanwhile is not the last answer but half the way from there to the line through the last two.

Of 30 guided steps of the built-in model (three prompts; PSNR of the latents against all 30 steps): 12.7 asked 58 dB.
EasyCache's own rule, latent + (velocity - latent) of the last answer, 13 asked 51 dB; the last velocity, 13 asked 52
dB; the whole line, 12.3 asked 57 dB, and worse than none above a threshold of 0.1; the residual of the blocks behind
the first one, with the first one always computed, 13 asked 50 dB; TeaCache without fitted coefficients, 12.7 asked
38 dB; 15 steps in place of 30, 36 dB.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mutoscope.diffusion.guidance import Branches, velocity_of, x0_of
from mutoscope.diffusion.process import Process

SHARE = 0.5
"""How far towards the line through the last two answers what is not asked for lies."""


@dataclass(frozen=True)
class Answer:
    """What the model was asked and said: the level, the latents (one row per row of the velocity), the velocity."""

    sigma: float
    latent_BCTHW: Tensor
    velocity_BCTHW: Tensor


class StepCache:
    """Branches that ask those given only where their answer may have changed by `threshold` or more since the last.

    threshold: of the relative change, above 0; 0.05 is mild. It serves one run, whose calls come in order. The model
    is always asked twice in a row after guidance begins or ends to act.
    """

    def __init__(self, branches: Branches, process: Process, threshold: float) -> None:
        self.branches, self.process, self.threshold = branches, process, threshold
        self.last: Answer | None = None
        self.earlier: Answer | None = None
        self.seen_BCTHW: Tensor | None = None  # the latents of the last call
        self.change = 0.0  # expected since the last answer

    def __call__(self, latent_BCTHW: Tensor, sigma: Tensor, both: bool, /) -> Tensor:
        asked_BCTHW = latent_BCTHW.repeat(2 if both else 1, 1, 1, 1, 1)
        if self.last is not None and len(self.last.latent_BCTHW) != len(asked_BCTHW):
            self.last = self.earlier = None
        self.change += self._expected(latent_BCTHW)
        self.seen_BCTHW = latent_BCTHW
        if self.last is not None and self.earlier is not None and self.change < self.threshold:
            return x0_of(self._drawn_on(float(sigma)), asked_BCTHW, sigma, self.process)
        x0_BCTHW = self.branches(latent_BCTHW, sigma, both)
        velocity_BCTHW = velocity_of(x0_BCTHW, asked_BCTHW, sigma, self.process)
        self.earlier, self.last = self.last, Answer(float(sigma), asked_BCTHW, velocity_BCTHW)
        self.change = 0.0
        return x0_BCTHW

    def _expected(self, latent_BCTHW: Tensor) -> float:
        """Relative change of the velocity since the call before, from that of the latents."""
        last, earlier = self.last, self.earlier
        if last is None or earlier is None or self.seen_BCTHW is None:
            return 0.0
        rate = _distance(last.velocity_BCTHW, earlier.velocity_BCTHW)
        rate /= max(_distance(last.latent_BCTHW, earlier.latent_BCTHW), 1e-30)
        size = max(float(last.velocity_BCTHW.abs().mean()), 1e-30)
        return rate * _distance(latent_BCTHW, self.seen_BCTHW) / size

    def _drawn_on(self, sigma: float) -> Tensor:
        """The velocity foreseen for a level."""
        last, earlier = self.last, self.earlier
        assert last is not None
        assert earlier is not None
        if last.sigma == earlier.sigma:  # Heun's method asks twice at a level
            return last.velocity_BCTHW
        way = SHARE * (sigma - last.sigma) / (last.sigma - earlier.sigma)
        return last.velocity_BCTHW + way * (last.velocity_BCTHW - earlier.velocity_BCTHW)


def _distance(one_BCTHW: Tensor, other_BCTHW: Tensor) -> float:
    return float((one_BCTHW - other_BCTHW).abs().mean())
