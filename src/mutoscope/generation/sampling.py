"""One window of a clip: the grid, the text, what is known, the noise, the sampler, the decoder."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mutoscope.diffusion import guidance
from mutoscope.diffusion.fixed_shift import FixedShift
from mutoscope.diffusion.noise import addressed_noise
from mutoscope.diffusion.sampler import SAMPLERS, Denoise, OnStep, StepInfo, renoise
from mutoscope.generation import conditions
from mutoscope.generation.conditions import Condition, margins
from mutoscope.generation.request import RENOISE, Grid, Recipe, cover
from mutoscope.generation.shown import Shown, cached, guide_by, levels, shown, some_texts
from mutoscope.models.vae import latent_frames_per_chunk
from mutoscope.video import to_frames
from mutoscope.weights.store import Model

REFERENCES_FRAME = -1_000_000
"""Where the noise of references is addressed: far from every frame of a clip."""

IN_TURN = 2**14
"""Tokens of a clip from which on the two branches of guidance are two calls: the same products, in half the memory."""

STEP_APART = 2**20
"""Latent frames between the addresses of the noise of one step and of the next."""


@dataclass(frozen=True)
class Sampled:
    """Latents of a batch, and the number of steps after which the sampler was stopped (None: it finished)."""

    latent_BCTHW: Tensor
    stopped: int | None


@dataclass(frozen=True)
class Start:
    """Clean latents from which sampling starts, noised to the level `sigma` in (0, 1]: SDEdit (Meng 2022)."""

    latent_BCTHW: Tensor
    sigma: float


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while sampling; `partial` is the estimate of the clean latents after the last whole step."""

    def __init__(self, partial: Sampled) -> None:
        super().__init__()
        self.partial = partial


@torch.inference_mode()
def sample(
    model: Model,
    recipes: Sequence[Recipe],
    on_step: OnStep | None = None,
    condition: Condition | None = None,
    start: Start | None = None,
    frame0: int = 0,
    remember: Callable[[guidance.Branches], guidance.Branches] | None = None,
) -> Sampled:
    """Latents of recipes that share shape and settings: grid, text, condition, noise, sampler.

    `condition` None is what the recipes themselves say: their pictures. `start` None is noise alone. `frame0`
    is the place of the first latent frame in a longer clip. `remember` wraps the model in a memory (see
    `generation.journal`). Raises Interrupted on Ctrl-C, FloatingPointError when the model's output is not
    finite.
    """
    model = told_exactly(model, recipes[0])
    grid = grid_of(model, recipes[0])
    text = encode_text(model, recipes)
    pictures = shown(model, recipes, grid, condition)
    before = 0 if pictures is None else pictures.references
    if pictures is not None:  # beside the latent, not as frames of it
        drawn = replace(grid, frames=before + grid.frames)
        condition = conditions.together([conditions.text(model.vae, drawn)] * len(recipes))
    elif condition is None:
        condition = conditions.together([conditions.of_recipe(model.vae, recipe, grid) for recipe in recipes])

    if isinstance(model.process, FixedShift):
        condition = replace(condition, sigma=0.0)  # Wan's TI2V was shown clean frames only

    @lru_cache(maxsize=1)
    def fresh(step: int) -> Tensor:
        noise_BCTHW = address_noise(model, recipes, grid, frame0 + step * STEP_APART)
        if not before:
            return noise_BCTHW
        own_BCTHW = address_noise(
            model, recipes, replace(grid, frames=before), REFERENCES_FRAME + step * STEP_APART
        )
        return torch.cat([own_BCTHW, noise_BCTHW], dim=2)

    noise_BCTHW = fresh(0)
    if pictures is not None and before:
        on_step = on_step and _of_the_clip(on_step, before)
        if start is not None:
            like_BCTHW = pictures.channels_BCTHW[:, : model.vae.latent_channels, :before]
            start = replace(start, latent_BCTHW=torch.cat([like_BCTHW, start.latent_BCTHW], dim=2))
    branches: guidance.Branches = Branches(model, text, condition, recipes[0].fps, noise_BCTHW, pictures)
    if remember is not None:
        branches = remember(branches)
    denoise = guide_by(model, branches, recipes[0], condition.unknown)
    try:
        sampled = _without(integrate(model, recipes[0], denoise, fresh, on_step, start), before)
    except Interrupted as interrupt:
        raise Interrupted(_without(interrupt.partial, before)) from interrupt
    if not sampled.latent_BCTHW.isfinite().all():
        raise FloatingPointError(f"{model.card.name} made values that are not numbers")
    return sampled


def _without(sampled: Sampled, before: int) -> Sampled:
    """What belongs to the clip: without the frames in front of it."""
    return replace(sampled, latent_BCTHW=sampled.latent_BCTHW[:, :, before:])


def _of_the_clip(on_step: OnStep, before: int) -> OnStep:
    """Progress that shows the clip without the frames in front of it."""
    return lambda info: on_step(replace(info, x0=info.x0[:, :, before:]))


@dataclass(frozen=True)
class Embedded:
    """Encoded texts: the prompts of a batch, followed by the negative ones when guidance is used."""

    text_BLD: Tensor
    mask_BL: Tensor


class Branches:
    """The model with its prompts and known frames, as guidance sees it: (latent, sigma, both) -> x0.

    Known frames enter with as much of the noise, mostly none, as the condition says and with the timestep of
    that level; they leave clean. The conditional and the unconditional branch are one call of twice the
    batch, of large clips two (see IN_TURN); the text's keys and values are computed once.
    """

    def __init__(
        self,
        model: Model,
        text: Embedded,
        condition: Condition,
        fps: float,
        noise_BCTHW: Tensor,
        pictures: Shown | None = None,
    ) -> None:
        self.model, self.condition, self.fps = model, condition, fps
        self.seen_BCTHW = condition.latent_BCTHW
        if condition.sigma:
            sigma = noise_BCTHW.new_tensor(condition.sigma)
            self.seen_BCTHW = model.process.noised(condition.latent_BCTHW, noise_BCTHW, sigma)
        self.text: Any = cached(model.dit, text.text_BLD, text.mask_BL, pictures)  # as this DiT takes it
        self.clips = len(noise_BCTHW)
        self.any_known = bool(condition.mask_BT.any())

    def __call__(self, latent_BCTHW: Tensor, sigma: Tensor, both: bool, /) -> Tensor:
        if both and tokens_of(self.model, latent_BCTHW) > IN_TURN:
            halves = (self.prompts, self.negatives)
            return torch.cat([self._x0(latent_BCTHW, sigma, text, 1) for text in halves])
        return self._x0(latent_BCTHW, sigma, self.text if both else self.prompts, 2 if both else 1)

    def _x0(self, latent_BCTHW: Tensor, sigma: Tensor, text: Any, times: int) -> Tensor:
        """x0 of the latents, so many times, with as many texts."""
        process = self.model.process
        known_B1T11 = self.condition.mask_BT[:, None, :, None, None]
        latent_BCTHW = torch.where(known_B1T11, self.seen_BCTHW, latent_BCTHW)
        timestep = self._timestep(process.timestep(sigma))
        latent_BCTHW = _repeat(latent_BCTHW, times)
        clean_BCTHW = _repeat(self.condition.latent_BCTHW, times)
        fps_B = latent_BCTHW.new_full((len(latent_BCTHW),), self.fps)
        prediction = self.model.dit(latent_BCTHW, _repeat(timestep, times), text, fps_B=fps_B)
        x0_BCTHW = process.to_x0(prediction, latent_BCTHW, sigma)
        return torch.where(_repeat(self.condition.unknown, times), x0_BCTHW, clean_BCTHW)

    @cached_property
    def prompts(self) -> Any:
        """The text without the negative prompts, for the steps at which guidance does not act."""
        return some_texts(self.text, slice(self.clips))

    @cached_property
    def negatives(self) -> Any:
        """The negative prompts alone."""
        return some_texts(self.text, slice(self.clips, None))

    def _timestep(self, timestep: Tensor) -> Tensor:
        """One per clip (the cheaper form), or one per latent frame when some are known."""
        mask_BT = self.condition.mask_BT
        if self.any_known:
            known = self.model.process.timestep(timestep.new_tensor(self.condition.sigma))
            return torch.where(mask_BT, known, timestep)
        return timestep.expand(len(mask_BT))


def told_exactly(model: Model, recipe: Recipe) -> Model:
    """The model; at levels of the recipe's own it is told their timesteps, not the whole ones of its training."""
    if recipe.sigmas and isinstance(model.process, FixedShift):
        return replace(model, process=replace(model.process, whole=False))
    return model


def tokens_of(model: Model, latent_BCTHW: Tensor) -> int:
    """Tokens of one clip."""
    return latent_BCTHW[0, 0].numel() // math.prod(model.dit.config.patch)


def grid_of(model: Model, recipe: Recipe) -> Grid:
    """The latent grid of this model that covers the clip."""
    return cover(recipe, model.vae.strides, model.dit.config.patch)


def encode_text(model: Model, recipes: Sequence[Recipe]) -> Embedded:
    """Prompts and, when guidance asks for them, negative prompts (or the null text), encoded in one call."""
    prompts = [recipe.expanded_prompt for recipe in recipes]
    if recipes[0].guidance != 1:
        prompts += [recipe.negative for recipe in recipes]
    return Embedded(*model.text(prompts))


def address_noise(model: Model, recipes: Sequence[Recipe], grid: Grid, frame0: int = 0) -> Tensor:
    """Standard normal noise, each value a function of its recipe's noise seed and its own place."""
    like = model.vae.latent_mean
    shape = (model.vae.latent_channels, grid.frames, grid.height, grid.width)
    return torch.stack(
        [addressed_noise(recipe.noise_seed, *shape, frame0=frame0, device=like.device) for recipe in recipes]
    )


def integrate(
    model: Model,
    recipe: Recipe,
    denoise: Denoise,
    fresh: Callable[[int], Tensor],
    on_step: OnStep | None,
    start: Start | None = None,
) -> Sampled:
    """Run the recipe's sampler from noise, or from `start` with noise added, to data.

    fresh: noise by step; that of 0 is what the run starts from, the others are for samplers that noise anew. The
    last estimate is remembered in case the run is cut short.
    """
    last: StepInfo | None = None
    stopped: int | None = None

    def watch(info: StepInfo) -> bool | None:
        nonlocal last, stopped
        last = info
        go_on = on_step(info) if on_step else True
        stopped = info.step if go_on is False and info.step < info.steps else None
        return go_on

    noise_BCTHW = fresh(0)
    tokens = tokens_of(model, noise_BCTHW)
    sigmas, latent_BCTHW = levels(model.process, recipe, tokens).to(noise_BCTHW.device), noise_BCTHW
    sampler = renoise(fresh) if recipe.sampler == RENOISE else SAMPLERS[recipe.sampler]
    if start is not None:
        level = sigmas[0].clamp(max=start.sigma)
        sigmas = torch.cat([level[None], sigmas[sigmas < level]])
        latent_BCTHW = model.process.noised(start.latent_BCTHW, noise_BCTHW, level.to(noise_BCTHW.dtype))
    try:
        latent_BCTHW = sampler(denoise, latent_BCTHW, sigmas, model.process, watch)
    except KeyboardInterrupt as interrupt:
        if last is None:
            raise
        raise Interrupted(Sampled(last.x0, last.step)) from interrupt
    return Sampled(latent_BCTHW, None) if stopped is None or last is None else Sampled(last.x0, stopped)


def decode(model: Model, recipe: Recipe, latent_CTHW: Tensor) -> Iterator[np.ndarray]:
    """The clip's frames (uint8 THWC), a few at a time, cropped to the size and length of the recipe."""
    return decode_stream(model, recipe, [latent_CTHW])


def decode_stream(model: Model, recipe: Recipe, latents: Iterable[Tensor]) -> Iterator[np.ndarray]:
    """As `decode`, for latents (CTHW) that come in pieces, in constant memory."""
    for video_CTHW in decode_video(model, recipe, latents):
        with torch.inference_mode():
            frames_THWC = to_frames(video_CTHW)
        yield frames_THWC


def decode_video(model: Model, recipe: Recipe, latents: Iterable[Tensor]) -> Iterator[Tensor]:
    """The clip as tensors (CTHW, near [-1, 1]), a few frames at a time, cropped as the recipe says, without its lead.

    Ends early when the latents do.
    """
    grid = grid_of(model, recipe)
    top, left = margins(recipe, grid)
    chunk = latent_frames_per_chunk(grid.height, grid.width)
    pieces = (
        piece_BCTHW
        for latent_CTHW in latents
        for piece_BCTHW in torch.split(latent_CTHW[None].to(model.vae.latent_mean), chunk, dim=2)
    )
    lead, remaining = recipe.lead, recipe.frames
    stream = model.vae.decode_stream(pieces)
    while remaining > 0:
        with torch.inference_mode():  # around each piece: the caller's code between two is not ours to change
            video_BCTHW = next(stream, None)
        if video_BCTHW is None:
            return
        shown_CTHW = video_BCTHW[0, :, lead:, top : top + recipe.height, left : left + recipe.width]
        lead -= min(lead, video_BCTHW.shape[2])
        video_CTHW = shown_CTHW[:, :remaining]
        remaining -= video_CTHW.shape[1]
        if video_CTHW.shape[1]:
            yield video_CTHW


def _repeat(tensor: Tensor, times: int) -> Tensor:
    return tensor.repeat(times, *[1] * (tensor.ndim - 1))
