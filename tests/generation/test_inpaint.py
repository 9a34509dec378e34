"""Masks: what is black stays bit for bit, what is white is made to the prompt, what does not fit is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.generation.continuations import inpaint, restyle
from mutoscope.generation.inpaint import composite, latent_mask
from mutoscope.generation.request import Grid, Request, fill
from mutoscope.video import Video, read_video, write_video
from mutoscope.weights.card import Defaults
from mutoscope.weights.store import Model, load

ASKED = Request("a ball", seed=3, steps=2)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames_THWC = np.random.default_rng(0).integers(60, 200, (9, 4, 5, 3), np.uint8)
    return write_video(tmp_path / "clip.mp4", Video(frames_THWC.repeat(8, 1).repeat(8, 2)[:, :32, :40], 8.0))


def write_mask(path: Path, mask_THW: np.ndarray) -> Path:
    return write_video(path, Video(np.repeat(mask_THW[..., None], 3, axis=3), 8.0))


def test_black_stays_bit_for_bit_and_white_is_made(model: Model, clip: Path, tmp_path: Path) -> None:
    mask_THW = np.zeros((1, 32, 40), np.uint8)
    mask_THW[:, 5:20, 10:30] = 255
    video = inpaint(model, clip, ASKED, write_mask(tmp_path / "mask.png", mask_THW))
    source_THWC = read_video(clip).frames_THWC
    changed = (video.frames_THWC != source_THWC).any(axis=3)
    assert not (changed & (mask_THW == 0)).any()
    assert changed[:, 5:20, 10:30].mean() > 0.9
    assert video.recipe is not None
    assert video.recipe["recipe"]["task"]["mask"].endswith("mask.png")


def test_a_mask_may_move(model: Model, clip: Path, tmp_path: Path) -> None:
    mask_THW = np.zeros((9, 32, 40), np.uint8)
    mask_THW[5:, :, 16:] = 255
    video = inpaint(model, clip, ASKED, write_mask(tmp_path / "mask.gif", mask_THW))
    source_THWC = read_video(clip).frames_THWC
    assert np.array_equal(video.frames_THWC[:5], source_THWC[:5])
    assert np.array_equal(video.frames_THWC[5:, :, :16], source_THWC[5:, :, :16])
    assert (video.frames_THWC[5:, :, 16:] != source_THWC[5:, :, 16:]).any(axis=3).mean() > 0.9


def test_latents_are_redrawn_where_any_pixel_is(model: Model) -> None:
    recipe = fill(Request(width=16, height=16, frames=5, seed=0), Defaults())
    mask_THW = np.zeros((5, 16, 16), np.uint8)
    mask_THW[3, 9, 2] = 255
    redraw_BTHW = latent_mask(mask_THW, recipe, Grid(2, 2, 2, (4, 8, 8)))
    assert torch.nonzero(redraw_BTHW).tolist() == [[0, 1, 1, 0]]


def test_grey_mixes() -> None:
    clip_THWC, made_THWC = np.full((1, 1, 3, 3), 100, np.uint8), np.full((1, 1, 3, 3), 200, np.uint8)
    mixed_THWC = composite(clip_THWC, made_THWC, np.array([[[0, 51, 255]]], np.uint8))
    assert mixed_THWC[0, 0, :, 0].tolist() == [100, 120, 200]


def test_masks_that_do_not_fit(model: Model, clip: Path, tmp_path: Path) -> None:
    white = np.full((1, 32, 40), 255, np.uint8)
    with pytest.raises(InputError, match=r"is 32x32 and the clip 40x32; draw the mask"):
        inpaint(model, clip, ASKED, write_mask(tmp_path / "small.png", white[:, :, :32]))
    with pytest.raises(InputError, match="has 4 frames and the clip 9"):
        inpaint(model, clip, ASKED, write_mask(tmp_path / "short.mp4", white.repeat(4, 0)))
    with pytest.raises(InputError, match="black everywhere"):
        inpaint(model, clip, ASKED, write_mask(tmp_path / "black.png", 0 * white))


def test_a_restyled_clip_keeps_its_own_words(model: Model, clip: Path, tmp_path: Path) -> None:
    own = Video(read_video(clip).frames_THWC, 8.0, {"recipe": {"prompt": "a green box."}})
    video = restyle(model, own.save(tmp_path / "own.mp4"), Request("neon", seed=1, steps=2))
    assert video.recipe is not None
    assert video.recipe["recipe"]["prompt"] == "a green box, neon"
    assert video.frames_THWC.shape == (9, 32, 40, 3)
