"""What a training run keeps on disk: checkpoints, averaged weights, a log, and how it stops.

A run folder holds

    checkpoints/step-00001200/   one safetensors file per part, state.json, manifest.json
    log.jsonl                    one line per step, the same bytes whether or not the run was interrupted
    speed.jsonl                  clock times, which no rerun can repeat

A checkpoint appears under its name only when every byte of it is on disk: it is written to a hidden
folder, flushed, described by a manifest of SHA-256 sums, renamed, and read back before an older one is
removed. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from mutoscope.errors import InputError

DONE, TRY_AGAIN = 0, 75  # exit codes of a run: 75 (EX_TEMPFAIL) says "start me again with --resume auto"
STEP_FOLDER = re.compile(r"step-\d{8}")
MANIFEST = "manifest.json"


def say(line: str) -> None:
    """Print one line for the person who watches the run, apart from results on stdout."""
    print(line, file=sys.stderr, flush=True)


# --- nested state dicts <-> flat tensors and JSON


def flatten(state: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Return `state` as JSON, its tensors moved to `tensors` under dotted names that begin with `prefix`.

    Understands tensors, dicts with string or int keys, lists, tuples, str, int, float, bool and None: all
    that state dicts of modules and optimisers hold.
    """
    if isinstance(state, Tensor):
        # A copy even of CPU tensors: safetensors refuses tensors that share storage, which tied weights do.
        tensors[prefix] = state.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": prefix}
    if isinstance(state, Mapping):
        items = [(key, flatten(value, f"{prefix}.{key}", tensors)) for key, value in state.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$items": [[key, value] for key, value in items]}
    if isinstance(state, list | tuple):
        values = [flatten(value, f"{prefix}.{i}", tensors) for i, value in enumerate(state)]
        return {"$tuple": values} if isinstance(state, tuple) else values
    if state is None or isinstance(state, str | bool | int | float):
        return state
    raise TypeError(f"{prefix} is a {type(state).__name__}, which a checkpoint cannot hold")


def unflatten(plan: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `flatten`."""
    if isinstance(plan, list):
        return [unflatten(value, tensors) for value in plan]
    if not isinstance(plan, dict):
        return plan
    match plan:
        case {"$tensor": name}:
            return tensors[name]
        case {"$items": items}:
            return {key: unflatten(value, tensors) for key, value in items}
        case {"$tuple": values}:
            return tuple(unflatten(value, tensors) for value in values)
    return {key: unflatten(value, tensors) for key, value in plan.items()}


# --- files that are whole or absent


def write_durably(path: Path, data: bytes) -> None:
    """Write `data` and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk (a rename is not, before that)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_space(folder: Path, needed: int) -> None:
    """Raise InputError unless the disk of `folder` has `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} has {free / 1e6:.0f} MB free, this run needs about {needed / 1e6:.0f} MB: "
            "free some space, keep fewer checkpoints, or choose another folder."
        )


@contextlib.contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn a failed write (disk full, no permission, broken device) into an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{what} could not be written to {path} ({error.strerror or error}): make room or choose "
            "another folder, then start again with --resume auto; the checkpoints before it are intact."
        ) from error


# --- checkpoints


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Any], meta: Mapping[str, Any], keep: int
) -> Path:
    """Write `folder`/step-NNNNNNNN, whole or not at all, and keep the newest `keep` checkpoints.

    `tensors` maps part names (file names) to nested state dicts, `meta` is any JSON. Older checkpoints are
    removed only after the new one was read back and its sums agree. Raises InputError when the disk refuses;
    what was there before is then untouched.
    """
    final, temporary, aside = (folder / f"{mark}step-{step:08d}" for mark in ("", ".tmp-", ".old-"))
    with writing(f"the checkpoint of step {step}", folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            plan, sums = {}, {}
            for part, state in tensors.items():
                flat: dict[str, Tensor] = {}
                plan[part] = flatten(state, part, flat)
                sums[f"{part}.safetensors"] = _write_summed(
                    temporary / f"{part}.safetensors", to_safetensors(flat)
                )
            document = {"step": step, "parts": plan, "meta": dict(meta)}
            sums["state.json"] = _write_summed(temporary / "state.json", json.dumps(document).encode())
            write_durably(temporary / MANIFEST, json.dumps({"step": step, "sha256": sums}, indent=1).encode())
            sync_folder(temporary)
            if final.exists():  # a corrupt one that we fell back from, or a rerun of the same step
                shutil.rmtree(aside, ignore_errors=True)
                final.rename(aside)
            temporary.rename(final)
            sync_folder(folder)
            shutil.rmtree(aside, ignore_errors=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if aside.exists() and not final.exists():
                aside.rename(final)
            raise
        if (fault := checkpoint_fault(final)) is not None:
            raise OSError(f"read back wrong: {fault}")
        # A later step than this one is a damaged checkpoint that the run fell back from.
        earlier = [path for path in checkpoints(folder) if path.name <= final.name]
        for path in set(checkpoints(folder)) - set(earlier[-max(keep, 1) :]):
            shutil.rmtree(path, ignore_errors=True)
    return final


def _write_summed(path: Path, data: bytes) -> str:
    write_durably(path, data)
    return hashlib.sha256(data).hexdigest()


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in `folder` by step, oldest first (by number: clocks jump, names do not)."""
    found = [path for path in folder.iterdir() if STEP_FOLDER.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def checkpoint_fault(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None."""
    try:
        sums = json.loads((path / MANIFEST).read_bytes())["sha256"]
        for name, expected in sums.items():
            if file_sha256(path / name) != expected:
                return f"{name} does not match its SHA-256"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"unreadable ({error})"
    return None if "state.json" in sums else "state.json is not in the manifest"


def latest_checkpoint(folder: Path, report: Callable[[str], None] = say) -> Path | None:
    """The newest checkpoint whose manifest verifies, or None; each damaged one passed over is reported."""
    for path in reversed(checkpoints(folder)):
        fault = checkpoint_fault(path)
        if fault is None:
            return path
        report(f"{path} is damaged ({fault}); falling back to the checkpoint before it.")
    return None


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (parts, meta) as given to `save_checkpoint`. Raises InputError when the files are damaged."""
    if (fault := checkpoint_fault(path)) is not None:
        raise InputError(f"{path} is not a usable checkpoint ({fault}): resume from another one.")
    document = json.loads((path / "state.json").read_bytes())
    parts = {
        part: unflatten(plan, load_file(path / f"{part}.safetensors"))
        for part, plan in document["parts"].items()
    }
    return parts, document["meta"]


def checkpoint_to_resume(folder: Path, resume: str | None) -> Path | None:
    """The checkpoint in `folder` to start from, None for a new run; resume: None, "auto" or a checkpoint.

    Raises InputError rather than write over an older run or start one unasked.
    """
    if resume is None:
        if checkpoints(folder):
            raise InputError(
                f"{folder.parent} holds a run: continue it with --resume auto, or choose another out."
            )
        return None
    if resume != "auto":
        return Path(resume)
    found = latest_checkpoint(folder)
    if found is None and checkpoints(folder):
        raise InputError(f"no checkpoint in {folder} is usable: delete them to begin anew.")
    return found


def refuse_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str], where: Path
) -> None:
    """Raise InputError when a continuation would train otherwise than the run it continues.

    free: keys that change no weight and may therefore differ.
    """
    changes = [line for key in now if key not in free for line in _changes(key, before.get(key), now[key])]
    if changes:
        raise InputError(
            f"{where} belongs to another config ({'; '.join(changes)}): undo that, or choose another out."
        )


def _changes(name: str, before: Any, now: Any) -> Iterator[str]:
    """Differences by dotted name. A key that is new in a table came with the program: its default is no change."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in now:
            if key in before:
                yield from _changes(f"{name}.{key}", before[key], now[key])
    elif before != now:
        yield f"{name} was {before!r}, is {now!r}"


def sweep(folder: Path) -> None:
    """Remove what killed runs left half written in `folder`; call only while the run folder is claimed."""
    for path in folder.glob(".tmp-step-*") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)
    for path in list(folder.glob(".old-step-*")) if folder.is_dir() else []:
        original = folder / path.name.removeprefix(".old-")
        if original.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(original)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold `folder` for one run; a second run there gets an InputError. A kill frees it."""
    with writing("the run", folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another run is writing to {folder}: wait for it or choose another folder."
            ) from error
        yield


# --- averaged weights


class EMA:
    """Exponential moving average of the parameters of named modules.

    decay in [0, 1); the n-th update uses min(decay, (1 + n) / (10 + n)): the random start is soon forgotten.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"ema decay {decay} is outside 0 to 1 (1 excluded): try 0.995.")
        self.decay, self.updates = decay, 0
        self.live = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
        }
        self.average = {key: parameter.detach().clone() for key, parameter in self.live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the live weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.live.values()], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the modules carry the averaged weights; the live ones come back untouched."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        # Values change places, not tensors: sharded parameters are known by their storage.
        for key, parameter in self.live.items():
            average = self.average[key].clone()
            self.average[key].copy_(parameter)
            parameter.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": dict(self.average)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["average"].keys() != self.average.keys():
            raise InputError(
                "the averaged weights of the checkpoint belong to another model: check the config."
            )
        self.updates = int(state["updates"])
        for key, value in state["average"].items():
            self.average[key].copy_(value)


# --- log, signals, progress


class RunLog:
    """Lines of JSON, one per record, appended; every record carries a "step"."""

    def __init__(self, folder: Path, name: str = "log.jsonl", resumed_step: int = 0) -> None:
        """Open `folder`/`name`, cut to the records up to `resumed_step` (later steps are run again)."""
        self.path = folder / name
        with writing("the log", self.path):
            folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in self._lines() if json.loads(line)["step"] <= resumed_step]
            temporary = folder / f".{name}.tmp"
            write_durably(temporary, b"".join(kept))
            temporary.replace(self.path)
            sync_folder(folder)
            self.file: IO[bytes] = self.path.open("ab")

    def _lines(self) -> list[bytes]:
        """Whole lines only: a kill can tear the last one."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        return [line for line in lines if line.endswith(b"}\n")]

    def write(self, step: int, **record: float | str | None) -> None:
        """Append one record and hand it to the system (a kill of this process does not lose it)."""
        with writing("the log", self.path):
            self.file.write(json.dumps({"step": step, **record}).encode() + b"\n")
            self.file.flush()

    def sync(self) -> None:
        """Wait until all records are on the disk; a checkpoint comes after this."""
        with writing("the log", self.path):
            os.fsync(self.file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All records so far."""
        return [json.loads(line) for line in self._lines()]

    def close(self) -> None:
        self.file.close()


class StopSignal:
    """Within, the first SIGTERM or SIGINT sets `requested`; the loop then saves and exits with TRY_AGAIN.

    A second signal finds the handlers that were there before and acts at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        say(f"{signal.Signals(number).name}: saving a checkpoint, then stopping (once more to stop at once).")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._restore()


class Progress:
    """A line with the time left: a bar on a terminal, a plain line every `every_s` seconds elsewhere."""

    def __init__(self, label: str, total: int, start: int = 0, every_s: float = 20.0) -> None:
        self.label, self.total, self.start, self.every_s = label, total, start, every_s
        self.began = self.last = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn(label), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self.bar = Bar(
                *columns,
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(label, total=total, completed=start, note="")
            self.bar.start()

    def update(self, step: int, note: str = "") -> None:
        """Show that `step` of the total is done; `note` is free text such as the loss."""
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.task, completed=step, note=note)
        elif now - self.last >= self.every_s or step >= self.total:
            self.last = now
            pace = (now - self.began) / max(step - self.start, 1)
            left = clock((self.total - step) * pace)
            say(f"{self.label} {step}/{self.total}  {note}  {pace:.2f} s a step, {left} left")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def clock(seconds: float) -> str:
    """75 -> "1:15", 4000 -> "1:06:40"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
