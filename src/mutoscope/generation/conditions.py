"""What is known of a clip before it is made: some latent frames, given clean, beside those to be found.

Every task is a Condition. The model was trained with known frames at timestep 0 among noisy ones, so a task
needs no code of its own in the sampler: text knows nothing, a picture knows the first latent frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.generation.request import Grid, KeyFrame, Recipe, file_sha256
from mutoscope.models.vae import VAE
from mutoscope.video import fit, leader, read_video, to_tensor


@dataclass(frozen=True)
class Condition:
    """Known latent frames: `latent_BCTHW` holds them where `mask_BT` is true, zeros elsewhere.

    `reference_BCTHW` is for models that look at a picture without taking it as a frame; None for most. The
    model sees known frames at the noise level `sigma`, in [0, 1), and gives them back clean. `redraw_BTHW`,
    when given, is false where `latent_BCTHW` stays in the other frames too: at every step the clean latents
    take the place of the estimate there, which keeps those places on their way from noise to the clip
    (blended latent diffusion, Avrahami et al. 2023, for samplers without fresh noise).
    """

    latent_BCTHW: Tensor
    mask_BT: Tensor
    reference_BCTHW: Tensor | None = None
    sigma: float = 0.0
    redraw_BTHW: Tensor | None = None

    @property
    def unknown(self) -> Tensor:
        """Where the clip is to be made: bool, broadcasts over BCTHW."""
        unknown_B1T11 = ~self.mask_BT[:, None, :, None, None]
        return unknown_B1T11 if self.redraw_BTHW is None else unknown_B1T11 & self.redraw_BTHW[:, None]


def text(vae: VAE, grid: Grid) -> Condition:
    """Nothing is known: the prompt alone decides."""
    like = vae.latent_mean
    latent_BCTHW = like.new_zeros(1, vae.latent_channels, grid.frames, grid.height, grid.width)
    return Condition(latent_BCTHW, torch.zeros(1, grid.frames, dtype=torch.bool, device=like.device))


def frames(vae: VAE, grid: Grid, known: Mapping[int, Tensor]) -> Condition:
    """Pictures and clips at given places.

    `known` maps the latent frame where a piece begins (negative: counted from the end) to `video_BCTHW` in
    [-1, 1] of the grid's size. At 0 a piece has 1 + 4k frames; elsewhere 4k, or 1 + 4k with the frame before them,
    or a single one that is held for 4.
    Raises InputError when a piece does not fit into the clip.
    """
    condition = text(vae, grid)
    for place, video_BCTHW in known.items():
        start = place + grid.frames if place < 0 else place
        piece_BCTHW = _latent_piece(vae, video_BCTHW, first=start == 0)
        stop = start + piece_BCTHW.shape[2]
        if start < 0 or stop > grid.frames:
            raise InputError(
                f"Known frames at latent frames {start} to {stop - 1} do not fit into a clip of "
                f"{grid.frames}; make the clip longer."
            )
        condition.latent_BCTHW[:, :, start:stop] = piece_BCTHW
        condition.mask_BT[:, start:stop] = True
    return condition


def of_recipe(vae: VAE, recipe: Recipe, grid: Grid) -> Condition:
    """The condition of one recipe: its image as the first frame, its last image as the last, those between, its lead.

    A picture of any shape is scaled to cover the clip's size and cropped to its middle. A key frame is held
    for the 4 frames of the latent frame that holds its time. Raises InputError for files that are not what the
    recipe's sha256 says, for key frames outside the clip or too close, and when nothing is left to make.
    """
    known: dict[int, Tensor] = {}
    if recipe.lead:
        known[0] = lead(recipe, grid)
    if recipe.image is not None:
        known[0] = picture(recipe.image, recipe.image_sha256, recipe, grid)
    if recipe.last_image is not None:
        known[-1] = picture(recipe.last_image, recipe.last_image_sha256, recipe, grid)
    for frame in recipe.at:
        place = key_place(recipe, frame, grid)
        if place in known or place - grid.frames in known:
            raise InputError(
                f"The key frame at {frame.seconds:g} s falls on another picture; leave {grid.strides[0]} frames "
                f"({grid.strides[0] / recipe.fps:g} s) between two."
            )
        known[place] = picture(frame.image, frame.sha256, recipe, grid)
    if len(known) >= grid.frames:
        raise InputError(
            f"A clip of {recipe.frames} frames has no room beside its known frames; ask for at least "
            f"{1 + len(known) * grid.strides[0]} frames."
        )
    return frames(vae, grid, known)


def key_place(recipe: Recipe, frame: KeyFrame, grid: Grid) -> int:
    """The latent frame of a key frame. Raises InputError for a time outside the clip."""
    index = round(frame.seconds * recipe.fps)
    if index >= recipe.frames:
        raise InputError(
            f"The key frame at {frame.seconds:g} s is outside the clip of {recipe.seconds:g} s; "
            "choose an earlier time or a longer clip."
        )
    return -(-(recipe.lead + index) // grid.strides[0])


def lead(recipe: Recipe, grid: Grid) -> Tensor:
    """What is shown before the clip of a recipe with a reference: its picture, held, as a `leader`."""
    (reference,), stride = recipe.references, grid.strides[0]
    held = 1 + stride * ((recipe.lead - 1) // stride - 1)
    still_BCTHW = picture(reference.image, reference.sha256, recipe, grid)
    return leader(still_BCTHW.expand(-1, -1, held, -1, -1), stride)


def together(conditions: Sequence[Condition]) -> Condition:
    """Several conditions of one grid as a batch (without references)."""
    latent_BCTHW = torch.cat([condition.latent_BCTHW for condition in conditions])
    return Condition(latent_BCTHW, torch.cat([condition.mask_BT for condition in conditions]))


def margins(recipe: Recipe, grid: Grid) -> tuple[int, int]:
    """Rows above and columns left of the clip inside its grid: the crop is centred, as positions are."""
    _, rows, columns = grid.pixels
    return (rows - recipe.height) // 2, (columns - recipe.width) // 2


def onto_grid(video_BCTHW: Tensor, recipe: Recipe, grid: Grid) -> Tensor:
    """Scaled to cover the clip's size and cropped to it, its border then repeated out to the grid."""
    fitted_BCTHW = fit(video_BCTHW, recipe.height, recipe.width)
    top, left = margins(recipe, grid)
    _, rows, columns = grid.pixels
    sides = (left, columns - recipe.width - left, top, rows - recipe.height - top, 0, 0)
    return torch.nn.functional.pad(fitted_BCTHW, sides, mode="replicate")


def _latent_piece(vae: VAE, video_BCTHW: Tensor, first: bool) -> Tensor:
    """Latent frames of a piece; one that is not the beginning is led in by the frame before it, or a still, dropped."""
    video_BCTHW = video_BCTHW.to(vae.latent_mean)
    if first:
        return vae.encode(video_BCTHW)
    if video_BCTHW.shape[2] == 1:
        video_BCTHW = video_BCTHW.expand(-1, -1, vae.strides[0], -1, -1)
    if video_BCTHW.shape[2] % vae.strides[0] == 0:
        video_BCTHW = torch.cat([video_BCTHW[:, :, :1], video_BCTHW], dim=2)
    return vae.encode(video_BCTHW)[:, :, 1:]


def picture(path: str, sha256: str | None, recipe: Recipe, grid: Grid) -> Tensor:
    """The first frame of a file, fitted to the clip."""
    return onto_grid(still(path, sha256)[:, :, None], recipe, grid)


def still(path: str, sha256: str | None) -> Tensor:
    """The first frame of a file as it is, (1, 3, H, W) in [-1, 1]. Raises InputError when it is not the recipe's."""
    if sha256 is not None and file_sha256(Path(path)) != sha256:
        raise InputError(f"The picture {path!r} is not the one of the recipe; its sha256 should be {sha256}.")
    return to_tensor(read_video(Path(path)).frames_THWC[:1])[None, :, 0]
