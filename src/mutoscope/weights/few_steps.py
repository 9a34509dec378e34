"""Presets of models distilled to a few steps: the noise levels they were trained at, and how they pass between them.

A distilled model knows its own levels only, and guidance is part of its weights: other steps, or guidance on top, spoil
its clips. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mutoscope.errors import InputError
from mutoscope.weights.card import Defaults


@dataclass(frozen=True)
class FewSteps:
    """Noise levels of a run, falling, without the 0 at its end; and the sampler. Guidance is off.

    marks: words in the names of its files, in lower case.
    """

    sigmas: tuple[float, ...]
    sampler: Literal["euler", "renoise"]
    marks: tuple[str, ...]


FEW_STEPS: dict[str, FewSteps] = {
    # denoising_step_list [1000, 750, 500, 250] of its published settings, as places in the table of shift 5:
    # 5 t / (1 + 4 t); the A14B pair changes experts between the second and the third.
    "lightx2v": FewSteps((1.0, 15 / 16, 5 / 6, 5 / 8), "euler", ("lightx2v", "lightning", "stepdistill")),
    # dmd_denoising_steps 1000, 757, 522: timesteps of the model as they are (FastVideo, distribution matching).
    "fastwan": FewSteps((1.0, 0.757, 0.522), "renoise", ("fastwan",)),
    # denoising_step_list [1000, 757, 522, 0]; the 0 is where it ends (Yin et al. 2024, arXiv 2412.07772).
    "causvid": FewSteps((1.0, 0.757, 0.522), "renoise", ("causvid",)),
}

DISTILLED_PIPELINE = "WanDMDPipeline"
"""What the model_index.json of FastWan's checkpoints says."""


def few_steps(name: str) -> FewSteps:
    """The preset of this name. Raises InputError for an unknown one."""
    if name not in FEW_STEPS:
        raise InputError(f"There is no preset of few steps {name!r}; choose one of {', '.join(FEW_STEPS)}.")
    return FEW_STEPS[name]


def preset_of(file: str) -> str | None:
    """The preset that the name of a file or folder speaks of, None when it speaks of none."""
    named = (name for name, preset in FEW_STEPS.items() if any(mark in file.lower() for mark in preset.marks))
    return next(named, None)


def distilled(defaults: Defaults, model_index: Mapping[str, Any]) -> Defaults:
    """The defaults of a model by what its model_index.json says: those of few steps for a distilled one."""
    if model_index.get("_class_name") != DISTILLED_PIPELINE:
        return defaults
    preset = FEW_STEPS["fastwan"]
    steps = len(preset.sigmas)
    return replace(defaults, steps=steps, guidance=1.0, sampler=preset.sampler, sigmas=preset.sigmas)
