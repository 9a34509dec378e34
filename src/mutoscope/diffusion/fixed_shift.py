"""The flow process of public models: a shift that does not depend on the clip, whole timesteps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mutoscope.diffusion.process import TIMESTEPS, Process
from mutoscope.errors import InputError

NEARLY_ONE = 1 - 1e-6  # the first level, where the solvers' lambda is finite


@dataclass(frozen=True)
class FixedShift(Process):
    """Flow matching with the levels of Wan's schedulers: `steps` even parts from 1 to 0.001, shifted, then 0.

    constant: the shift, 3 to 16 in Wan's models. known_frames: whether the model was trained to take known latent
    frames in their place, clean and with the timestep 0 (Wan 2.2 TI2V). whole: whether the model is told whole
    timesteps, as in training; distilled ones are told those of their levels. Raises InputError unless the shift is
    positive.
    """

    constant: float = 5.0
    known_frames: bool = False
    whole: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.constant > 0:
            raise InputError(f"A shift of {self.constant} is not greater than 0; 1 means none, 5 is usual.")

    def shift(self, tokens: int | Tensor | None) -> Tensor:
        """The constant, whatever the clip."""
        return torch.tensor(self.constant, dtype=torch.float64)

    def sigmas(self, steps: int, tokens: int | None = None, shift: float | None = None) -> Tensor:
        """Noise levels of a sampling run, (steps + 1,) float64, falling; `shift` takes the place of the constant."""
        if steps < 1:
            raise InputError(f"steps = {steps} is too few; ask for at least 1.")
        factor = self.constant if shift is None else shift
        t = torch.linspace(1, 1 / TIMESTEPS, steps + 1, dtype=torch.float64)
        levels = factor * t / (1 + (factor - 1) * t)
        levels[0], levels[-1] = NEARLY_ONE, 0.0
        return levels

    def timestep(self, sigma: Tensor) -> Tensor:
        """1000 sigma, cut to a whole number as the models were asked; a rounding error does not count as a step."""
        if not self.whole:
            return TIMESTEPS * sigma
        return (TIMESTEPS * sigma + 1e-4).floor()
