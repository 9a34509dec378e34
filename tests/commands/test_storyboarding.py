"""Storyboards, characters and repainting from the command line: files in, files out, one sentence for mistakes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mutoscope import cli
from mutoscope.video import Video, read_video, write_video

Result = tuple[int, str, str]


class Shell:
    """The command line in this process, with the small model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> Result:
        self.monkeypatch.setattr(sys, "argv", ["mutoscope", *words])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        told = self.capsys.readouterr()
        code = exit_.value.code
        return (code if isinstance(code, int) else 0), told.out, told.err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUTOSCOPE_DATA", str(tmp_path / "data"))
    frames_THWC = np.random.default_rng(0).integers(60, 200, (9, 32, 32, 3), np.uint8)
    write_video("a.mp4", Video(frames_THWC, 8.0))
    mask_THWC = np.zeros((1, 32, 32, 3), np.uint8)
    mask_THWC[:, 8:24, 8:24] = 255
    write_video("mask.png", Video(mask_THWC, 8.0))
    write_video("narrow.png", Video(mask_THWC[:, :, :20], 8.0))
    return Shell(monkeypatch, capsys)


def test_every_verb_makes_a_file(run: Shell, model_folder: Path) -> None:
    model = ["-m", str(model_folder)]
    fast = ["--steps", "2", *model]
    assert run("inpaint", "a.mp4", "a ball", "--mask", "mask.png", "-o", "i.mp4", *fast)[0] == 0
    assert run("restyle", "a.mp4", "at night", "-o", "r.mp4", *fast)[0] == 0
    assert read_video("i.mp4").frames == read_video("r.mp4").frames == 9
    assert run("character", "add", "rolf", "a.mp4", "--as", "a small red ball")[0] == 0
    assert "a small red ball" in run("character", "list")[1]
    assert (
        run("generate", "@rolf rolls", "--frames", "9", "-o", "g.mp4", "--at", "1s=mask.png", *fast)[0] == 0
    )
    recipe = (read_video("g.mp4").recipe or {})["recipe"]
    assert recipe["prompt"] == "a small red ball rolls"
    assert recipe["image"].endswith("picture.png")
    Path("b.toml").write_text(
        "seconds = 2.0\nwidth = 32\nheight = 32\nsteps = 2\n"
        '[[cards]]\nat = 0.0\nprompt = "@rolf rolls"\n[[cards]]\nat = 1.5\nclip = "a.mp4"\n'
    )
    code, _, error = run("storyboard", "b.toml", *model)
    assert (code, "overlaps" in error) == (2, True)
    Path("b.toml").write_text(Path("b.toml").read_text().replace("seconds = 2.0", "seconds = 3.0"))
    assert run("storyboard", "b.toml", *model)[0] == 0
    assert read_video("storyboard.mp4").frames == 24
    assert run("character", "rm", "@rolf")[0] == 0


def test_a_plan_is_written_and_read(run: Shell) -> None:
    assert run("storyboard", "--plan", "First a ball rolls, then it stops.", "--write", "p.json")[0] == 0
    assert '"prompt": "a ball stops"' in Path("p.json").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["generate", "@nobody rolls"], "There is no character @nobody"),
        (["extend", "a.mp4", "@nobody rolls"], "There is no character @nobody"),
        (["generate", "a ball", "--at", "x"], "is not TIME=FILE"),
        (["inpaint", "a.mp4", "a ball", "--mask", "none.png"], "check the name"),
        (["storyboard"], "give one of them"),
        (["storyboard", "none.toml"], "There is no file none.toml"),
        (["character", "rm", "nobody"], "There is no character @nobody"),
        (["character", "add", "rolf", "sound.mp4", "--as", "a ball"], "sound.mp4"),
    ],
)
def test_a_mistake_is_one_sentence(run: Shell, words: list[str], sentence: str) -> None:
    Path("sound.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 40)
    code, out, error = run(*words)
    assert (code, out) == (2, "")
    assert sentence in error
    assert error.count("\n") == 1


def test_a_mask_of_another_size(run: Shell, model_folder: Path) -> None:
    code, _, error = run("inpaint", "a.mp4", "x", "--mask", "narrow.png", "-m", str(model_folder))
    assert code == 2
    assert "is 20x32 and the clip 32x32" in error
