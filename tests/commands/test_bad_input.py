"""Whatever is typed: one sentence that says what to mend, exit code 2, and the folder as it was."""

import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mutoscope import cli
from mutoscope.video import Video, write_video

Told = tuple[int, str, str]
Call = Callable[..., Told]
FAST = ["--steps", "2", "--frames", "5"]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """The command line in a folder with some files, in this process: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUTOSCOPE_DATA", str(tmp_path / "data"))
    write_video("clip.mp4", Video(np.zeros((9, 32, 32, 3), np.uint8), 8.0))

    def run(*words: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["mutoscope", *words])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        told = capsys.readouterr()
        code = exit_.value.code
        return (code if isinstance(code, int) else 0), told.out, told.err

    return run


def refused(told: Told, *parts: str) -> None:
    """Check that this is one sentence, not longer than a few lines of 80 columns, with these words."""
    code, _, error = told
    assert code == 2, error
    assert error.count("\n") == 1
    assert len(error) < 400
    for part in parts:
        assert part in error
    assert not any(ord(sign) < 32 for sign in error[:-1])


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("generate a --size DIGITSx64", ("is not WIDTHxHEIGHT", "...")),
        ("generate a --steps DIGITS", ("--steps", "mutoscope", "generate --help")),
        ("generate a -o LONG.mp4", ("too long", "another name")),
        ("generate a --seconds 1e300", ("1e+300 seconds", "at most")),
        ("generate a --image LONG.png", ("too long",)),
        ("extend clip.mp4 --seconds 1e300", ("8e+300 frames",)),
        ("extend clip.mp4 --sampler foo", ("'foo'", "euler")),
        ("extend pipe", ("pipe is not a regular file",)),
        ("extend /dev/zero", ("/dev/zero is not a regular file",)),
        ("info pipe", ("pipe is not a regular file",)),
        ("info a\x1b[31m.mp4", ("a\\u001b[31m.mp4",)),
        ("inpaint clip.mp4 a --mask /dev/zero", ("/dev/zero is not a regular file",)),
        ("caption clip.mp4 --beams 100000", ("--beams", "64, not '100000'")),
        ("storyboard --plan a -o a.png", ("a.png", "name it .mp4")),
        ("character add rolf clip.mp4 --as WORDS", ("20000",)),
        ("expand a -m nowhere", ("nowhere", "built-in")),
        ("character", ("add, list, rm",)),
        ("jobs list --data clip.mp4", ("clip.mp4", "another")),
        ("upscale clip.mp4 --size 64x64 -o clip.mp4/b.mp4", ("no folder 'clip.mp4'",)),
        ("world -n 1 -o clip.mp4", ("clip.mp4", "-o")),
    ],
)
def test_one_sentence(
    call: Call, model_folder: Path, tmp_path: Path, line: str, parts: tuple[str, ...]
) -> None:
    os.mkfifo("pipe")
    before = sorted(tmp_path.rglob("*"))
    words = [
        word.replace("DIGITS", "9" * 5000).replace("LONG", "x" * 300).replace("WORDS", "ball" * 9000)
        for word in line.split()
    ]
    verb = words[0] in ("generate", "extend", "inpaint")
    refused(call(*words, *(["-m", str(model_folder)] if verb else [])), *parts)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("prompt", ["a\x1b[31mb\x07", "🎈🦄 a\u202eball", "@", "<b>", "a\nb\tc", "%s {}"])
def test_a_strange_prompt_is_drawn_and_harms_no_terminal(
    call: Call, model_folder: Path, tmp_path: Path, prompt: str
) -> None:
    words = ("generate", prompt, "-m", str(model_folder), "-o", "a.mp4", "--no-expand", *FAST)
    for told in (call(*words), call("info", "a.mp4")):
        code, out, error = told
        assert (code, error) == (0, "")
        assert not any(sign in out for sign in "\x1b\x07\u202e")


def test_the_end_of_a_prompt_of_100_000_characters_is_asked_to_go(call: Call, model_folder: Path) -> None:
    refused(call("generate", "ball " * 20_000, "-m", str(model_folder)), "20000 are read")


@pytest.mark.parametrize(
    "line",
    [
        "generate ball --frames 9 -o a.mp4",
        "extend noise.mp4 -o a.mp4",
        "edit noise.mp4 ball --strength 0.1 -o a.gif",
        "upscale noise.mp4 --size 256x256 -o a.mp4",
        "world -n 1 --frames 5 -o new",
    ],
)
def test_a_full_disk_leaves_the_old_file_and_no_half(
    call: Call, model_folder: Path, tmp_path: Path, line: str
) -> None:
    """A limit on the size of files stands for the disk: writing fails in the same place."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 96, 96, 3), np.uint8)
    write_video("noise.mp4", Video(noise, 8.0))
    Path("a.mp4").write_bytes(b"old")
    before = sorted(tmp_path.rglob("*"))
    words = line.split()
    if words[0] in ("generate", "extend", "edit"):
        words += ["-m", str(model_folder), "--steps", "1", "--size", "96x96"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        told = call(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused(told, "file too large")
    assert Path("a.mp4").read_bytes() == b"old"
    made = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert [path for path in made if path.is_file()] == []


def test_weights_that_are_not_those_of_the_card(call: Call, model_folder: Path, tmp_path: Path) -> None:
    """A flipped bit, a cut file, another file: the hash is named, nothing is made."""
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    weights = broken / "dit.safetensors"
    whole = weights.read_bytes()
    for data in (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], whole[:999], b"", b"\x80\x04pickle"):
        weights.write_bytes(data)
        before = sorted(tmp_path.rglob("*"))
        refused(call("generate", "a", "-m", "broken", *FAST), "dit.safetensors", "sha256")
        assert sorted(tmp_path.rglob("*")) == before
    weights.unlink()
    refused(call("generate", "a", "-m", "broken", *FAST), "dit.safetensors")
    (broken / "model.json").write_text('{"format": 99}')
    refused(call("generate", "a", "-m", "broken", *FAST), "model.json")


def test_what_the_machine_cannot_do_is_no_fault_of_ours() -> None:
    assert cli.fault_of_the_machine(RuntimeError("can't allocate memory: you tried to allocate 9 bytes"))
    assert "no space" in str(cli.fault_of_the_machine(OSError(28, "No space left on device")))
    assert "'a.bin'" in str(cli.fault_of_the_machine(PermissionError(13, "Permission denied", "a.bin")))
    assert cli.fault_of_the_machine(OSError(5, "Input/output error")) is None
    assert cli.fault_of_the_machine(KeyError("a")) is None
