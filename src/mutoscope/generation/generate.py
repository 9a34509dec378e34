"""From a request to a clip: the six statements that every task and every model go through."""

import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mutoscope import __version__
from mutoscope.config import to_dict
from mutoscope.diffusion.guidance import Guidance, guide
from mutoscope.diffusion.noise import addressed_noise
from mutoscope.diffusion.sampler import SAMPLERS, Denoise, OnStep, StepInfo
from mutoscope.generation import conditions
from mutoscope.generation.conditions import Condition, margins
from mutoscope.generation.plan import free_memory, plan, refuse_what_does_not_fit
from mutoscope.generation.request import Grid, Recipe, Request, cover, fill
from mutoscope.models.vae import latent_frames_per_chunk
from mutoscope.video import STREAMS, Video, VideoWriter, to_frames
from mutoscope.weights.store import Model

LARGEST_BATCH = 16  # larger ones are no faster, on a CPU or for clips of hundreds of tokens on a GPU


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


def generate(model: Model, request: Request, on_step: OnStep | None = None) -> Video:
    """Make one clip. The same request and model give the same bytes on the same machine.

    `on_step` is called after every step with StepInfo(step, steps, sigma, x0); when it returns False the clip
    as estimated so far is decoded and its recipe says `stopped`. Raises InputError for a request that cannot
    be met, Interrupted (a KeyboardInterrupt) on Ctrl-C after the first step.
    """
    recipe = resolve(model, request)
    sampled = sample(model, [recipe], on_step)
    return _video(model, replace(recipe, stopped=sampled.stopped), sampled.latent_BCTHW[0])


def generate_many(model: Model, requests: Sequence[Request], on_step: OnStep | None = None) -> list[Video]:
    """Make several clips, those of one shape and setting in one batch; in the order of the requests.

    Each equals the clip made alone up to floating-point error (the noise does not depend on the batch). Bytes
    are defined by the clip made alone.
    """
    recipes = [resolve(model, request) for request in requests]
    groups: dict[Recipe, list[int]] = {}
    for index, recipe in enumerate(recipes):
        groups.setdefault(_shape_and_setting(recipe), []).append(index)
    videos: dict[int, Video] = {}
    batches = [batch for indices in groups.values() for batch in _batched(model, recipes, indices)]
    for indices in batches:
        sampled = sample(model, [recipes[index] for index in indices], on_step)
        for index, latent_CTHW in zip(indices, sampled.latent_BCTHW, strict=True):
            videos[index] = _video(model, replace(recipes[index], stopped=sampled.stopped), latent_CTHW)
    return [videos[index] for index in range(len(requests))]


def resolve(model: Model, request: Request) -> Recipe:
    """Fill the gaps of a request from the model's defaults, and refuse what does not fit into memory."""
    recipe = fill(request, model.card.defaults)
    refuse_what_does_not_fit(model, recipe)
    return recipe


@torch.inference_mode()
def sample(
    model: Model,
    recipes: Sequence[Recipe],
    on_step: OnStep | None = None,
    condition: Condition | None = None,
    start: Start | None = None,
    frame0: int = 0,
) -> Sampled:
    """Latents of recipes that share shape and settings: grid, text, condition, noise, sampler.

    `condition` None is what the recipes themselves say: their pictures. `start` None is noise alone. `frame0`
    is the place of the first latent frame in a longer clip. Raises Interrupted on Ctrl-C, FloatingPointError
    when the model's output is not finite.
    """
    grid = grid_of(model, recipes[0])
    text = encode_text(model, recipes)
    if condition is None:
        condition = conditions.together([conditions.of_recipe(model.vae, recipe, grid) for recipe in recipes])
    noise_BCTHW = address_noise(model, recipes, grid, frame0)
    branches = Branches(model, text, condition, recipes[0].fps, noise_BCTHW)
    unknown_B1T11 = ~condition.mask_BT[:, None, :, None, None]
    denoise = guide(branches, Guidance(recipes[0].guidance), model.process, unknown_B1T11)
    sampled = integrate(model, recipes[0], denoise, noise_BCTHW, on_step, start)
    if not sampled.latent_BCTHW.isfinite().all():
        raise FloatingPointError(f"{model.card.name} made values that are not numbers")
    return sampled


@dataclass(frozen=True)
class Embedded:
    """Encoded texts: the prompts of a batch, followed by the negative ones when guidance is used."""

    text_BLD: Tensor
    mask_BL: Tensor


class Branches:
    """The model with its prompts and known frames, as guidance sees it: (latent, sigma, both) -> x0.

    Known frames enter with as much of the noise, mostly none, as the condition says and with the timestep of
    that level; they leave clean. The conditional and the unconditional branch are one call of twice the
    batch; the text's keys and values are computed once.
    """

    def __init__(
        self, model: Model, text: Embedded, condition: Condition, fps: float, noise_BCTHW: Tensor
    ) -> None:
        self.model, self.condition, self.fps = model, condition, fps
        self.seen_BCTHW = condition.latent_BCTHW
        if condition.sigma:
            sigma = noise_BCTHW.new_tensor(condition.sigma)
            self.seen_BCTHW = model.process.noised(condition.latent_BCTHW, noise_BCTHW, sigma)
        self.text = model.dit.cache_text(text.text_BLD, text.mask_BL)
        self.any_known = bool(condition.mask_BT.any())

    def __call__(self, latent_BCTHW: Tensor, sigma: Tensor, both: bool, /) -> Tensor:
        process, times = self.model.process, 2 if both else 1
        known_B1T11 = self.condition.mask_BT[:, None, :, None, None]
        latent_BCTHW = torch.where(known_B1T11, self.seen_BCTHW, latent_BCTHW)
        timestep = self._timestep(process.timestep(sigma))
        latent_BCTHW, known_B1T11 = _repeat(latent_BCTHW, times), _repeat(known_B1T11, times)
        clean_BCTHW = _repeat(self.condition.latent_BCTHW, times)
        fps_B = latent_BCTHW.new_full((len(latent_BCTHW),), self.fps)
        prediction = self.model.dit(latent_BCTHW, _repeat(timestep, times), self.text, fps_B=fps_B)
        x0_BCTHW = process.to_x0(prediction, latent_BCTHW, sigma)
        return torch.where(known_B1T11, clean_BCTHW, x0_BCTHW)

    def _timestep(self, timestep: Tensor) -> Tensor:
        """One per clip (the cheaper form), or one per latent frame when some are known."""
        mask_BT = self.condition.mask_BT
        if self.any_known:
            known = self.model.process.timestep(timestep.new_tensor(self.condition.sigma))
            return torch.where(mask_BT, known, timestep)
        return timestep.expand(len(mask_BT))


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
    """Standard normal noise, each value a function of its recipe's seed and its own place."""
    like = model.vae.latent_mean
    shape = (model.vae.latent_channels, grid.frames, grid.height, grid.width)
    return torch.stack(
        [addressed_noise(recipe.seed, *shape, frame0=frame0, device=like.device) for recipe in recipes]
    )


def integrate(
    model: Model,
    recipe: Recipe,
    denoise: Denoise,
    noise_BCTHW: Tensor,
    on_step: OnStep | None,
    start: Start | None = None,
) -> Sampled:
    """Run the recipe's sampler from noise, or from `start` with noise added, to data.

    The last estimate is remembered in case the run is cut short.
    """
    last: StepInfo | None = None
    stopped: int | None = None

    def watch(info: StepInfo) -> bool | None:
        nonlocal last, stopped
        last = info
        go_on = on_step(info) if on_step else True
        stopped = info.step if go_on is False and info.step < info.steps else None
        return go_on

    tokens = noise_BCTHW[0, 0].numel() // math.prod(model.dit.config.patch)
    sigmas, latent_BCTHW = model.process.sigmas(recipe.steps, tokens).to(noise_BCTHW.device), noise_BCTHW
    if start is not None:
        level = sigmas[0].clamp(max=start.sigma)
        sigmas = torch.cat([level[None], sigmas[sigmas < level]])
        latent_BCTHW = model.process.noised(start.latent_BCTHW, noise_BCTHW, level.to(noise_BCTHW.dtype))
    try:
        latent_BCTHW = SAMPLERS[recipe.sampler](denoise, latent_BCTHW, sigmas, model.process, watch)
    except KeyboardInterrupt as interrupt:
        if last is None:
            raise
        raise Interrupted(Sampled(last.x0, last.step)) from interrupt
    return Sampled(latent_BCTHW, None) if stopped is None or last is None else Sampled(last.x0, stopped)


def decode(model: Model, recipe: Recipe, latent_CTHW: Tensor) -> Iterator[np.ndarray]:
    """The clip's frames (uint8 THWC), a few at a time, cropped to the size and length of the recipe."""
    grid = grid_of(model, recipe)
    top, left = margins(recipe, grid)
    chunk = latent_frames_per_chunk(grid.height, grid.width)
    remaining = recipe.frames
    latent_BCTHW = latent_CTHW[None].to(model.vae.latent_mean)
    stream = model.vae.decode_stream(torch.split(latent_BCTHW, chunk, dim=2))
    while remaining > 0:
        with torch.inference_mode():  # around each piece: the caller's code between two is not ours to change
            video_BCTHW = next(stream)
            video_CTHW = video_BCTHW[0, :, :remaining, top : top + recipe.height, left : left + recipe.width]
            frames_THWC = to_frames(video_CTHW)
        remaining -= len(frames_THWC)
        yield frames_THWC


def record(model: Model, recipe: Recipe) -> dict[str, Any]:
    """What a file must tell to be made again: the recipe, the weights, and what the last bits depend on."""
    return {
        "mutoscope": __version__,
        "model": {"name": model.card.name, "sha256": model.card.sha256},
        "machine": {
            "torch": torch.__version__,
            "device": str(model.vae.latent_mean.device),
            "threads": torch.get_num_threads(),
            "platform": platform.machine(),
        },
        "recipe": to_dict(recipe),
    }


def save(model: Model, recipe: Recipe, path: Path, on_step: OnStep | None = None) -> Recipe:
    """Make a clip straight into a file, decoded and encoded piece by piece; the recipe goes inside.

    On Ctrl-C after the first step the clip as estimated so far is written. Returns the recipe with `stopped`
    set in that case. Raises KeyboardInterrupt when there is nothing to keep.
    """
    try:
        sampled = sample(model, [recipe], on_step)
    except Interrupted as interrupt:
        sampled = interrupt.partial
    recipe = replace(recipe, stopped=sampled.stopped)
    if path.suffix.lower() not in STREAMS:
        _video(model, recipe, sampled.latent_BCTHW[0]).save(path)
        return recipe
    with VideoWriter(path, recipe.width, recipe.height, recipe.fps, record(model, recipe)) as writer:
        for frames_THWC in decode(model, recipe, sampled.latent_BCTHW[0]):
            writer.write(frames_THWC)
    return recipe


def _repeat(tensor: Tensor, times: int) -> Tensor:
    return tensor.repeat(times, *[1] * (tensor.ndim - 1))


def _batched(model: Model, recipes: Sequence[Recipe], indices: list[int]) -> list[list[int]]:
    """Clips of one shape cut into batches that fit into memory, at most LARGEST_BATCH each."""
    free = free_memory(model.vae.latent_mean.device)
    size = max(1, min(LARGEST_BATCH, free // plan(model, recipes[indices[0]]).memory))
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _video(model: Model, recipe: Recipe, latent_CTHW: Tensor) -> Video:
    frames_THWC = np.concatenate(list(decode(model, recipe, latent_CTHW)))
    return Video(frames_THWC, recipe.fps, record(model, recipe))


def _shape_and_setting(recipe: Recipe) -> Recipe:
    """What recipes must share to be sampled as one batch: everything but words, seed and pictures."""
    return replace(
        recipe,
        prompt="",
        expanded_prompt="",
        negative="",
        seed=0,
        image=None,
        image_sha256=None,
        last_image=None,
        last_image_sha256=None,
    )
