"""The command line as its users meet it: files, lines, exit codes, one sentence for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pytest

from mutoscope import cli
from mutoscope.video import Video, read_video, write_video

KEYS = "path sha256 seed model size frames fps steps guidance sampler candidates kept prompt expanded_prompt".split()
KEYS.append("took_s")
FAST = ["--steps", "2", "--frames", "5"]


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Run(Protocol):
    def __call__(self, *words: str) -> Result: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["mutoscope", *words])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return Result(exit_.value.code or 0, captured.out, captured.err)  # type: ignore[arg-type]

    return call


def test_generate_writes_a_clip_and_tells_what_it_decided(
    run: Run, model_folder: Path, tmp_path: Path
) -> None:
    result = run(
        "generate", "a red ball rolls behind a blue box", "-m", str(model_folder), "--seed", "7", *FAST
    )
    assert result.code == 0, result.err
    assert read_video(tmp_path / "a-red-ball-rolls-behind-7.mp4").frames_THWC.shape == (5, 64, 64, 3)
    for told in (
        "random",
        "cpu",
        "float32",
        "threads",
        "64x64",
        "5 frames",
        "2 steps",
        "seed 7",
        "MiB",
        "next",
    ):
        assert told in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b" not in result.out


def test_a_second_clip_does_not_fall_on_the_first(run: Run, model_folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert run("generate", "a", "-m", str(model_folder), "--seed", "7", *FAST).code == 0
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["a-7-2.mp4", "a-7.mp4"]


def test_replacing_a_named_file_is_told(run: Run, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"old")
    result = run("generate", "a", "-m", str(model_folder), "-o", "x.mp4", *FAST)
    assert "in place of" in " ".join(result.out.split())
    assert read_video(tmp_path / "x.mp4").frames == 5


def test_json_is_one_line_a_clip_with_exactly_these_keys(run: Run, model_folder: Path) -> None:
    result = run(
        "generate", "a ball", "-m", str(model_folder), "--json", "-n", "2", "--seed", "5",
        "--size", "80x112", "--seconds", "0.5", "--fps", "10", "--steps", "2", "--guidance", "2",
        "--sampler", "unipc", "--negative", "a box", "-o", "clip.mp4",
    )  # fmt: skip
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [list(line) for line in lines] == [KEYS, KEYS]
    assert [line["path"] for line in lines] == ["clip-5.mp4", "clip-6.mp4"]
    first = {key: lines[0][key] for key in KEYS if key not in ("sha256", "took_s")}
    assert first == {
        "path": "clip-5.mp4", "seed": 5, "model": "random", "size": "80x112", "frames": 5, "fps": 10.0,
        "steps": 2, "guidance": 2.0, "sampler": "unipc", "candidates": 1, "kept": 0,
        "prompt": "a ball", "expanded_prompt": "a ball",
    }  # fmt: skip
    assert lines[0]["sha256"] != lines[1]["sha256"]


def test_quiet_prints_the_path_alone(run: Run, model_folder: Path) -> None:
    assert run("generate", "a", "-m", str(model_folder), "-q", "--seed", "1", *FAST).out == "a-1.mp4\n"


def test_pictures_in_and_out(run: Run, model_folder: Path, tmp_path: Path) -> None:
    one = ["generate", "a", "-m", str(model_folder), "--steps", "2", "--seed", "1"]
    assert run(*one, "--frames", "1", "-o", "first.png").code == 0
    result = run(*one, "--frames", "9", "--image", "first.png", "--last-image", "first.png", "-o", "b.mp4")
    assert result.code == 0, result.err
    assert "first.png" in run("info", "b.mp4").out
    assert run("reproduce", "b.mp4", "-m", str(model_folder)).code == 0


def test_info_and_reproduce(run: Run, model_folder: Path, tmp_path: Path) -> None:
    run("generate", "a ball", "-m", str(model_folder), "--seed", "7", "-o", "clip.mp4", *FAST)
    info = run("info", "clip.mp4")
    for told in ("64x64", "a ball", "sampler", "seed", "random", "torch"):
        assert told in info.out
    data = json.loads(run("info", "clip.mp4", "--json").out)
    assert (data["frames"], data["recipe"]["recipe"]["seed"]) == (5, 7)
    again = run("reproduce", "clip.mp4", "-m", str(model_folder))
    assert again.code == 0, again.err
    assert "the same bytes" in " ".join(again.out.split())
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "clip-again.mp4").read_bytes()
    assert run("reproduce", "clip.mp4", "-m", str(model_folder), "-o", "clip.mp4").code == 2


def test_a_clip_that_cannot_be_made_again_says_why(run: Run, model_folder: Path, tmp_path: Path) -> None:
    run("generate", "a", "-m", str(model_folder), "-o", "clip.mp4", *FAST)
    video = read_video(tmp_path / "clip.mp4")
    assert video.recipe is not None
    video.recipe["machine"]["torch"] = "0.1"
    write_video(tmp_path / "elsewhere.mp4", video)
    result = run("reproduce", "elsewhere.mp4", "-m", str(model_folder))
    assert result.code == 1
    assert "torch was 0.1" in result.err


def test_clips_from_clips(run: Run, model_folder: Path, tmp_path: Path) -> None:
    """Every verb writes a file of the right length, whose recipe tells the task; one is made again."""
    ramp = np.linspace(0, 255, 9 * 32 * 32 * 3).astype(np.uint8).reshape(9, 32, 32, 3)
    write_video(tmp_path / "a.mp4", Video(ramp, 8.0))
    write_video(tmp_path / "b.mp4", Video(ramp[::-1], 8.0))
    fast = ["-m", str(model_folder), "--steps", "2", "--seed", "1"]
    for line, frames in (
        ("extend a.mp4 ball --seconds 0.5", 13),
        ("extend a.mp4 --backward --seconds 0.5 -o back.mp4", 13),
        ("interpolate a.mp4 b.mp4 --seconds 0.5", 21),
        ("blend a.mp4 b.mp4 ball --seconds 0.5", 21),
        ("loop a.mp4 --seconds 0.5", 12),
        ("edit a.mp4 ball --strength subtle", 9),
        ("recut a.mp4 --keep 0.25-1", 9),
    ):
        result = run(*line.split(), *fast, "--json")
        assert result.code == 0, result.err
        made = json.loads(result.out)
        assert list(made) == KEYS
        assert (made["frames"], read_video(tmp_path / made["path"]).frames) == (frames, frames)
        verb = line.split()[0]
        assert made["path"] in (f"a-{verb}-1.mp4", "back.mp4")
        told = run("info", made["path"]).out
        assert re.search(rf"^verb +{verb}$", told, re.MULTILINE)
        assert re.search(r"^clip_sha256 +[0-9a-f]{64}$", told, re.MULTILINE)
    notes = run("edit", "a.mp4", "ball", *fast).out
    assert "encoded again" in " ".join(notes.split())
    assert (tmp_path / "a-edit-1-2.mp4").read_bytes() == run_again(run, tmp_path, model_folder)


def run_again(run: Run, folder: Path, model: Path) -> bytes:
    """What `reproduce` makes of the edit above."""
    result = run("reproduce", "a-edit-1-2.mp4", "-m", str(model), "-o", "again.mp4")
    assert result.code == 0, result.err
    return (folder / "again.mp4").read_bytes()


MISTAKES = [
    ("generate", "PROMPT", "generate --help"),
    ("generate a --size 64", "'64'", "64x64"),
    ("generate a --size axb", "'axb'", "64x64"),
    ("generate a --size -64x64", "-64", "16 to 8192"),
    ("generate a --size 0x0", "0", "16 to 8192"),
    ("generate a --size 99999x99999", "99999", "16 to 8192"),
    ("generate a --size 8192x8192 --frames 9999", "8192x8192", "fits"),
    ("generate a --seconds 0", "seconds is 0", "more than 0"),
    ("generate a --seconds nan", "nan", "more than 0"),
    ("generate a --seconds inf", "inf", "more than 0"),
    ("generate a --seconds 1 --frames 5", "seconds", "drop one"),
    ("generate a --frames x", "--frames", "integer, not 'x'"),
    ("generate a --steps 0", "steps is 0", "1 to 1000"),
    ("generate a --guidance nan", "guidance is nan", "0 to 100"),
    ("generate a --seed -1", "seed is -1", "from 0"),
    ("generate a --sampler eular", "'eular'", "'euler'"),
    ("generate a -n 0", "-n is 0", "1 to 1000"),
    ("generate a -m nowhere", "nowhere", "built-in models"),
    ("generate a -o no/folder/a.mp4", "no/folder", "-o"),
    ("generate a -o a.txt", "a.txt", ".mp4"),
    ("generate a -o a.png", "a.png", "--frames 1"),
    ("generate a --image none.png", "none.png", "check the name"),
    ("generate a --image text.png", "text.png", "."),
    ("generate a red ball", "red ball", "quotes"),
    ("generate a --sede 3", "--sede", "--seed"),
    ("generate ", "prompt", "example"),
    ("paint a", "paint", "--help"),
    ("info none.mp4", "none.mp4", "name"),
    ("info text.png", "text.png", "."),
    ("reproduce plain.mp4", "plain.mp4", "recipe"),
    ("world -n 0", "0", "1 clip"),
    ("world --size 0x0", "0", "16"),
    ("train dit none.toml", "none.toml", "name"),
    ("data stats .", "index.json", "encode"),
    ("evaluate MODEL --suite huge", "huge", "quick"),
    ("models show nowhere", "nowhere", "built-in"),
    ("extend none.mp4", "none.mp4", "check the name"),
    ("extend text.png -m MODEL", "text.png", "."),
    ("extend plain.mp4 -m MODEL", "3 frames", "longer"),
    ("extend plain.mp4 --seconds 0", "seconds is 0", "more than 0"),
    ("extend plain.mp4 --seconds 1e9 -m MODEL", "1e+09 seconds", "at most"),
    ("extend plain.mp4 --history-noise 2", "history noise is 2", "0 to 0.5"),
    ("extend five.mp4 -m MODEL -o five.mp4", "five.mp4", "elsewhere"),
    ("interpolate five.mp4", "CLIP2", "--help"),
    ("interpolate five.mp4 none.mp4", "none.mp4", "check the name"),
    ("blend five.mp4 plain.mp4 -m MODEL", "plain.mp4", "longer"),
    ("loop five.mp4 -m MODEL -o a.png", "a.png", "--frames 1"),
    ("edit five.mp4", "PROMPT", "edit --help"),
    ("edit five.mp4 ", "prompt", "example"),
    ("edit five.mp4 a --strength 2", "strength is 2", "0 to 1"),
    ("edit five.mp4 a --strength huge", "'huge'", "mild"),
    ("recut five.mp4", "--keep", "--help"),
    ("recut five.mp4 --keep 2", "'2'", "1.0-2.5"),
    ("recut five.mp4 --keep 2-1", "'2-1'", "later"),
    ("recut five.mp4 --keep 0-9 -m MODEL", "0-9", "inside the clip"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "value", "remedy"), MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    run: Run, model_folder: Path, tmp_path: Path, line: str, value: str, remedy: str
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    write_video(tmp_path / "plain.mp4", Video(np.zeros((3, 32, 32, 3), np.uint8), 8.0))
    write_video(tmp_path / "five.mp4", Video(np.zeros((5, 32, 32, 3), np.uint8), 8.0))
    before = sorted(tmp_path.iterdir())
    words = line.replace("MODEL", str(model_folder)).split(" ")
    if words[0] == "generate" and "-m" not in words:
        words += ["-m", str(model_folder)]
    result = run(*words)
    assert result.code == 2, result
    assert value in result.err
    assert remedy in result.err
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert sorted(tmp_path.iterdir()) == before


def test_our_own_faults_exit_with_1_and_ask_for_a_report(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise RuntimeError("the roof\nfell in")

    monkeypatch.setattr("mutoscope.video.read_video", fail)
    result = run("info", "a.mp4")
    assert result.code == 1
    assert "RuntimeError: the roof fell in" in result.err
    assert "report" in result.err
    monkeypatch.setenv("MUTOSCOPE_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["mutoscope", "info", "a.mp4"])
    with pytest.raises(RuntimeError, match="roof"):
        cli.main()


def test_models_are_listed_and_shown(run: Run, model_folder: Path) -> None:
    assert run("models", "list").code == 0
    shown = run("models", "show", str(model_folder)).out
    assert re.search(r"^name +random$", shown, re.MULTILINE)
    assert "Apache-2.0" in shown


def test_help_and_version(run: Run) -> None:
    for words in ([], ["--help"], ["-h"]):
        result = run(*words)
        assert result.code == 0
        assert "generate" in result.out
    assert run("--version").out.startswith("mutoscope ")
    assert "--guidance" in run("generate", "--help").out


def test_help_is_quick() -> None:
    """0.4 s of the processor, since a busy machine says nothing by the clock."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "mutoscope.cli", "--help"], capture_output=True, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 0.4


@pytest.mark.slow
def test_ctrl_c_keeps_the_clip_so_far(model_folder: Path, tmp_path: Path) -> None:
    """The signal is sent when the first line of progress, after five seconds, says that steps are done."""
    words = f"generate ball -m {model_folder} --size 256x256 --frames 17 --steps 1000 -o clip.mp4".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "mutoscope.cli", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "stopped" in out
    assert "clip.mp4" in out
    assert read_video(tmp_path / "clip.mp4").frames == 17  # one window; of several, those that are begun
