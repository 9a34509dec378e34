"""Windows cover a clip once, and each knows the end of the one before."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.diffusion.sampler import StepInfo
from mutoscope.generation.conditions import Condition
from mutoscope.generation.generate import generate, resolve, roll, rolled, sample
from mutoscope.generation.request import Grid, KeyFrame, Recipe, Request
from mutoscope.generation.windows import HISTORY, following, part_of, spans, window
from mutoscope.weights.store import Model, load

BALL = Request("a red ball rolls", seed=3, width=32, height=32, steps=3)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.mark.parametrize("frames", [1, 2, 8, 9, 10, 14, 15, 16, 121, 122, 123, 1000])
def test_spans_cover_every_frame_and_overlap_by_what_is_known(frames: int) -> None:
    cut = spans(frames, 9)
    assert cut[0].start == 0
    assert cut[-1].stop == frames
    assert all(span.stop - span.start == min(frames, 9) for span in cut)
    for before, after in pairwise(cut):
        assert HISTORY <= before.stop - after.start < 9
        assert after.stop > before.stop
    assert len(cut) == 1 + max(0, -(-(frames - 9) // (9 - HISTORY)))


def test_pictures_belong_to_the_windows_that_hold_them() -> None:
    keys = tuple(KeyFrame(seconds, "c.png") for seconds in (0.5, 3.5, 4.0, 7.5))  # latent frames 1, 7, 8, 15
    recipe = Recipe("a", "a", "", 64, 64, 65, 8.0, 2, 1.0, "euler", 1, "a.png", "0", "b.png", "1", at=keys)
    grid = Grid(17, 8, 8, (4, 8, 8))
    cut = ((slice(0, 9), 0), (slice(6, 15), 2), (slice(8, 17), 7))
    first, middle, last = (part_of(recipe, span, known, grid) for span, known in cut)
    assert (first.image, first.last_image, first.frames) == ("a.png", None, 33)
    assert (middle.image, middle.image_sha256, middle.last_image, middle.last_image_sha256) == (None,) * 4
    assert (last.image, last.last_image) == (None, "b.png")
    assert [frame.seconds for frame in first.at] == [0.5, 3.5, 4.0]
    assert [frame.seconds for frame in middle.at] == [1.0]
    assert [frame.seconds for frame in last.at] == [3.5]


def test_known_frames_are_put_in_front() -> None:
    condition = Condition(torch.zeros(1, 16, 5, 2, 2), torch.zeros(1, 5, dtype=torch.bool))
    known = following(condition, torch.ones(1, 16, 2, 2, 2), 0.05)
    assert known.mask_BT.tolist() == [[True, True, False, False, False]]
    assert known.latent_BCTHW[:, :, :2].eq(1).all()
    assert known.latent_BCTHW[:, :, 2:].eq(0).all()
    assert known.sigma == 0.05


def test_a_clip_of_one_window_is_a_plain_sample(model: Model) -> None:
    recipe = resolve(model, replace(BALL, frames=4 * window(model) - 3))
    assert torch.equal(roll(model, recipe).latent_BCTHW, sample(model, [recipe]).latent_BCTHW)


def test_a_long_clip_begins_as_its_first_window_and_goes_on(model: Model) -> None:
    longest = window(model)
    recipe = resolve(model, replace(BALL, frames=1 + 4 * (2 * longest)))
    pieces = [sampled.latent_BCTHW for sampled in rolled(model, recipe)]
    short = sample(model, [replace(recipe, frames=1 + 4 * (longest - 1))]).latent_BCTHW
    assert torch.equal(pieces[0], short)
    assert sum(piece.shape[2] for piece in pieces) == 1 + 2 * longest
    assert all(piece.shape[2] <= longest - HISTORY for piece in pieces[1:])
    other = resolve(model, replace(BALL, frames=1 + 4 * (2 * longest), prompt="a blue box"))
    second = [sampled.latent_BCTHW for sampled in rolled(model, other)][1]
    assert not torch.allclose(pieces[1], second)


def test_frames_and_progress_of_a_long_clip(model: Model) -> None:
    seen: list[StepInfo] = []
    video = generate(model, replace(BALL, frames=60), lambda info: seen.append(info) or True)
    assert video.frames_THWC.shape == (60, 32, 32, 3)
    count = len(spans(16, window(model)))
    assert [info.step for info in seen] == list(range(1, 3 * count + 1))
    assert {info.steps for info in seen} == {3 * count}


def test_a_long_clip_that_is_stopped_ends_there_and_is_made_again(model: Model) -> None:
    asked = replace(BALL, frames=60)
    video = generate(model, asked, lambda info: info.step < 5)
    assert video.recipe is not None
    assert video.recipe["recipe"]["stopped"] == 5
    longest = window(model)
    assert video.frames == 1 + 4 * (2 * longest - HISTORY - 1)
    whole = generate(model, asked)
    first = 1 + 4 * (longest - 2)
    assert np.array_equal(video.frames_THWC[:first], whole.frames_THWC[:first])
