"""From a request to a clip: the six statements that every task and every model go through."""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mutoscope import __version__
from mutoscope.config import to_dict
from mutoscope.diffusion.sampler import OnStep
from mutoscope.errors import InputError
from mutoscope.generation import conditions
from mutoscope.generation.choice import after_trials, choose, refuse_to_choose_blindly, usual_candidates
from mutoscope.generation.groups import groups
from mutoscope.generation.journal import Journal
from mutoscope.generation.large import drafted, enlarge
from mutoscope.generation.plan import refuse_what_does_not_fit
from mutoscope.generation.request import Recipe, Request, fill
from mutoscope.generation.sampling import (
    Branches,
    Embedded,
    Interrupted,
    Sampled,
    Start,
    address_noise,
    decode,
    decode_stream,
    encode_text,
    grid_of,
    integrate,
    sample,
)
from mutoscope.generation.shown import introduced, led, sees_frames
from mutoscope.generation.windows import HISTORY_NOISE, counted, following, part_of, spans, window, windows_of
from mutoscope.video import STREAMS, Video, VideoWriter
from mutoscope.weights.store import Model

__all__ = [
    "Branches",
    "Embedded",
    "Interrupted",
    "Sampled",
    "Start",
    "address_noise",
    "decode",
    "encode_text",
    "generate",
    "generate_many",
    "grid_of",
    "integrate",
    "record",
    "resolve",
    "roll",
    "sample",
    "save",
]

OnFrames = Callable[[int, int], None]
"""Called with the frames written and those in all."""


def generate(model: Model, request: Request, on_step: OnStep | None = None) -> Video:
    """Make one clip. The same request and model give the same bytes on the same machine.

    `on_step` is called after every step with StepInfo(step, steps, sigma, x0); when it returns False the clip
    as estimated so far is decoded and its recipe says `stopped`. Raises InputError for a request that cannot
    be met, Interrupted (a KeyboardInterrupt) on Ctrl-C after the first step.
    """
    (recipe,) = choose(model, [resolve(model, request)], on_step)
    sampled = roll(model, recipe, after_trials(on_step, recipe))
    return _video(model, replace(recipe, stopped=sampled.stopped), [sampled.latent_BCTHW[0]])


def generate_many(model: Model, requests: Sequence[Request], on_step: OnStep | None = None) -> list[Video]:
    """Make several clips, those of one shape and setting in one batch; in the order of the requests.

    Each equals the clip made alone up to floating-point error (the noise does not depend on the batch). Bytes
    are defined by the clip made alone.
    """
    recipes = choose(model, [resolve(model, request) for request in requests], on_step)
    long = [index for index, recipe in enumerate(recipes) if windows_of(model, recipe) > 1]
    short = [index for index in range(len(recipes)) if index not in long]
    videos: dict[int, Video] = {}
    for index in long:
        sampled = roll(model, recipes[index], after_trials(on_step, recipes[index]))
        made = replace(recipes[index], stopped=sampled.stopped)
        videos[index] = _video(model, made, [sampled.latent_BCTHW[0]])
    for places in groups(model, [recipes[index] for index in short]):
        indices = [short[place] for place in places]
        report = after_trials(on_step, recipes[indices[0]])
        sampled = sample(model, [recipes[index] for index in indices], report)
        for index, latent_CTHW in zip(indices, sampled.latent_BCTHW, strict=True):
            videos[index] = _video(model, replace(recipes[index], stopped=sampled.stopped), [latent_CTHW])
    return [videos[index] for index in range(len(requests))]


def resolve(model: Model, request: Request, whole: bool = True) -> Recipe:
    """Fill the gaps of a request from the model's defaults, and refuse what does not fit into memory.

    `whole` is whether all frames are to be held at once, as in a Video.
    """
    recipe = led(model, fill(introduced(model, request), model.card.defaults))
    if request.candidates is None:
        recipe = replace(recipe, candidates=usual_candidates(model, recipe))
    else:
        refuse_to_choose_blindly(model, request.candidates)
    refuse_windows_that_cannot_be_joined(model, recipe)
    refuse_what_does_not_fit(model, recipe, whole)
    return recipe


def refuse_windows_that_cannot_be_joined(model: Model, recipe: Recipe) -> None:
    """Raise InputError for a clip of several windows by a model that cannot know the end of the one before."""
    if windows_of(model, recipe) > 1 and not sees_frames(model):
        longest = 1 + model.vae.strides[0] * (window(model) - 1)
        raise InputError(
            f"{model.card.name} makes clips of prompts alone, of at most {longest} frames; ask for {recipe.frames} "
            "of Wan's TI2V, I2V or VACE."
        )


def roll(
    model: Model, recipe: Recipe, on_step: OnStep | None = None, journal: Journal | None = None
) -> Sampled:
    """Latents of one clip of any length: `rolled`, joined."""
    pieces: list[Tensor] = []
    stopped: int | None = None
    try:
        for sampled in rolled(model, recipe, on_step, journal):
            pieces.append(sampled.latent_BCTHW)
            stopped = sampled.stopped
    except Interrupted as interrupt:
        pieces.append(interrupt.partial.latent_BCTHW)
        raise Interrupted(Sampled(torch.cat(pieces, dim=2), interrupt.partial.stopped)) from interrupt
    return Sampled(torch.cat(pieces, dim=2), stopped)


def rolled(
    model: Model, recipe: Recipe, on_step: OnStep | None = None, journal: Journal | None = None
) -> Iterator[Sampled]:
    """New latents of one window after another, at the size that the model draws; ends early when told to stop.

    A window knows the last latents of the one before; nothing is decoded and encoded again. With a journal,
    what is kept there is not made again. Raises Interrupted on Ctrl-C, for the window at work.
    """
    recipe = drafted(recipe)
    grid = grid_of(model, recipe)
    cut = spans(grid.frames, window(model))
    tail_BCTHW: Tensor | None = None  # as many latents as the next window may need to know
    for index, span in enumerate(cut):
        name = f"window-{index:04d}"
        known = 0 if tail_BCTHW is None else cut[index - 1].stop - span.start
        kept = journal.read(name) if journal is not None and journal.found else None
        if kept is not None:
            sampled = Sampled(kept.to(model.vae.latent_mean.device), None)
        else:
            part = part_of(recipe, span, known, grid)
            condition = conditions.of_recipe(model.vae, part, grid_of(model, part))
            if tail_BCTHW is not None:
                condition = following(condition, tail_BCTHW[:, :, -known:], HISTORY_NOISE)
            remember = None if journal is None else partial(journal.remembered, name)
            report = counted(on_step, index, len(cut))
            try:
                sampled = sample(model, [part], report, condition, None, span.start, remember)
            except Interrupted as interrupt:
                raise Interrupted(_new(interrupt.partial, known, index * recipe.steps)) from interrupt
            sampled = _new(sampled, known, index * recipe.steps)
            if journal is not None and sampled.stopped is None:
                journal.settle(name, sampled.latent_BCTHW)
        yield sampled
        if sampled.stopped is not None:
            return
        earlier = [] if tail_BCTHW is None else [tail_BCTHW]
        tail_BCTHW = torch.cat([*earlier, sampled.latent_BCTHW], dim=2)[:, :, -window(model) :]


def _new(sampled: Sampled, known: int, steps_before: int) -> Sampled:
    """What a window adds to the clip."""
    stopped = None if sampled.stopped is None else sampled.stopped + steps_before
    return Sampled(sampled.latent_BCTHW[:, :, known:].clone(), stopped)


def record(model: Model, recipe: Recipe) -> dict[str, Any]:
    """What a file must tell to be made again: the recipe, the weights, and what the last bits depend on."""
    rounded = {} if model.weights == "exact" else {"weights": model.weights}
    return {
        "mutoscope": __version__,
        "model": {"name": model.card.name, "sha256": model.card.sha256, **rounded},
        "machine": {
            "torch": torch.__version__,
            "device": str(model.vae.latent_mean.device),
            "threads": torch.get_num_threads(),
            "platform": platform.machine(),
            **({"compiled": True} if model.compiled else {}),
        },
        "recipe": to_dict(recipe),
    }


def save(
    model: Model,
    recipe: Recipe,
    path: Path,
    on_step: OnStep | None = None,
    on_frames: OnFrames | None = None,
    journal: Journal | None = None,
    growing: bool = False,
) -> Recipe:
    """Make a clip straight into a file, decoded and encoded piece by piece; the recipe goes inside.

    On Ctrl-C after the first step the clip as estimated so far is written. Returns the recipe with `stopped`
    set in that case. `on_frames` is called with the frames written and those in all. `growing` writes each
    window as soon as it is made, into a file that plays meanwhile (the recipe inside then never says
    `stopped`). Raises KeyboardInterrupt when there is nothing to keep.
    """
    stopped: int | None = None

    def latents() -> Iterator[Tensor]:
        nonlocal stopped
        try:
            for sampled in rolled(model, recipe, on_step, journal):
                stopped = sampled.stopped
                yield sampled.latent_BCTHW[0]
        except Interrupted as interrupt:
            stopped = interrupt.partial.stopped
            yield interrupt.partial.latent_BCTHW[0]

    if path.suffix.lower() not in STREAMS:
        roll_of = list(latents())
        made = replace(recipe, stopped=stopped)
        _video(model, made, roll_of).save(path)
        return made
    pieces: Iterable[Tensor] = latents() if growing else list(latents())
    inside = record(model, replace(recipe, stopped=stopped))
    with VideoWriter(path, recipe.width, recipe.height, recipe.fps, inside, growing=growing) as writer:
        for frames_THWC in frames_of(model, recipe, pieces):
            writer.write(frames_THWC)
            if on_frames is not None:
                on_frames(writer.frames, recipe.frames)
    return replace(recipe, stopped=stopped)


def frames_of(model: Model, recipe: Recipe, latents: Iterable[Tensor]) -> Iterator[np.ndarray]:
    """Frames (uint8 THWC) of the clip's size from latents (CTHW) of the size at which they were drawn."""
    stream = decode_stream if recipe.draft is None else enlarge
    return stream(model, recipe, latents)


def _video(model: Model, recipe: Recipe, latents: Iterable[Tensor]) -> Video:
    frames_THWC = np.concatenate(list(frames_of(model, recipe, latents)))
    return Video(frames_THWC, recipe.fps, record(model, recipe))
