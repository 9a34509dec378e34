"""From an order to the files of a video: the clip, its thumbnail, its sprite sheet and its recipe."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mutoscope.config import to_dict, write_json
from mutoscope.diffusion.sampler import StepInfo
from mutoscope.errors import InputError
from mutoscope.generation import conditions
from mutoscope.generation.conditions import Condition, onto_grid
from mutoscope.generation.generate import Sampled, decode, grid_of, record, resolve, sample
from mutoscope.generation.preview import shrink
from mutoscope.generation.request import Recipe, Request, file_sha256
from mutoscope.serving.orders import Order
from mutoscope.video import Video, VideoWriter, fit, read_video, to_frames, to_tensor, write_video
from mutoscope.weights.store import Model

SAMPLING = 90
"""Percent of the progress that the sampler's steps take; decoding and writing take the rest."""

TAIL = 2
"""An extension knows the last 1 + 4 * TAIL frames of its source (fewer if it has fewer)."""

PIECE = 8_000_000
"""Pixels that are scaled and written at a time."""

SHEET = (4, 4)
"""Rows and columns of a sprite sheet."""

SMALL = 320
"""Longest side of a thumbnail and of a picture in the sprite sheet, in pixels."""

OnProgress = Callable[[int, Tensor | None], bool]
"""Called with percent and, while sampling, the clean latents foreseen; False stops the job."""


class Stopped(Exception):
    """The job was cancelled, taken over or given back."""


def make(model: Model, order: Order, inputs: Path, folder: Path, on_progress: OnProgress) -> None:
    """Write video.mp4, thumbnail.webp, spritesheet.jpg and recipe.json into `folder`.

    `inputs` is the folder of the pictures and the clip that the order builds on. Raises Stopped when
    `on_progress` says so, InputError for what the model cannot make, FloatingPointError when it makes values
    that are not numbers.
    """
    before = _source_frames(order, inputs)
    recipe, sampled, skip = _sample(model, order, inputs, before, _steps(on_progress))
    if sampled.stopped is not None:
        raise Stopped
    path = folder / "video.mp4"
    sheet = Sheet(order.all_frames)
    with VideoWriter(path, order.width, order.height, order.fps, _record(model, order, recipe)) as writer:
        for frames_THWC in _all_frames(model, order, recipe, sampled.latent_BCTHW[0], before, skip):
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
            **record(model, _public(recipe)),
        },
    )


def _steps(on_progress: OnProgress) -> Callable[[StepInfo], bool]:
    return lambda info: on_progress(SAMPLING * info.step // info.steps, info.x0)


def _sample(
    model: Model,
    order: Order,
    inputs: Path,
    before_THWC: np.ndarray | None,
    on_step: Callable[[StepInfo], bool],
) -> tuple[Recipe, Sampled, int]:
    """The recipe, its latents, and how many of its first frames are known already."""
    request = Request(
        prompt=order.prompt,
        width=order.drawn_width,
        height=order.drawn_height,
        frames=order.frames,
        fps=order.fps,
        steps=order.steps,
        guidance=order.guidance,
        sampler=order.sampler,
        seed=order.seed,
        negative=order.negative,
        image=inputs / "first.png" if order.first_picture else None,
        last_image=inputs / "last.png" if order.last_picture else None,
    )
    if before_THWC is None:
        recipe = resolve(model, request)
        return recipe, sample(model, [recipe], on_step), 0
    stride = model.vae.strides[0]
    known = 1 + stride * min(TAIL, (len(before_THWC) - 1) // stride)
    recipe = resolve(model, replace(request, frames=known + order.frames))
    with torch.inference_mode():
        condition = _tail(model, recipe, before_THWC[-known:])
    return recipe, sample(model, [recipe], on_step, condition), known


def _tail(model: Model, recipe: Recipe, tail_THWC: np.ndarray) -> Condition:
    """The condition of a clip whose first frames are known."""
    grid = grid_of(model, recipe)
    tail_BCTHW = onto_grid(to_tensor(tail_THWC)[None], recipe, grid)
    return conditions.frames(model.vae, grid, {0: tail_BCTHW})


def _all_frames(
    model: Model, order: Order, recipe: Recipe, latent_CTHW: Tensor, before: np.ndarray | None, skip: int
) -> Iterator[np.ndarray]:
    """Source frames, then the new ones, all of the ordered size, a few at a time."""
    if before is not None:
        yield from scaled(before, order.width, order.height)
    for frames_THWC in decode(model, recipe, latent_CTHW):
        yield from scaled(frames_THWC[skip:], order.width, order.height)
        skip = max(0, skip - len(frames_THWC))


def scaled(frames_THWC: np.ndarray, width: int, height: int) -> Iterator[np.ndarray]:
    """The frames scaled to cover the size, as many at a time as PIECE pixels hold."""
    step = max(1, PIECE // (width * height))
    for start in range(0, len(frames_THWC), step):
        piece_THWC = frames_THWC[start : start + step]
        if piece_THWC.shape[1:3] == (height, width):
            yield piece_THWC
        else:
            yield to_frames(fit(to_tensor(piece_THWC)[None], height, width)[0])


def _source_frames(order: Order, inputs: Path) -> np.ndarray | None:
    """The frames that an extension goes on from."""
    if order.task != "extend":
        return None
    frames_THWC = read_video(inputs / "video.mp4").frames_THWC
    if len(frames_THWC) != order.source_frames:
        raise InputError(
            f"The video to be extended has {len(frames_THWC)} frames, not {order.source_frames}; "
            "extend another one."
        )
    return frames_THWC


def _record(model: Model, order: Order, recipe: Recipe) -> dict[str, Any]:
    """The recipe inside the file: that of `mutoscope generate`, and what the server did beyond it."""
    made = record(model, _public(recipe))
    beyond: dict[str, Any] = {}
    if order.size != recipe.size:
        beyond["upscaled_to"] = order.size
    if order.source:
        beyond["remixed_from" if order.task == "remix" else "extended_from"] = order.source
    if order.task == "extend":
        beyond["source_frames"] = order.source_frames
    return {**made, "served": beyond} if beyond else made


def _public(recipe: Recipe) -> Recipe:
    """The recipe without the places where this server keeps its files."""
    image, last_image = (path and Path(path).name for path in (recipe.image, recipe.last_image))
    return replace(recipe, image=image, last_image=last_image)


class Sheet:
    """Keeps a few evenly spaced frames of a stream, made small."""

    def __init__(self, frames: int) -> None:
        rows, columns = SHEET
        count = min(frames, rows * columns)
        self.wanted = [index * (frames - 1) // max(1, count - 1) for index in range(count)]
        self.seen, self.kept = 0, list[np.ndarray]()

    def add(self, frames_THWC: np.ndarray) -> None:
        for frame_HWC in frames_THWC:
            if len(self.kept) < len(self.wanted) and self.seen == self.wanted[len(self.kept)]:
                self.kept.append(shrink(frame_HWC, SMALL, SMALL))
            self.seen += 1

    def thumbnail(self) -> np.ndarray:
        """The frame in the middle."""
        return self.kept[len(self.kept) // 2]

    def picture(self) -> np.ndarray:
        """All kept frames as one picture, row by row, at most SHEET of them; unused places are black."""
        columns = min(SHEET[1], len(self.kept))
        rows = -(-len(self.kept) // columns)
        height, width, _ = self.kept[0].shape
        sheet_HWC = np.zeros((rows * height, columns * width, 3), np.uint8)
        for index, frame_HWC in enumerate(self.kept):
            top, left = index // columns * height, index % columns * width
            sheet_HWC[top : top + height, left : left + width] = frame_HWC
        return sheet_HWC
