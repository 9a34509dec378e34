"""One worker: a process with one model on one device that takes jobs, makes them and publishes them.

Run by the server as `python -m mutoscope.serving.worker DATA MODEL DEVICE WEIGHTS NAME KEEP`, then it dies with the
server; or alone on another machine, with `mutoscope worker`. It stops a cancelled job within one sampler step, and on
SIGTERM ends the running job or gives it back.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.files import replacing_folder
from mutoscope.generation.journal import Journal
from mutoscope.generation.preview import shrink, thumbnail
from mutoscope.serving.database import Unreachable
from mutoscope.serving.jobs import Job, Store
from mutoscope.serving.objects import open_objects
from mutoscope.serving.policy import Policy, Refused, judge, read_policy
from mutoscope.serving.processes import die_with_parent
from mutoscope.serving.provenance import Authority, Relation, Source, open_authority, seal
from mutoscope.serving.sheet import SMALL
from mutoscope.serving.shelf import Shelf, alone, is_full_disk
from mutoscope.serving.tasks import Stopped, make
from mutoscope.video import Video, write_video
from mutoscope.weights.store import Model, load

BEAT = 5.0
"""Seconds between heartbeats."""

STALL = 900.0
"""Seconds without a sampler step after which a job counts as hung: its lease is no longer renewed."""

WRITE_EVERY = 0.3
"""Seconds between writes of the progress; cancellation is looked up at every step."""

PREVIEW_EVERY = 1.0
TRIES = 20
"""Times, a second apart, that a store which does not answer is told how a job ended."""

DRAIN = 20.0
"""Seconds that the running job gets to end after SIGTERM."""

RELATIONS: dict[str, Relation] = {
    "remix": "remixed_from",
    "extend": "extended_from",
    "edit": "edited_from",
}

log = logging.getLogger("mutoscope.worker")


Draw = Callable[["Place", Job, Path, "Progress"], None]
"""Writes the files of a job into a folder (see `tasks.make`)."""


def with_model(place: "Place", job: Job, folder: Path, progress: "Progress") -> None:
    """Draw with the model of the place."""
    assert place.model is not None
    inputs = place.shelf.inputs(job.order.inputs)
    make(place.model, job.order, inputs, folder, progress, _journal(place.shelf, place.model, job))


@dataclass(frozen=True)
class Place:
    """What a worker works with; `keep_seconds` is how long a finished video is kept (None: for good).

    Without a model something else draws: another server (see `backend`). `is_apart` on a machine without a server:
    nothing is kept there once it is sent.
    """

    shelf: Shelf
    store: Store
    model: Model | None
    owner: str
    keep_seconds: float | None
    authority: Authority | None = None
    policy: Policy = field(default_factory=Policy)
    draw: Draw = with_model
    is_apart: bool = False


class Drain:
    """SIGTERM or SIGINT: take no new job, and after DRAIN seconds give the running one back."""

    def __init__(self) -> None:
        self.since: float | None = None
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.since = self.since or time.monotonic()

    @property
    def is_asked(self) -> bool:
        return self.since is not None

    @property
    def is_over(self) -> bool:
        return self.since is not None and time.monotonic() - self.since > DRAIN


class Heartbeat(threading.Thread):
    """Renews the worker's entry and the lease of its job, unless the job makes no steps any more."""

    def __init__(self, place: Place) -> None:
        super().__init__(daemon=True)
        self.place = place
        self.job: Job | None = None
        self.last_step = time.monotonic()
        self.written_off = False

    def run(self) -> None:
        while True:
            with contextlib.suppress(sqlite3.OperationalError):  # a full disk must not end the heartbeat
                self.written_off = not self.place.store.beat(self.place.owner)
                job = self.job
                if job is not None and time.monotonic() - self.last_step < STALL:
                    self.place.store.renew(job)
            time.sleep(BEAT)


class Progress:
    """Tells the store and the preview how far a job is, and whether to go on."""

    def __init__(self, place: Place, job: Job, heartbeat: Heartbeat, drain: Drain) -> None:
        self.place, self.job, self.heartbeat, self.drain = place, job, heartbeat, drain
        self.written = self.shown = time.monotonic()
        self.percent = 0
        self.is_given_back = False

    def __call__(self, percent: int, x0_BCTHW: Tensor | None) -> bool:
        now = time.monotonic()
        self.heartbeat.last_step = now
        self.percent = max(self.percent, percent)
        if self.drain.is_over:
            self.is_given_back = True
            return False
        go_on = True
        with contextlib.suppress(Unreachable):  # who lost the lease meanwhile cannot publish anyway
            if now - self.written >= WRITE_EVERY:
                self.written = now
                go_on = self.place.store.advance(self.job, self.percent)
            else:
                go_on = self.place.store.holds(self.job)
        model = self.place.model
        if go_on and model is not None and x0_BCTHW is not None and now - self.shown >= PREVIEW_EVERY:
            self.shown = now
            self._show(model, x0_BCTHW[0])
        return go_on

    def _show(self, model: Model, latent_CTHW: Tensor) -> None:
        """A small picture of the middle of the clip as foreseen now; not worth an error."""
        with contextlib.suppress(InputError, FloatingPointError):
            frame_HWC = thumbnail(model.vae, latent_CTHW, latent_CTHW.shape[1] // 2)
            path = self.place.shelf.preview(self.job)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, Video(shrink(frame_HWC, SMALL, SMALL)[None], self.job.order.fps))


def work(place: Place, drain: Drain) -> int:
    """Take jobs until asked to stop; returns the exit code (75: written off, to be replaced)."""
    heartbeat = Heartbeat(place)
    heartbeat.start()
    while not drain.is_asked:
        if heartbeat.written_off:
            log.warning("written off while silent; leaving")
            return 75
        try:
            job = place.store.claim(place.owner)
        except sqlite3.OperationalError as error:
            log.error("cannot claim a job: %s", error)
            time.sleep(1)
            continue
        if job is None:
            time.sleep(0.5 if place.store.database.is_shared else 0.1)
            continue
        heartbeat.job, heartbeat.last_step = job, time.monotonic()
        do(place, job, Progress(place, job, heartbeat, drain))
        heartbeat.job = None
    with contextlib.suppress(Unreachable):
        place.store.write_off(place.owner)
    return 0


def do(place: Place, job: Job, progress: Progress) -> None:
    """Make one job and publish it, or record why not; what is not published leaves no file."""
    started = time.monotonic()
    folder = place.shelf.attempt(job)
    published: bool | None = False
    try:
        _check_model(place, job)
        if job.order.inputs:
            place.shelf.bring(place.shelf.inputs(job.order.inputs))
        with replacing_folder(folder) as partial:
            place.draw(place, job, partial, progress)
            refusal = judge(place.policy, "publish", job.order, partial / "spritesheet.jpg")
            if refusal is not None:
                raise Refused(refusal)
            seal(partial, job.id, place.authority, _sources(place, job))
        place.shelf.send(folder)
        published = _publish(place, job)
        log.info("%s %s in %.1f s", job.id, "completed" if published else "lost", time.monotonic() - started)
    except Stopped:
        if progress.is_given_back:
            place.store.release(job)
        log.info("%s %s", job.id, "given back" if progress.is_given_back else "stopped")
    except Exception as error:
        reason = explain(error)
        if reason["code"] == "server_error":
            log.exception("%s failed", job.id)
        else:
            log.info("%s failed: %s", job.id, reason["code"])
        _record_failure(place, job, reason)
    finally:
        place.shelf.preview(job).unlink(missing_ok=True)
        if published is False:
            place.shelf.remove(folder)
        with contextlib.suppress(OSError, sqlite3.OperationalError):
            if job.id not in place.store.unfinished():
                shutil.rmtree(place.shelf.steps(job), ignore_errors=True)
                if place.is_apart:
                    place.shelf.forget(job)
            folder.parent.rmdir()


def _publish(place: Place, job: Job) -> bool | None:
    """Whether this attempt is the video now; None when the store did not say so for TRIES seconds.

    When an answer was lost, the row tells whether it had been a yes.
    """
    keep = place.keep_seconds
    for _ in range(TRIES):
        try:
            if place.store.complete(job, None if keep is None else int(time.time() + keep)):
                return True
            found = place.store.find(job.id)
            return found is not None and (found.status, found.lease) == ("completed", job.lease)
        except Unreachable:
            time.sleep(1)
    return None


def _check_model(place: Place, job: Job) -> None:
    """A worker on another machine may have been started with another model than the server's."""
    if place.is_apart and place.model is not None and job.order.served_by != place.model.card.name:
        raise Failed(
            "wrong_model",
            f"A worker with the model {place.model.card.name!r} took this video of {job.order.served_by!r}; start "
            "all workers with the server's model.",
        )


def _journal(shelf: Shelf, model: Model, job: Job) -> Journal:
    """What earlier attempts at a job left, if they were made with these very weights."""
    folder = shelf.steps(job) / hashlib.sha256(model.identity.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return Journal(folder, any(folder.glob("*.safetensors")))


def _sources(place: Place, job: Job) -> tuple[Source, ...]:
    """The clip that a job started from, with its file while that is there."""
    relation = RELATIONS.get(job.order.task)
    if relation is None or not job.order.source:
        return ()
    source = place.store.get(job.tenant, job.order.source)
    path = place.shelf.bring(place.shelf.attempt(source)) / "video.mp4" if source is not None else None
    return (Source(relation, job.order.source, path),)


class Failed(Exception):
    """A job ends with this sentence, and a code of its own."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def explain(error: BaseException) -> dict[str, Any]:
    """The error of a failed job: a code for programs, a sentence for people, no internals."""
    if is_full_disk(error):
        return _failure(
            "storage_full", "The server's disk is full; free some space and create the video again."
        )
    match error:
        case Refused():
            return _failure(error.refusal.code, error.refusal.reason)
        case Failed():
            return _failure(error.code, str(error))
        case InputError():
            return _failure("invalid_request", str(error))
        case Unreachable():
            return _failure(
                "storage_unavailable", "The server's storage does not answer; create the video again later."
            )
        case _ if _is_out_of_memory(error):
            return _failure(
                "out_of_memory", "The memory did not suffice; ask for a smaller or shorter video."
            )
        case FloatingPointError():
            return _failure(
                "numerical_error", "The model made values that are not numbers; try another seed or guidance."
            )
    return _failure("server_error", "The server failed to make this video; its log tells why.")


def _failure(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message}


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)  # torch's word for it on a CPU


def _record_failure(place: Place, job: Job, reason: dict[str, Any]) -> None:
    """Fail the job; while the store itself cannot be written, try again for as long as the lease lasts."""
    for _ in range(TRIES):
        try:
            place.store.fail(job, reason)
            return
        except sqlite3.OperationalError:
            time.sleep(1)


@dataclass(frozen=True)
class Alone:
    """How a worker runs on a machine of its own: with the server's database, objects and model.

    `data` is its own folder; `policy.toml` and `provenance/` in it are to be the server's.
    """

    data: Path
    database: str = field(repr=False)
    objects: str
    model: str
    device: str
    weights: str
    name: str
    keep_seconds: float | None


def work_alone(config: Alone) -> int:
    """Work for a server elsewhere until SIGTERM or Ctrl-C; returns the exit code of `work`.

    Raises InputError for a database, objects, a model or a folder that cannot be used.
    """
    begin_log()
    drain = Drain()
    shelf = Shelf(config.data.absolute(), open_objects(config.objects))
    store = Store(config.database)
    with alone(shelf.root):
        for name in ("videos", "inputs"):
            shutil.rmtree(shelf.root / name, ignore_errors=True)  # of a run that was killed
        model = load(config.model, config.device or None, weights=config.weights)
        place = _place(shelf, store, model, config.name, config.keep_seconds)
        log.info("ready with the model %s on %s", model.card.name, model.vae.latent_mean.device)
        return work(replace(place, is_apart=True), drain)


def _place(shelf: Shelf, store: Store, model: Model, name: str, keep_seconds: float | None) -> Place:
    policy, authority = read_policy(shelf.policy), open_authority(shelf.provenance)
    owner = store.register(name, model.card.name, str(model.vae.latent_mean.device))
    return Place(shelf, store, model, owner, keep_seconds, authority, policy)


def opened(data: str) -> tuple[Shelf, Store]:
    """The shelf and the store of a server's folder, those that its environment names. Raises InputError."""
    objects = os.environ.get("MUTOSCOPE_OBJECTS")
    shelf = Shelf(Path(data), open_objects(objects) if objects else None)
    return shelf, Store(os.environ.get("MUTOSCOPE_DATABASE") or shelf.database)


def begin_log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)


def main(arguments: list[str]) -> int:
    data, name_or_path, device, weights, name, keep = arguments
    die_with_parent()
    begin_log()
    drain = Drain()
    try:
        shelf, store = opened(data)
        model = load(name_or_path, device or None, weights=weights)
        place = _place(shelf, store, model, name, float(keep) if keep else None)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return work(place, drain)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
