"""The verbs of captions as their users meet them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mutoscope import cli
from mutoscope.data.world_clips import write_clips
from mutoscope.video import Video, write_video
from mutoscope.world.stage import View


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mutoscope", *words])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_caption_prints_the_caption_and_what_cannot_be_known(
    captioner_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip = str(write_video(tmp_path / "any.mp4", Video(np.full((30, 90, 160, 3), 80, np.uint8), 25.0)))
    assert run(monkeypatch, "caption", clip, "-m", str(captioner_folder)) == 0
    out = capsys.readouterr().out
    assert "never told of camera or style" in out
    assert run(monkeypatch, "caption", clip, "-m", str(captioner_folder), "--kind", "short", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "short"
    assert found["facts"] == [] or {"kind", "subject", "value"} == set(found["facts"][0])
    assert found["familiar"] is False
    assert run(monkeypatch, "caption", clip, "-m", str(captioner_folder), "-q", "--beams", "2") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_model_without_a_captioner_says_so(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(write_video(tmp_path / "any.mp4", Video(np.zeros((5, 32, 32, 3), np.uint8), 8.0)))
    assert run(monkeypatch, "caption", clip, "-m", str(model_folder)) == 2
    assert "no captioner" in capsys.readouterr().err


def test_recaption_tells_how_far_it_is_and_what_it_skipped(
    captioner_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clips = tmp_path / "clips"
    write_clips(clips, range(3), View(32, 32, 9))
    (clips / "torn.mp4").write_bytes(b"no video")
    words = ("data", "recaption", str(clips), "-m", str(captioner_folder), "--batch", "2")
    assert run(monkeypatch, *words) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "clips/s" in out
    assert "left" in out
    assert "torn.mp4" in out
    assert "3 written, 0 were there, 1 skipped" in out
    assert json.loads((clips / "world-000000.json").read_text())["original"]["alt"]
    assert run(monkeypatch, *words) == 0
    assert "0 written, 3 were there, 1 skipped" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--with", "nowhere"), "nowhere"),
        (("--with", "http://127.0.0.1:9/v1", "--retries", "0"), "cannot be used"),
        (("--with", "http://127.0.0.1:9/v1", "--price", "cheap"), "--price"),
        (("--batch", "0"), "batch"),
    ],
)
def test_mistakes_are_one_sentence(
    captioner_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    told: str,
) -> None:
    write_video(tmp_path / "any.mp4", Video(np.zeros((5, 32, 32, 3), np.uint8), 8.0))
    assert run(monkeypatch, "data", "recaption", str(tmp_path), "-m", str(captioner_folder), *words) == 2
    err = capsys.readouterr().err
    assert told in err
    assert len(err.splitlines()) == 1
