"""From an order to the files of a video: the clip, its thumbnail, its sprite sheet and its recipe."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from torch import Tensor

from mutoscope.config import from_dict, to_dict, write_json
from mutoscope.diffusion.sampler import StepInfo
from mutoscope.errors import InputError
from mutoscope.generation import continuations
from mutoscope.generation.cards import Storyboard
from mutoscope.generation.characters import told
from mutoscope.generation.choice import after_trials, choose
from mutoscope.generation.description import described
from mutoscope.generation.finish import finished
from mutoscope.generation.generate import frames_of, record, resolve, roll
from mutoscope.generation.journal import Journal
from mutoscope.generation.reproduce import beside, keep_open
from mutoscope.generation.request import Recipe, Request, Task, file_sha256, parse_interval
from mutoscope.generation.storyboard import make_storyboard
from mutoscope.serving.orders import Order
from mutoscope.serving.sheet import Sheet
from mutoscope.video import Video, VideoWriter, read_video, write_video
from mutoscope.watermark import can_carry
from mutoscope.weights.store import Model

SAMPLING = 90
"""Percent of the progress that the sampler's steps take; decoding and writing take the rest."""

SHORTEST_LOOP = 5
"""Frames that must be there before a clip can be led back to its start."""

OnProgress = Callable[[int, Tensor | None], bool]
"""Called with percent and, while sampling, the clean latents foreseen; False stops the job."""


class Stopped(Exception):
    """The job was cancelled, taken over or given back."""


def make(
    model: Model, order: Order, inputs: Path, folder: Path, on_progress: OnProgress, journal: Journal
) -> None:
    """Write video.mp4, thumbnail.webp, spritesheet.jpg and recipe.json into `folder`.

    `inputs` is the folder of the pictures and the clip that the order builds on. What the model said is kept in
    the journal as it comes; a later attempt goes on from there, to the same bytes. Raises Stopped when
    `on_progress` says so, InputError for what the model cannot make, FloatingPointError when it makes values
    that are not numbers.
    """
    made = _made(model, order, inputs, on_progress, journal)
    path, inside = folder / "video.mp4", _record(model, order, made)
    frames = finished(made.pieces, (order.width, order.height), order.fps, inside)
    sheet = Sheet(order.all_frames)
    with VideoWriter(path, order.width, order.height, order.fps, inside) as writer:
        for frames_THWC in frames:
            writer.write(frames_THWC)
            sheet.add(frames_THWC)
            share = (100 - SAMPLING) * writer.frames // max(1, order.all_frames)
            if not on_progress(min(99, SAMPLING + share), None):
                raise Stopped
    write_video(folder / "thumbnail.webp", Video(sheet.thumbnail()[None], order.fps))
    write_video(folder / "spritesheet.jpg", Video(sheet.picture()[None], order.fps))
    write_json(
        folder / "recipe.json",
        {
            "sha256": file_sha256(path),
            "source": order.source or None,
            "order": to_dict(replace(order, inputs="")),
            **inside,
        },
    )


@dataclass(frozen=True)
class Made:
    """What an order comes to: its recipe, its frames a few at a time, and of a loop what was closed."""

    recipe: Recipe
    pieces: Iterable[np.ndarray]
    opened: Recipe | None = None


def _made(model: Model, order: Order, inputs: Path, on_progress: OnProgress, journal: Journal) -> Made:
    if order.task == "extend":
        return _extended(model, order, inputs / "video.mp4", on_progress)
    if order.strength is not None:
        task = _task("edit", inputs / "video.mp4", strength=order.strength)
        recipe = continuations.settle(model, _request(order, None), task)
        return Made(recipe, [_carried_out(model, recipe, _steps(on_progress)).frames_THWC])
    if order.storyboard:
        return _from_cards(model, order, inputs, on_progress, journal)
    pictures = [inputs / f"character-{index}.png" for index in range(len(order.characters))]
    if model.narrator is not None and pictures:
        looks = [described(model, picture) for picture in pictures]
        order = replace(
            order,
            expanded=told(order.expanded or order.prompt, dict(zip(order.characters, looks, strict=True))),
        )
    if order.loop:
        return _closed(model, order, inputs, on_progress, journal)
    return _drawn(model, order, inputs, on_progress, journal)


def _drawn(model: Model, order: Order, inputs: Path, on_progress: OnProgress, journal: Journal) -> Made:
    """A new clip of words and pictures; the picture of the only character, beside a last one, is the first."""
    character = inputs / "character-0.png" if len(order.characters) == 1 else None
    first = inputs / "first.png" if order.first_picture else character if order.last_picture else None
    request = replace(
        _request(order, order.frames),
        image=first,
        last_image=inputs / "last.png" if order.last_picture else None,
        character=None if first else character,
    )
    (recipe,) = choose(model, [resolve(model, request, whole=False)], _steps(on_progress))
    sampled = roll(model, recipe, after_trials(_steps(on_progress), recipe), journal)
    journal.flush()
    if sampled.stopped is not None:
        raise Stopped
    return Made(recipe, frames_of(model, recipe, [sampled.latent_BCTHW[0]]))


def _from_cards(model: Model, order: Order, inputs: Path, on_progress: OnProgress, journal: Journal) -> Made:
    """A storyboard, shot after shot; shots that an earlier attempt finished are not made again."""
    recipe = resolve(model, _request(order, order.frames))
    done, count = 0, 1

    def tell(shot: int, shots: int, is_there: bool) -> None:
        nonlocal done, count
        done, count = shot - 1, shots

    def on_step(info: StepInfo) -> bool:
        return on_progress(int(SAMPLING * (done + info.step / info.steps) / count), info.x0)

    try:
        video = make_storyboard(model, _board(order, inputs), journal.folder / "shots", on_step, tell)
    except KeyboardInterrupt as interrupt:
        raise Stopped from interrupt
    return Made(recipe, [video.frames_THWC])


def _storyboard(order: Order) -> Storyboard:
    return from_dict(Storyboard, json.loads(order.storyboard), "the storyboard")


def _board(order: Order, inputs: Path) -> Storyboard:
    """The storyboard of an order, its files in the folder of its inputs."""
    board = _storyboard(order)
    cards = tuple(
        replace(
            card,
            image=card.image and str(inputs / card.image),
            clip=card.clip and str(inputs / card.clip),
        )
        for card in board.cards
    )
    return replace(board, cards=cards)


def _extended(model: Model, order: Order, clip: Path, on_progress: OnProgress) -> Made:
    """The source's own frames, and what follows them, precedes them or leads from their end to their start."""
    source_THWC = read_video(clip).frames_THWC
    if len(source_THWC) != order.source_frames:
        raise InputError(
            f"The video to be extended has {len(source_THWC)} frames, not {order.source_frames}; "
            "extend another one."
        )
    backward = order.backward and not order.loop
    task = _task("loop" if order.loop else "extend", clip, backward=backward)
    recipe = continuations.settle(model, _request(order, order.frames), task)
    made_THWC = _carried_out(model, recipe, _steps(on_progress)).frames_THWC
    return Made(recipe, beside(source_THWC, made_THWC, backward))


def _closed(model: Model, order: Order, inputs: Path, on_progress: OnProgress, journal: Journal) -> Made:
    """A new clip whose last quarter leads back to its start; drawn first, then closed."""
    stride = model.vae.strides[0]
    bridge = stride * max(1, order.frames // (4 * stride)) - 1  # of whole latent frames, with the first again
    opened = replace(order, frames=order.frames - bridge, loop=False)
    if opened.frames < SHORTEST_LOOP:
        raise InputError(
            f"A loop of {order.frames} frames is too short; ask for {SHORTEST_LOOP + bridge} or more."
        )
    with TemporaryDirectory() as folder:
        clip = Path(folder) / "open.mp4"
        made = _drawn(model, opened, inputs, _part(on_progress, 0.0, 0.5), journal)
        keep_open(clip, made.recipe, made.pieces)
        task = _task("loop", clip)
        recipe = continuations.settle(model, _request(order, bridge), task)
        closed = _carried_out(model, recipe, _steps(_part(on_progress, 0.5, 1.0)))
        return Made(recipe, [closed.frames_THWC], made.recipe)


def _request(order: Order, frames: int | None) -> Request:
    return Request(
        prompt=order.prompt,
        width=order.drawn_width,
        height=order.drawn_height,
        frames=frames,
        fps=order.fps,
        steps=order.steps,
        guidance=order.guidance,
        sampler=order.sampler,
        seed=order.seed,
        negative=order.negative,
        expanded=order.expanded or None,
        guidance_kind=order.guidance_kind,  # type: ignore[arg-type]  # Request checks the word
        guidance_interval=parse_interval(order.guidance_interval),
        guidance_rescale=order.guidance_rescale,
        step_cache=order.step_cache,
    )


def _task(verb: Literal["extend", "edit", "loop"], clip: Path, **rest: Any) -> Task:
    return Task(verb, str(clip), file_sha256(clip), **rest)


def _carried_out(model: Model, recipe: Recipe, on_step: Callable[[StepInfo], bool]) -> Video:
    try:
        return continuations.carry_out(model, recipe, on_step)
    except KeyboardInterrupt as interrupt:  # its word for a step that said no
        raise Stopped from interrupt


def _steps(on_progress: OnProgress) -> Callable[[StepInfo], bool]:
    return lambda info: on_progress(SAMPLING * info.step // info.steps, info.x0)


def _part(on_progress: OnProgress, start: float, stop: float) -> OnProgress:
    """Progress of one of several parts, as progress of the whole."""
    return lambda percent, x0: on_progress(round(100 * start + (stop - start) * percent), x0)


def _record(model: Model, order: Order, made: Made) -> dict[str, Any]:
    """The recipe inside the file: that of `mutoscope generate`, and what the server did beyond it."""
    told = record(model, _public(made.recipe))
    if order.storyboard:
        told["storyboard"] = to_dict(_storyboard(order))
    served: dict[str, Any] = {"marked": True} if can_carry(order.width, order.height) else {}
    if order.size != made.recipe.size:
        served["upscaled_to"] = order.size
    if made.opened is not None:
        served["opened"] = to_dict(_public(made.opened))
    return {**told, "served": served | lineage(order)}


def lineage(order: Order) -> dict[str, Any]:
    """What a record tells of the clip that an order builds on."""
    told: dict[str, Any] = {}
    if order.source:
        words = {"remix": "remixed_from", "edit": "edited_from"}
        told[words.get(order.task, "extended_from")] = order.source
    if order.task == "extend":
        told["source_frames"] = order.source_frames
    return told


def _public(recipe: Recipe) -> Recipe:
    """The recipe without the places where this server keeps its files."""
    image, last_image = (path and Path(path).name for path in (recipe.image, recipe.last_image))
    references = tuple(replace(one, image=Path(one.image).name) for one in recipe.references)
    task = recipe.task and replace(recipe.task, clip=Path(recipe.task.clip).name)
    return replace(recipe, image=image, last_image=last_image, references=references, task=task)
