"""One clip from one request: exact sizes, exact repetition, guidance, known frames, stopping early."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mutoscope.diffusion.sampler import SAMPLERS, StepInfo
from mutoscope.errors import InputError
from mutoscope.generation import generate as generation
from mutoscope.generation import request
from mutoscope.generation.generate import (
    Interrupted,
    address_noise,
    generate,
    generate_many,
    grid_of,
    resolve,
    sample,
    save,
)
from mutoscope.generation.request import Request
from mutoscope.video import read_recipe, read_video
from mutoscope.weights.store import Model, load

BALL = Request("a red ball rolls", seed=3)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.mark.parametrize(
    ("width", "height", "frames"), [(80, 112, 9), (64, 64, 21), (64, 64, 1), (37, 50, 6), (16, 16, 2)]
)
def test_clips_have_the_size_and_length_that_was_asked_for(
    model: Model, width: int, height: int, frames: int
) -> None:
    video = generate(model, replace(BALL, width=width, height=height, frames=frames))
    assert video.frames_THWC.shape == (frames, height, width, 3)
    assert video.frames_THWC.dtype == np.uint8


def test_the_same_request_gives_the_same_pixels_and_any_other_does_not(model: Model) -> None:
    first = generate(model, BALL).frames_THWC
    assert np.array_equal(first, generate(model, BALL).frames_THWC)
    changes: list[dict[str, Any]] = [
        {"seed": 4},
        {"prompt": "a blue box"},
        {"guidance": 1.0},
        {"steps": 5},
        {"negative": "a blue box"},
        {"sampler": "heun"},
        {"fps": 16.0},
    ]
    for change in changes:
        assert not np.array_equal(first, generate(model, replace(BALL, **change)).frames_THWC), change


def test_every_sampler_by_name(model: Model) -> None:
    assert set(request.SAMPLERS) == {*SAMPLERS, request.RENOISE}
    for name in request.SAMPLERS:
        assert generate(model, replace(BALL, frames=5, sampler=name)).frames == 5


def test_a_larger_clip_keeps_the_noise_of_a_smaller_one(model: Model) -> None:
    small, large = (resolve(model, replace(BALL, frames=frames)) for frames in (5, 13))
    noise_small, noise_large = (address_noise(model, [r], grid_of(model, r)) for r in (small, large))
    assert torch.equal(noise_small, noise_large[:, :, :2])


def test_a_batch_equals_its_clips_made_alone(model: Model) -> None:
    requests = [
        replace(BALL, seed=1),
        replace(BALL, seed=2, prompt="a blue box rolls to the right and then to the left"),
        replace(BALL, seed=1, frames=5),
        replace(BALL, seed=3, prompt=""),
    ]
    videos = generate_many(model, requests)
    assert [video.frames for video in videos] == [9, 9, 5, 9]
    for video, asked in zip(videos, requests, strict=True):
        alone = generate(model, asked)
        assert video.recipe == alone.recipe
        assert np.abs(video.frames_THWC.astype(int) - alone.frames_THWC).max() <= 1


def test_batches_have_a_largest_size(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    whole = generation.sample
    monkeypatch.setattr("mutoscope.generation.groups.LARGEST", 2)
    monkeypatch.setattr(
        generation, "sample", lambda m, recipes, *rest: sizes.append(len(recipes)) or whole(m, recipes, *rest)
    )
    generate_many(model, [replace(BALL, frames=1, steps=1, seed=seed) for seed in range(5)])
    assert sizes == [2, 2, 1]


def test_numbers_that_are_none_are_our_fault(model: Model) -> None:
    broken = replace(model, dit=copy.deepcopy(model.dit))
    torch.nn.init.constant_(broken.dit.head.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="random made"):
        generate(broken, BALL)


def test_guidance_extrapolates_from_the_negative_prompt(model: Model) -> None:
    """One Euler step is linear in the prediction: x0 at scale w is on the line through scales 0 and 1."""
    zero, one, three = (
        sample(
            model, [resolve(model, replace(BALL, steps=1, guidance=w, negative="a blue box"))]
        ).latent_BCTHW
        for w in (0.0, 1.0, 3.0)
    )
    assert not torch.allclose(zero, one, atol=1e-3)
    torch.testing.assert_close(three, zero + 3 * (one - zero), atol=1e-4, rtol=1e-4)


def test_steps_are_reported_and_can_end_the_run(model: Model) -> None:
    seen: list[StepInfo] = []

    def stop_at_two(info: StepInfo) -> bool:
        seen.append(info)
        return info.step < 2

    video = generate(model, replace(BALL, steps=8), stop_at_two)
    assert [info.step for info in seen] == [1, 2]
    assert seen[0].steps == 8
    assert video.recipe is not None
    assert video.recipe["recipe"]["stopped"] == 2
    assert video.frames == 9


def test_a_run_stopped_at_its_last_step_is_a_finished_one(model: Model) -> None:
    video = generate(model, replace(BALL, steps=3), lambda info: info.step < info.steps)
    assert video.recipe is not None
    assert video.recipe["recipe"]["stopped"] is None


def test_ctrl_c_keeps_the_estimate_of_the_last_whole_step(model: Model, tmp_path: Path) -> None:
    kept: list[torch.Tensor] = []

    def interrupt(info: StepInfo) -> None:
        kept.append(info.x0)
        if info.step == 3:
            raise KeyboardInterrupt

    recipe = resolve(model, replace(BALL, steps=6))
    with pytest.raises(Interrupted) as caught:
        sample(model, [recipe], interrupt)
    assert caught.value.partial.stopped == 3
    assert torch.equal(caught.value.partial.latent_BCTHW, kept[-1])

    path = tmp_path / "clip.mp4"
    assert save(model, recipe, path, interrupt).stopped == 3
    assert read_video(path).frames == 9


def test_ctrl_c_before_the_first_step_leaves_nothing(model: Model, tmp_path: Path) -> None:
    def interrupt(info: StepInfo) -> None:
        raise AssertionError("no step is reached")

    broken = replace(model, text=_Interrupting())
    with pytest.raises(KeyboardInterrupt):
        save(broken, resolve(model, BALL), tmp_path / "clip.mp4", interrupt)
    assert list(tmp_path.iterdir()) == []


class _Interrupting:
    def __call__(self, prompts: list[str]) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.gif"])
def test_a_file_holds_the_clip_and_its_recipe(model: Model, tmp_path: Path, name: str) -> None:
    recipe = resolve(model, replace(BALL, width=37, height=50))
    save(model, recipe, tmp_path / name)
    video, record = read_video(tmp_path / name), read_recipe(tmp_path / name)
    assert video.frames_THWC.shape == (9, 50, 37, 3)
    assert record is not None
    assert record["recipe"]["prompt"] == "a red ball rolls"
    assert record["model"] == {"name": "random", "sha256": model.card.sha256}


def test_streaming_into_a_file_is_generating(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded in pieces of one latent frame, the file is that of the whole Video."""
    asked = replace(BALL, frames=17)
    generate(model, asked).save(tmp_path / "whole.mp4")
    monkeypatch.setattr("mutoscope.models.vae.CHUNK_POSITIONS", 64)
    save(model, resolve(model, asked), tmp_path / "streamed.mp4")
    streamed, whole = (read_video(tmp_path / f"{name}.mp4").frames_THWC for name in ("streamed", "whole"))
    assert np.abs(streamed.astype(int) - whole).max() <= 2  # another order of sums may round otherwise


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_made(model: Model) -> None:
    with pytest.raises(InputError, match=r"8192x8192 .* needs about .*free; \d+x\d+ fits"):
        generate(model, replace(BALL, width=8192, height=8192, frames=20_001))
