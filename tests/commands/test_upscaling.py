"""A clip of ours is drawn again and enlarged; any other is enlarged as it is."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mutoscope import cli
from mutoscope.video import Video, read_recipe, read_video, write_video


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mutoscope", *words])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_a_clip_of_ours_is_what_a_draft_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["generate", "a ball", "-m", str(model_folder), "--seed", "4", "--frames", "9", "-q", "-o"]
    assert call(monkeypatch, *words, "small.mp4", "--size", "32x32") == 0
    assert call(monkeypatch, "upscale", "small.mp4", "-m", str(model_folder), "--size", "96x64", "-q") == 0
    assert call(monkeypatch, *words, "large.mp4", "--size", "96x64", "--draft", "32x32") == 0
    upscaled = tmp_path / "small-96x64.mp4"
    assert upscaled.read_bytes() == (tmp_path / "large.mp4").read_bytes()
    record = read_recipe(upscaled)
    assert record is not None
    assert (record["recipe"]["seed"], record["recipe"]["draft"]) == (4, [32, 32])


def test_any_other_clip_is_enlarged_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)
    clip_THWC = np.broadcast_to(ramp[None, None, :, None], (7, 36, 64, 3))
    write_video(tmp_path / "a.mp4", Video(clip_THWC, 12.5))
    for options in ([], ["--stream"]):
        words = ["upscale", "a.mp4", "--size", "256x144", "-q", "-o", "b.mp4", *options]
        assert call(monkeypatch, *words) == 0
        video = read_video(tmp_path / "b.mp4")
        assert (video.frames, video.height, video.width, video.fps) == (7, 144, 256, 12.5)
        wide = np.linspace(0, 255, 256)
        assert np.abs(video.frames_THWC.mean(axis=(0, 1, 3)) - wide).max() < 6
    assert read_recipe(tmp_path / "b.mp4") is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--size", "16x16"], "larger than 16x16"),
        (["--size", "large"], "is not WIDTHxHEIGHT"),
        (["--size", "64x64", "-o", "a.mp4"], "is the clip itself"),
    ],
)
def test_mistakes_are_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", Video(np.zeros((2, 32, 32, 3), np.uint8), 8))
    assert call(monkeypatch, "upscale", "a.mp4", *words) == 2
    assert sentence in capsys.readouterr().err
