"""Known frames: where they stand, that they survive sampling, and what cannot be known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.generation import conditions
from mutoscope.generation.generate import generate, grid_of, resolve, sample
from mutoscope.generation.request import Grid, KeyFrame, Request, parse_at
from mutoscope.video import Video, write_video
from mutoscope.weights.store import Model, load

GRID = Grid(5, 8, 8, (4, 8, 8))


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels_HWC = np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)
    return write_video(tmp_path / "picture.png", Video(pixels_HWC[None], 8.0))


def noise_video(frames: int) -> torch.Tensor:
    return torch.rand(1, 3, frames, 64, 64, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def test_text_knows_nothing(model: Model) -> None:
    condition = conditions.text(model.vae, GRID)
    assert condition.latent_BCTHW.shape == (1, 16, 5, 8, 8)
    assert not condition.mask_BT.any()


@torch.inference_mode()
def test_pieces_stand_where_they_were_put(model: Model) -> None:
    first, middle, last = noise_video(5), noise_video(4), noise_video(1)
    condition = conditions.frames(model.vae, GRID, {0: first, 2: middle, -1: last})
    assert condition.mask_BT.tolist() == [[True, True, True, False, True]]
    assert torch.equal(condition.latent_BCTHW[:, :, :2], model.vae.encode(first))
    assert not condition.latent_BCTHW[:, :, 3].any()
    still = model.vae.encode(last.expand(-1, -1, 5, -1, -1))
    assert torch.equal(condition.latent_BCTHW[:, :, 4], still[:, :, 1])


@pytest.mark.parametrize("known", [{4: 8}, {-6: 1}, {0: 21}])
def test_pieces_that_do_not_fit(model: Model, known: dict[int, int]) -> None:
    with pytest.raises(InputError, match="do not fit into a clip of 5"):
        conditions.frames(model.vae, GRID, {at: noise_video(count) for at, count in known.items()})


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_3m", "unipc"])
def test_known_frames_come_out_of_the_sampler_unchanged(model: Model, picture: Path, sampler: str) -> None:
    recipe = resolve(
        model, Request("a ball", seed=1, image=picture, last_image=picture, frames=17, sampler=sampler)
    )
    condition = conditions.of_recipe(model.vae, recipe, grid_of(model, recipe))
    latent_BCTHW = sample(model, [recipe]).latent_BCTHW
    torch.testing.assert_close(latent_BCTHW[:, :, [0, -1]], condition.latent_BCTHW[:, :, [0, -1]])


def test_a_picture_changes_the_frames_that_are_not_known(model: Model, picture: Path) -> None:
    """The model sees the clean frame: with its influence removed, the others would be those of the text."""
    asked = Request("a ball", seed=1, frames=9)
    without, with_picture = (
        sample(model, [resolve(model, r)]) for r in (asked, replace(asked, image=picture))
    )
    assert not torch.allclose(without.latent_BCTHW[:, :, 1:], with_picture.latent_BCTHW[:, :, 1:], atol=1e-3)


def test_sizes_off_the_grid_keep_the_picture_in_the_middle(model: Model, picture: Path) -> None:
    video = generate(model, Request("a ball", width=50, height=37, frames=9, seed=1, image=picture))
    assert video.frames_THWC.shape == (9, 37, 50, 3)
    recipe = resolve(model, Request("a ball", width=50, height=37, frames=9))
    assert conditions.margins(recipe, grid_of(model, recipe)) == (5, 7)


def test_a_clip_with_nothing_left_to_make(model: Model, picture: Path) -> None:
    with pytest.raises(InputError, match="at least 9 frames"):
        generate(model, Request("a ball", frames=5, image=picture, last_image=picture))
    with pytest.raises(InputError, match="at least 5 frames"):
        generate(model, Request("a ball", frames=1, image=picture))


def test_a_file_that_changed_since_the_recipe_was_written(model: Model, picture: Path) -> None:
    recipe = resolve(model, Request("a ball", image=picture))
    write_video(picture, Video(np.zeros((1, 8, 8, 3), np.uint8), 8.0))
    with pytest.raises(InputError, match=r"picture\.png.*sha256"):
        sample(model, [recipe])


def test_a_picture_that_is_none(model: Model, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png"):
        generate(model, Request("a ball", image=tmp_path / "text.png"))


def test_conditions_join_into_a_batch(model: Model) -> None:
    none, some = conditions.text(model.vae, GRID), conditions.frames(model.vae, GRID, {0: noise_video(1)})
    both = conditions.together([none, some])
    assert both.mask_BT.any(1).tolist() == [False, True]


@torch.inference_mode()
def test_key_frames_stand_at_their_times(model: Model, picture: Path) -> None:
    at = (parse_at(f"1.5s={picture}"), parse_at(f"0={picture}"))
    recipe = resolve(model, Request("a ball", frames=17, fps=8.0, seed=1, at=at))
    condition = conditions.of_recipe(model.vae, recipe, grid_of(model, recipe))
    assert condition.mask_BT.tolist() == [[True, False, False, True, False]]
    latent_BCTHW = sample(model, [recipe]).latent_BCTHW
    torch.testing.assert_close(latent_BCTHW[:, :, 3], condition.latent_BCTHW[:, :, 3])


def test_key_frames_that_cannot_stand(model: Model, picture: Path, tmp_path: Path) -> None:
    def make(*at: str) -> None:
        frames = tuple(parse_at(text) for text in at)
        generate(model, Request("a ball", frames=9, fps=8.0, seed=1, at=frames))

    with pytest.raises(InputError, match=r"at 1\.2 s is outside the clip of 1\.125 s"):
        make(f"1.2s={picture}")
    with pytest.raises(InputError, match=r"falls on another picture; leave 4 frames \(0\.5 s\)"):
        make(f"0.3s={picture}", f"0.4s={picture}")
    with pytest.raises(InputError, match="check the name"):
        make(f"0.5s={tmp_path / 'none.png'}")
    with pytest.raises(InputError, match=r"not TIME=FILE"):
        make("soon=a.png")
    with pytest.raises(InputError, match=r"a time is 0 s or later"):
        KeyFrame(-1, str(picture))
