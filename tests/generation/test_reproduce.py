"""A file can be made again, byte for byte, or the reason is told."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope import cli
from mutoscope.errors import InputError
from mutoscope.generation.cards import Card, Storyboard
from mutoscope.generation.generate import resolve, save
from mutoscope.generation.reproduce import differences, read_record, remake
from mutoscope.generation.request import Request
from mutoscope.generation.storyboard import make_storyboard
from mutoscope.video import Video, read_recipe, write_video
from mutoscope.weights.store import Model, load
from wan_models import DIT, diffusers, write_model


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.fixture
def clip(model: Model, tmp_path: Path) -> Path:
    save(model, resolve(model, Request("a red ball", seed=5, width=48)), tmp_path / "clip.mp4")
    return tmp_path / "clip.mp4"


def test_the_same_bytes_with_a_model_loaded_anew(model_folder: Path, clip: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.mp4"
    fresh = load(model_folder, device="cpu")
    remake(fresh, read_record(clip), again)
    assert clip.read_bytes() == again.read_bytes()
    assert differences(fresh, read_record(clip), clip, again) == []


def test_a_stopped_clip_is_stopped_at_the_same_step(model: Model, tmp_path: Path) -> None:
    recipe = resolve(model, Request("a red ball", seed=5, steps=6))
    save(model, recipe, tmp_path / "clip.mp4", lambda info: info.step < 2)
    made = read_record(tmp_path / "clip.mp4")
    assert made.recipe.stopped == 2
    remake(model, made, tmp_path / "again.mp4")
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()


def test_a_storyboard_is_made_again_from_its_own_record(model: Model, clip: Path, tmp_path: Path) -> None:
    cards = (Card(0, clip=str(clip)), Card(1.5, "a box", cut=False), Card(2, "a star", expanded="a red star"))
    board = Storyboard(cards, 2.5, 48, steps=2, seed=4)
    path, again = tmp_path / "board.mp4", tmp_path / "again.mp4"
    make_storyboard(model, board, tmp_path / "shots").save(path)
    remake(model, read_record(path), again)
    assert path.read_bytes() == again.read_bytes()
    make_storyboard(model, board, tmp_path / "shots").save(again)  # from the latents that were kept
    assert path.read_bytes() == again.read_bytes()
    write_video(clip, Video(np.zeros((9, 64, 48, 3), np.uint8), 8.0))
    with pytest.raises(InputError, match="not the file that the clip was made from"):
        remake(model, read_record(path), again)


def test_the_number_of_threads_is_that_of_the_record(model: Model, clip: Path, tmp_path: Path) -> None:
    made, seen = read_record(clip), []
    before = torch.get_num_threads()
    elsewhere = replace(made, machine=replace(made.machine, threads=before + 1))
    remake(model, elsewhere, tmp_path / "again.mp4", lambda info: seen.append(torch.get_num_threads()))
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_other_weights_are_refused(model: Model, clip: Path, tmp_path: Path) -> None:
    other = replace(model, card=replace(model.card, sha256="0" * 64))
    with pytest.raises(InputError, match=r"000000000000.*same weights"):
        remake(other, read_record(clip), tmp_path / "again.mp4")


def test_differences_name_the_surroundings_and_the_pixels(model: Model, clip: Path, tmp_path: Path) -> None:
    made = read_record(clip)
    other = write_video(tmp_path / "other.mp4", Video(np.zeros((9, 64, 48, 3), np.uint8), 8.0))
    elsewhere = replace(made, machine=replace(made.machine, torch="0.1"))
    first, second = differences(model, elsewhere, clip, other)
    assert first == f"torch was 0.1, is {torch.__version__}"
    assert "pixels differ by at most" in second
    short = write_video(tmp_path / "short.mp4", Video(np.zeros((3, 64, 48, 3), np.uint8), 8.0))
    assert "shape (3, 64, 48, 3)" in differences(model, made, clip, short)[0]


def test_files_without_a_recipe(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", Video(np.zeros((3, 32, 32, 3), np.uint8), 8.0))
    with pytest.raises(InputError, match="carries no recipe"):
        read_record(plain)
    foreign = write_video(tmp_path / "foreign.mp4", Video(np.zeros((3, 32, 32, 3), np.uint8), 8.0, {"a": 1}))
    with pytest.raises(InputError, match=r"recipe in .*foreign\.mp4"):
        read_record(foreign)


def test_a_clip_of_weights_in_8_bits_is_made_again_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file tells it; exact weights are others."""
    pytest.importorskip("transformers")
    transformer = diffusers().WanTransformer3DModel(**DIT)
    folder = str(write_model(tmp_path / "T2V", {"_class_name": "WanPipeline"}, transformer=transformer))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["mutoscope", *words, "-m", folder])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return int(exit_.value.code or 0)

    size = ["--size", "32x32", "--frames", "5", "--steps", "2", "--seed", "3"]
    for kind in ("exact", "int8"):
        assert call("generate", "a red ball", *size, "--weights", kind, "-o", f"{kind}.mp4") == 0
    exact, rounded = (read_record(tmp_path / f"{kind}.mp4").model for kind in ("exact", "int8"))
    assert (exact.weights, rounded.weights) == ("exact", "int8")
    assert exact.sha256 != rounded.sha256
    told = read_recipe(tmp_path / "exact.mp4")
    assert told is not None
    assert set(told["model"]) == {"name", "sha256"}  # as before there was a choice
    assert call("reproduce", "int8.mp4", "-o", "again.mp4") == 0
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "int8.mp4").read_bytes()
    with pytest.raises(InputError, match="the same bytes need the same weights"):
        remake(load(folder), read_record(tmp_path / "int8.mp4"), tmp_path / "other.mp4")
