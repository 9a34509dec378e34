"""Checkpoints survive kills, full disks and rotten bits; logs and averages resume exactly."""

import errno
import itertools
import json
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mutoscope.errors import InputError
from mutoscope.training.state import (
    EMA,
    MANIFEST,
    RunLog,
    StopSignal,
    checkpoints,
    claimed,
    clock,
    latest_checkpoint,
    load_checkpoint,
    refuse_changes,
    require_space,
    save_checkpoint,
    sweep,
)


def parts(seed: int) -> dict:
    """A model and its optimiser after one step: int keys, tuples, scalars, shared tensors."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.98))
    model(torch.randn(2, 8)).sum().backward()
    optimizer.step()
    tied = torch.randn(3)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "tied": [tied, (tied, None, True, 1e-300)],
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_checkpoint_returns_what_went_in_without_pickle(tmp_path):
    saved = parts(0)
    path = save_checkpoint(tmp_path, 12, saved, {"seed": 7, "rate": 0.1}, keep=3)
    loaded, meta = load_checkpoint(path)
    assert same(saved | {"model": dict(saved["model"])}, loaded)
    assert meta == {"seed": 7, "rate": 0.1}
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}
    optimizer = torch.optim.AdamW(nn.Linear(8, 4).parameters())
    optimizer.load_state_dict(loaded["optimizer"])
    assert same(optimizer.state_dict(), saved["optimizer"])


def test_keeps_the_newest_by_number_and_leaves_no_litter(tmp_path):
    for clock_reads, step in enumerate((3, 5, 20, 100, 1000)):
        os.utime(save_checkpoint(tmp_path, step, parts(step), {}, keep=2), (0, 10_000 - clock_reads))
    assert sorted(os.listdir(tmp_path)) == ["step-00000100", "step-00001000"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00001000"
    save_checkpoint(tmp_path, 150, parts(1), {}, keep=2)  # after falling back from 1000
    assert sorted(os.listdir(tmp_path)) == ["step-00000100", "step-00000150"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", MANIFEST])
def test_any_flipped_byte_is_found_and_the_one_before_is_used(tmp_path, name):
    older = save_checkpoint(tmp_path, 1, parts(1), {}, keep=5)
    newer = save_checkpoint(tmp_path, 2, parts(2), {}, keep=5)
    whole = (newer / name).read_bytes()
    choose = random.Random(name)
    for _ in range(25):
        rotten = bytearray(whole)
        rotten[choose.randrange(len(whole))] ^= 1 << choose.randrange(8)
        (newer / name).write_bytes(rotten)
        said: list[str] = []
        found = latest_checkpoint(tmp_path, said.append)
        if found == newer:  # only a bit of the manifest that changes nothing it says
            assert name == MANIFEST
            assert same(load_checkpoint(newer)[0]["tied"], parts(2)["tied"])
            continue
        assert found == older
        assert "step-00000002" in said[0]
        with pytest.raises(InputError, match="step-00000002"):
            load_checkpoint(newer)
    (newer / name).unlink()
    assert latest_checkpoint(tmp_path, said.append) == older


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(tmp_path):
    save_checkpoint(tmp_path, 1, parts(1), {}, keep=2)
    path = save_checkpoint(tmp_path, 2, parts(2), {}, keep=2)
    (path / "model.safetensors").write_bytes(b"")
    assert latest_checkpoint(save_checkpoint(tmp_path, 2, parts(2), {}, keep=2).parent) == path


@pytest.mark.parametrize(
    "call", ["os.fsync", "pathlib.Path.rename", "mutoscope.training.state.write_durably"]
)
def test_a_disk_that_refuses_leaves_a_good_checkpoint_and_says_so(tmp_path, monkeypatch, call):
    old, new = parts(1), parts(2)
    failures = 0
    for refused in range(12):
        save_checkpoint(tmp_path, 1, old, {}, keep=1)
        module, name = call.rsplit(".", 1)
        original = getattr(pkgutil.resolve_name(module), name)
        counter = itertools.count()

        def refuse(*arguments, refused=refused, original=original, counter=counter):
            if next(counter) == refused:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(call, refuse)
            try:
                save_checkpoint(tmp_path, 2, new, {}, keep=1)
            except InputError as error:
                said = str(error)
            else:
                break
        failures += 1
        assert "No space left" in said
        assert "--resume auto" in said
        kept = latest_checkpoint(tmp_path)
        assert same(load_checkpoint(kept)[0]["tied"], (old if kept.name.endswith("1") else new)["tied"])
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]
        shutil.rmtree(tmp_path / "step-00000002", ignore_errors=True)
    assert 1 <= failures < 12


WRITER = """
import sys, torch
from pathlib import Path
from mutoscope.training.state import save_checkpoint
for step in range(int(sys.argv[2]), 10**6):
    save_checkpoint(Path(sys.argv[1]), step, {"a": {"w": torch.full((400_000,), float(step))}}, {}, keep=2)
"""


def test_killed_while_writing_there_is_always_a_good_checkpoint(tmp_path):
    choose = random.Random(0)
    step = 1
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(step)])
        deadline = time.monotonic() + 60
        while len(checkpoints(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(choose.uniform(0.0, 0.15))
        writer.kill()
        writer.wait()
        found = latest_checkpoint(tmp_path, report=pytest.fail)
        loaded, _ = load_checkpoint(found)
        step = int(found.name[5:])
        assert (loaded["a"]["w"] == step).all()
        sweep(tmp_path)
        assert all(path.name.startswith("step-") for path in tmp_path.iterdir())
        for path in checkpoints(tmp_path):
            if path != found:
                shutil.rmtree(path)


def test_ema_averages_swaps_and_resumes(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    ema = EMA({"m": model}, decay=0.5)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    ema.update()
    expected = start + (1 - 2 / 11)
    assert torch.allclose(ema.average["m.weight"], expected)
    live = model.weight.detach().clone()
    with ema.applied():
        assert torch.allclose(model.weight, expected)
    assert torch.equal(model.weight, live)
    again = EMA({"m": nn.Linear(3, 2)}, decay=0.5)
    again.load_state_dict(
        load_checkpoint(save_checkpoint(tmp_path, 1, {"ema": ema.state_dict()}, {}, 1))[0]["ema"]
    )
    assert same(again.state_dict(), ema.state_dict())
    with pytest.raises(InputError, match="another model"):
        EMA({"n": nn.Linear(3, 2)}, decay=0.5).load_state_dict(ema.state_dict())
    with pytest.raises(InputError, match=r"1\.5"):
        EMA({"m": model}, decay=1.5)


def test_log_is_cut_to_the_resumed_step_and_loses_a_torn_line(tmp_path):
    log = RunLog(tmp_path)
    for step in range(1, 6):
        log.write(step, loss=1 / step)
    log.close()
    whole = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(whole + b'{"step": 6, "lo')
    log = RunLog(tmp_path, resumed_step=3)
    assert [record["step"] for record in log.records()] == [1, 2, 3]
    for step in (4, 5):
        log.write(step, loss=1 / step)
    log.sync()
    log.close()
    assert (tmp_path / "log.jsonl").read_bytes() == whole
    assert json.loads(whole.splitlines()[-1]) == {"step": 5, "loss": 0.2}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_asks_second_acts(number, capsys):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        os.kill(os.getpid(), number)
        assert stop.requested
        assert signal.getsignal(number) == before
    assert "saving" in capsys.readouterr().err


def test_a_continuation_with_another_config_is_refused_by_name(tmp_path):
    before = {"seed": 1, "out": "a", "optimizer": {"steps": 10, "clip": 1.0}}
    now = {"seed": 1, "out": "b", "optimizer": {"steps": 12, "clip": 1.0, "new_option": 3}, "batches": None}
    with pytest.raises(InputError, match=r"optimizer\.steps was 10, is 12\)"):
        refuse_changes(before | {"batches": None}, now, {"out"}, tmp_path)
    refuse_changes(before, before | {"out": "c"}, {"out"}, tmp_path)


def test_one_run_to_a_folder_and_space_is_checked_first(tmp_path):
    with claimed(tmp_path), pytest.raises(InputError, match="another run"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass
    with pytest.raises(InputError, match="MB free"):
        require_space(tmp_path, 1 << 60)


def test_load_file_needs_no_checkpoint_code(tmp_path):
    """The parts are ordinary safetensors: other tools can read them."""
    path = save_checkpoint(tmp_path, 1, {"model": nn.Linear(2, 2).state_dict()}, {}, 1)
    assert set(load_file(path / "model.safetensors")) == {"model.weight", "model.bias"}


def test_clock():
    assert [clock(s) for s in (0, 75, 4000)] == ["0:00", "1:15", "1:06:40"]
