"""A job that was killed goes on where it was, and yields the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.generation import journal as journals
from mutoscope.generation.generate import resolve, save
from mutoscope.generation.journal import Job, Journal, key
from mutoscope.generation.request import Request
from mutoscope.generation.windows import spans, window
from mutoscope.weights.residence import Placement
from mutoscope.weights.store import Model, load

LONG = Request("a red ball rolls", seed=3, width=32, height=32, steps=3, frames=60)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "PATIENCE", 0.0)


class Crash(Exception):
    pass


def crashing(model: Model, calls: int) -> Model:
    """The model with a DiT that fails at its n-th call."""
    left = calls

    class Failing:
        config = model.dit.config
        cache_text = model.dit.cache_text

        def __call__(self, *arguments: object, **named: object) -> torch.Tensor:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            answer: torch.Tensor = model.dit(*arguments, **named)
            return answer

    return replace(model, dit=Failing())


def run(model: Model, request: Request, path: Path, calls: int = 10**6) -> int:
    """One attempt; how often the model was asked."""
    failing = crashing(model, calls)
    asked = 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    with Job(model, request, path.parent) as job:
        save(failing, resolve(model, job.request), path, count, journal=job.journal)
        job.done()
    return asked


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sampler", ["euler", "heun", "unipc", "dpmpp_3m"])
@pytest.mark.parametrize("calls", [0, 1, 4, 7])
def test_after_a_crash_the_same_request_gives_the_same_bytes(
    model: Model, tmp_path: Path, sampler: str, calls: int
) -> None:
    request = replace(LONG, sampler=sampler)
    run(model, request, tmp_path / "whole.mp4")
    with pytest.raises(Crash):
        run(model, request, tmp_path / "resumed.mp4", calls)
    assert not (tmp_path / "resumed.mp4").exists()
    run(model, request, tmp_path / "resumed.mp4")
    assert (tmp_path / "resumed.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed.mp4", "whole.mp4"]


@pytest.mark.usefixtures("impatient")
def test_nothing_is_asked_of_the_model_twice(model: Model, tmp_path: Path) -> None:
    total = 3 * len(spans(16, window(model)))  # one call for each step of each window
    for calls in (2, 3, 3):
        with pytest.raises(Crash):
            run(model, LONG, tmp_path / "a.mp4", calls)
    failing = crashing(model, total - 8)
    with Job(model, LONG, tmp_path) as job:
        save(failing, resolve(model, job.request), tmp_path / "a.mp4", journal=job.journal)
        job.done()
    assert (tmp_path / "a.mp4").exists()


@pytest.mark.usefixtures("impatient")
def test_a_drawn_seed_is_drawn_once(model: Model, tmp_path: Path) -> None:
    request = replace(LONG, seed=None)
    seeds = []
    for _ in range(2):
        with Job(model, request, tmp_path) as job, suppress(Crash):
            seeds.append(job.request.seed)
            save(crashing(model, 2), resolve(model, job.request), tmp_path / "a.mp4", journal=job.journal)
    assert seeds[0] == seeds[1]
    with Job(model, request, tmp_path) as job:
        job.done()
    with Job(model, request, tmp_path) as job:
        assert not job.journal.found


def test_two_processes_do_not_share_a_journal(model: Model, tmp_path: Path) -> None:
    with Job(model, LONG, tmp_path) as one, Job(model, LONG, tmp_path) as other:
        assert one.journal.folder != other.journal.folder
    assert list(tmp_path.iterdir()) == []


def test_the_key_follows_all_that_decides_the_clip(model: Model, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"1")
    requests = [LONG, replace(LONG, seed=4), replace(LONG, draft=(16, 16)), replace(LONG, image=picture)]
    keys = [key(model, request) for request in requests]
    picture.write_bytes(b"2")
    keys.append(key(model, requests[-1]))
    keys.append(key(replace(model, card=replace(model.card, sha256="0")), LONG))
    keys.append(key(replace(model, compiled=True), LONG))
    int8 = Placement("memory", 0, 0, 0, 0, torch.float32, "int8")
    keys.append(key(replace(model, placement=int8), LONG))
    assert len(set(keys)) == len(keys)
    assert key(model, LONG) == keys[0]


def test_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.keep("window-0000", torch.ones(2))
    journal.flush()
    kept = journal.read("window-0000")
    assert kept is not None
    assert torch.equal(kept, torch.ones(2))
    (tmp_path / "window-0000.safetensors").write_bytes(b"half")
    assert journal.read("window-0000") is None


def test_an_unwritable_place_is_told(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="Cannot write"), Job(model, LONG, tmp_path / "file"):
        pass


@pytest.mark.slow
def test_killed_at_random_moments_the_command_line_yields_the_same_bytes(
    model_folder: Path, tmp_path: Path
) -> None:
    """Real processes and SIGKILL, at 20 moments spread over the whole run."""
    words = ["generate", "a red ball", "-m", str(model_folder), "--size", "64x64", "--draft", "32x32", "-q"]
    words += ["--seconds", "60", "--steps", "20", "--seed", "5", "-o"]
    start = time.perf_counter()
    command(words, tmp_path / "whole.mp4").wait()
    whole, took = (tmp_path / "whole.mp4").read_bytes(), time.perf_counter() - start
    choose, kills = random.Random(0), 0
    while kills < 20:
        process = command(words, tmp_path / "killed.mp4")
        try:
            process.wait(choose.uniform(0.2, 1.0) * took)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            assert (tmp_path / "killed.mp4").read_bytes() == whole
            (tmp_path / "killed.mp4").unlink()
    if not (tmp_path / "killed.mp4").exists():
        assert command(words, tmp_path / "killed.mp4").wait() == 0
    assert (tmp_path / "killed.mp4").read_bytes() == whole


def command(words: list[str], path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "mutoscope.cli", *words, str(path)])
