"""How a clip longer than the model draws at once is cut into windows that know the end of the one before."""

import math
from dataclasses import replace

from torch import Tensor

from mutoscope.diffusion.sampler import OnStep, StepInfo
from mutoscope.generation import conditions
from mutoscope.generation.conditions import Condition
from mutoscope.generation.request import Grid, Recipe
from mutoscope.weights.store import Model

WINDOW = 2
"""A window holds so many times the latent frames, the first not counted, of the model's default length."""

HISTORY = 3
"""Latent frames that a window knows from the one before, where there are so many."""

HISTORY_NOISE = 0.05
"""Noise level at which they are seen. Training shows up to 0.1: a model bears its own errors better so."""


def window(model: Model, least: int = HISTORY + 2) -> int:
    """Latent frames that are made at a time, `least` of them or more."""
    default = math.ceil((model.card.defaults.frames - 1) / model.vae.strides[0])
    return max(1 + WINDOW * default, least)


def spans(frames: int, longest: int) -> list[slice]:
    """Which latent frames are made together, in order; each span but the first begins with known frames.

    All are `longest` (more than HISTORY) long, in clips of that length or more; the last then knows more.
    """
    found = [slice(0, min(frames, longest))]
    while (done := found[-1].stop) < frames:
        begin = min(done - HISTORY, frames - longest)
        found.append(slice(begin, begin + longest))
    return found


def windows_of(model: Model, recipe: Recipe) -> int:
    """How many windows a clip takes."""
    stride, patch = model.vae.strides[0], model.dit.config.patch[0]
    frames = 1 + math.ceil((recipe.lead + recipe.frames - 1) / stride)
    return len(spans(math.ceil(frames / patch) * patch, window(model)))


def part_of(recipe: Recipe, span: slice, known: int, grid: Grid) -> Recipe:
    """The recipe of one span of a clip, whose first `known` latent frames are made: its length, its pictures."""
    stride = grid.strides[0]
    lead = 0 if span.start else recipe.lead
    part = replace(recipe, frames=1 + stride * (span.stop - span.start - 1) - lead, lead=lead)
    if span.start:
        part = replace(part, image=None, image_sha256=None)
    if recipe.lead and not lead:
        part = replace(part, references=())
    if span.stop < grid.frames:
        part = replace(part, last_image=None, last_image_sha256=None)
    places = [(conditions.key_place(recipe, frame, grid), frame) for frame in recipe.at]
    within = (
        replace(frame, seconds=(place - span.start) * stride / recipe.fps)
        for place, frame in places
        if span.start + known <= place < span.stop
    )
    return replace(part, at=tuple(within))


def following(condition: Condition, known_BCTHW: Tensor, sigma: float) -> Condition:
    """The condition of a window whose first frames are known, at the noise level sigma, from the one before."""
    frames = known_BCTHW.shape[2]
    condition.latent_BCTHW[:, :, :frames] = known_BCTHW
    condition.mask_BT[:, :frames] = True
    return replace(condition, sigma=sigma)


def counted(on_step: OnStep | None, index: int, count: int) -> OnStep | None:
    """Progress of one window of several, as progress of the whole."""
    if on_step is None:
        return None
    return lambda info: on_step(
        StepInfo(info.step + index * info.steps, count * info.steps, info.sigma, info.x0)
    )
