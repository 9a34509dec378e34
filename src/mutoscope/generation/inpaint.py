"""The mask of an inpainting: read, fitted to the clip, laid over its latents, and used to put two clips together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.generation.conditions import onto_grid
from mutoscope.generation.request import Grid, Recipe, file_sha256
from mutoscope.video import fit, fit_frames_rate, read_video, to_frames, to_tensor

BLACK = 12
"""Levels of 255 up to which a mask is black: files with losses do not hold an exact 0."""


def read_mask(recipe: Recipe, frames: int) -> np.ndarray:
    """The mask of a recipe at its clip's size and rate, uint8 (T, H, W), 0 where the clip stays.

    A picture holds for all `frames`; a clip has the length of the one it covers. Raises InputError for
    another size or length, for a mask that is black everywhere, and for a file that has changed.
    """
    task = recipe.task
    assert task is not None
    assert task.mask is not None
    if file_sha256(Path(task.mask)) != task.mask_sha256:
        raise InputError(
            f"The mask {task.mask!r} is not the one of the recipe; its sha256 should be {task.mask_sha256}."
        )
    mask, clip = read_video(task.mask), read_video(task.clip)
    if (mask.width, mask.height) != (clip.width, clip.height):
        raise InputError(
            f"The mask {task.mask} is {mask.width}x{mask.height} and the clip {clip.width}x{clip.height}; "
            "draw the mask at the size of the clip."
        )
    if mask.frames not in (1, clip.frames):
        raise InputError(
            f"The mask {task.mask} has {mask.frames} frames and the clip {clip.frames}; "
            "give one picture, or as many frames as the clip has."
        )
    mask = fit_frames_rate(replace(mask, fps=clip.fps), recipe.fps)
    levels_THWC = mask.frames_THWC
    if levels_THWC.shape[1:3] != (recipe.height, recipe.width):
        levels_THWC = to_frames(fit(to_tensor(levels_THWC)[None], recipe.height, recipe.width)[0])
    grey_THW = np.rint(levels_THWC.mean(axis=3)).astype(np.uint8)
    mask_THW = np.where(grey_THW > BLACK, grey_THW, 0).astype(np.uint8)
    if not mask_THW.any():
        raise InputError(f"The mask {task.mask} is black everywhere; paint white what is to be drawn anew.")
    return np.broadcast_to(mask_THW, (frames, *mask_THW.shape[1:])) if len(mask_THW) == 1 else mask_THW


def latent_mask(mask_THW: np.ndarray, recipe: Recipe, grid: Grid) -> Tensor:
    """Latent positions (1, T, H, W) that cover any pixel to be drawn anew; bool, on the CPU.

    Frames beyond the clip go with its last one.
    """
    colours_THWC = np.repeat(mask_THW[..., None], 3, axis=3)
    pixels_BCTHW = onto_grid(to_tensor(colours_THWC)[None], recipe, grid)[:, :1]
    frames, _, _ = grid.pixels
    time, rows, columns = grid.strides
    last_BCTHW = pixels_BCTHW[:, :, -1:].expand(-1, -1, max(0, frames - len(mask_THW)), -1, -1)
    first_BCTHW = pixels_BCTHW[:, :, :1].expand(-1, -1, time - 1, -1, -1)
    whole_BCTHW = torch.cat([first_BCTHW, pixels_BCTHW, last_BCTHW], dim=2)
    most_BCTHW = torch.nn.functional.max_pool3d(whole_BCTHW, (time, rows, columns))
    redraw_BTHW: Tensor = most_BCTHW[:, 0] > 2 * BLACK / 255 - 1
    return redraw_BTHW


def composite(clip_THWC: np.ndarray, made_THWC: np.ndarray, mask_THW: np.ndarray) -> np.ndarray:
    """The clip where the mask is 0, what was made where it is 255, a mixture between; uint8 (T, H, W, 3)."""
    share_THW1 = mask_THW[..., None].astype(np.float32) / 255
    mixed_THWC = clip_THWC + share_THW1 * (made_THWC.astype(np.float32) - clip_THWC)
    levels_THWC: np.ndarray = np.rint(mixed_THWC).astype(np.uint8)
    return levels_THWC
