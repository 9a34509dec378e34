"""A draft is enlarged as a whole picture would be, in pieces, cropped to the shape that was asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import reduce

from mutoscope.errors import InputError
from mutoscope.generation import large
from mutoscope.generation.generate import generate, resolve, roll, save
from mutoscope.generation.large import drafted, enlarge
from mutoscope.generation.plan import plan
from mutoscope.generation.request import Request
from mutoscope.video import fit, read_recipe, read_video, to_frames
from mutoscope.weights.store import Model, load

BALL = Request("a red ball rolls", seed=3, width=160, height=90, draft=(32, 18), steps=2, frames=30)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


def test_the_composition_is_that_of_the_draft(model: Model) -> None:
    small = generate(model, replace(BALL, width=32, height=18, draft=None))
    big = generate(model, BALL)
    assert big.frames_THWC.shape == (30, 90, 160, 3)
    shrunk = fit(torch.from_numpy(big.frames_THWC).permute(3, 0, 1, 2)[None] / 127.5 - 1, 18, 32)
    assert np.corrcoef(to_frames(shrunk[0]).ravel(), small.frames_THWC.ravel())[0, 1] > 0.95


def test_pieces_are_the_whole(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = resolve(model, BALL)
    latent_CTHW = roll(model, recipe).latent_BCTHW[0]
    whole = np.concatenate(list(enlarge(model, recipe, [latent_CTHW])))
    monkeypatch.setattr(large, "PIECE", 3 * 160 * 90)
    pieces = list(enlarge(model, recipe, torch.split(latent_CTHW, 2, dim=1)))
    assert max(map(len, pieces)) <= 3
    assert np.abs(np.concatenate(pieces).astype(int) - whole).max() <= 1


def test_another_shape_is_cropped(model: Model) -> None:
    video = generate(model, replace(BALL, width=90, height=160, frames=5))
    assert video.frames_THWC.shape == (5, 160, 90, 3)


def test_the_recipe_tells_the_draft_and_costs_follow_it(model: Model, tmp_path: Path) -> None:
    recipe = resolve(model, BALL)
    save(model, recipe, tmp_path / "a.mp4")
    record = read_recipe(tmp_path / "a.mp4")
    assert record is not None
    assert record["recipe"]["draft"] == [32, 18]
    assert (drafted(recipe).width, drafted(recipe).height, drafted(recipe).draft) == (32, 18, None)
    assert plan(model, recipe).sampling == plan(model, drafted(recipe)).sampling
    assert plan(model, replace(recipe, draft=None)).sampling > 10 * plan(model, recipe).sampling


def test_a_draft_larger_than_the_clip_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match=r"draft 320x180 is larger than the clip, 160x90"):
        resolve(model, replace(BALL, draft=(320, 180)))


@pytest.mark.parametrize("growing", [False, True])
def test_a_growing_file_holds_the_same_clip(model: Model, tmp_path: Path, growing: bool) -> None:
    counts: list[tuple[int, int]] = []
    recipe = resolve(model, BALL)
    save(model, recipe, tmp_path / "a.mp4", on_frames=lambda *count: counts.append(count), growing=growing)
    video = read_video(tmp_path / "a.mp4")
    expected = read_video(generate(model, BALL).save(tmp_path / "b.mp4")).frames_THWC
    assert video.frames_THWC.shape == expected.shape
    halves = [
        reduce(frames_THWC.astype(float), "t (h 2) (w 2) c -> t h w c", "mean")  # as files hold colours
        for frames_THWC in (video.frames_THWC, expected)
    ]
    assert np.abs(halves[0] - halves[1]).mean() < 3
    assert counts[-1] == (30, 30)
    assert counts == sorted(counts)
