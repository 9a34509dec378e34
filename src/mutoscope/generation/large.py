"""Large clips from small ones: the draft is decoded and enlarged as it comes, in constant memory.

What decides this way is arithmetic. A minute of 1920x1080 at 8 frames a second has 121 x 240 x 135 latents,
about a million tokens. One pass of the smallest DiT over windows of 9 latent frames of them is 900 TFLOP, 98 %
of it attention; 30 steps with guidance are 54 PFLOP, three days of two cores at 200 GFLOP/s. The draft at
128x72 is 4,840 tokens: 8 TFLOP, less than a minute. It is decoded to pixels before it is enlarged, for latents
describe blocks of 8 x 8 pixels, and the same block stretched is not the block of a stretched picture.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mutoscope.generation.request import Recipe
from mutoscope.generation.sampling import decode_video
from mutoscope.video import fit, to_frames, to_tensor
from mutoscope.weights.store import Model

PIECE = 8_000_000
"""Pixels that are enlarged at a time."""


def drafted(recipe: Recipe) -> Recipe:
    """The recipe of the clip as the model draws it: at the size of the draft, if there is one."""
    if recipe.draft is None:
        return recipe
    return replace(recipe, width=recipe.draft[0], height=recipe.draft[1], draft=None)


def enlarge(model: Model, recipe: Recipe, latents: Iterable[Tensor]) -> Iterator[np.ndarray]:
    """Frames (uint8 THWC) of the clip's size from latents (CTHW) of its draft: bicubic, cropped to the shape.

    The picture is scaled before it is rounded to 8 bits, so that soft shades stay without steps.
    """
    few = max(1, PIECE // (recipe.width * recipe.height))
    for video_CTHW in decode_video(model, drafted(recipe), latents):
        for piece_CTHW in torch.split(video_CTHW, few, dim=1):
            with torch.inference_mode():
                large_BCTHW = fit(piece_CTHW[None].clamp(-1, 1), recipe.height, recipe.width)
                frames_THWC = to_frames(large_BCTHW[0])
            yield frames_THWC


def enlarge_frames(frames_THWC: np.ndarray, height: int, width: int) -> Iterator[np.ndarray]:
    """Frames (uint8 THWC) scaled to cover the size and cropped to it, a few at a time."""
    few = max(1, PIECE // (width * height))
    for start in range(0, len(frames_THWC), few):
        video_CTHW = to_tensor(frames_THWC[start : start + few])
        yield to_frames(fit(video_CTHW[None], height, width)[0])
