"""Where the server keeps things: one data folder, names made by the server, every file whole or absent.

jobs.sqlite3                     the store
provenance/                      ca.pem ca.key signer.pem signer.key, made on first use
policy.toml                      what may be made here, if somebody wrote it
videos/JOB/LEASE/                video.mp4 thumbnail.webp spritesheet.jpg recipe.json, by one attempt
videos/JOB/preview.webp          the look of a running job
videos/JOB/steps/                what the model said so far, for the next attempt (see `generation.journal`)
inputs/TOKEN/                    first.png last.png video.mp4, normalised uploads
characters/CHARACTER/video.mp4
uploads/                         raw uploads, removed at the end of their request

With objects (see `objects`), finished videos and inputs are kept there under the same names, which every machine
sees; the folder then holds copies of them.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutoscope.errors import InputError
from mutoscope.files import hidden_name
from mutoscope.serving.jobs import Job, Store
from mutoscope.serving.objects import Objects

FILES = {
    "video": ("video.mp4", "video/mp4"),
    "thumbnail": ("thumbnail.webp", "image/webp"),
    "spritesheet": ("spritesheet.jpg", "image/jpeg"),
}


@dataclass(frozen=True)
class Shelf:
    """The data folder, and the objects behind it, if there are any."""

    root: Path
    objects: Objects | None = None

    @property
    def database(self) -> Path:
        return self.root / "jobs.sqlite3"

    @property
    def provenance(self) -> Path:
        """Folder of the keys that sign."""
        return self.root / "provenance"

    @property
    def policy(self) -> Path:
        """What may be made here (see `policy.read_policy`)."""
        return self.root / "policy.toml"

    def attempt(self, job: Job) -> Path:
        """Folder of the files of one attempt; the published ones are those of the row's lease."""
        return self.root / "videos" / job.id / str(job.lease)

    def preview(self, job: Job) -> Path:
        return self.root / "videos" / job.id / "preview.webp"

    def steps(self, job: Job) -> Path:
        return self.root / "videos" / job.id / "steps"

    def inputs(self, token: str) -> Path:
        return self.root / "inputs" / (token or "none")

    def character(self, identifier: str) -> Path:
        return self.root / "characters" / identifier

    def new_inputs(self) -> str:
        """Make a folder for the inputs of one request; returns its token."""
        token = secrets.token_hex(16)
        self.inputs(token).mkdir(parents=True)
        return token

    def copy_inputs(self, token: str) -> str:
        """The same inputs under a token of their own, so that each job can be deleted alone."""
        if not token:
            return ""
        copy = self.new_inputs()
        for path in self.bring(self.inputs(token)).iterdir():
            share(path, self.inputs(copy) / path.name)
        return copy

    def drop_inputs(self, token: str) -> None:
        if token:
            self.remove(self.inputs(token))

    def new_upload(self) -> Path:
        """A folder for one raw upload."""
        folder = self.root / "uploads" / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def drop(self, job: Job) -> None:
        """Remove everything that belongs to a job; its row is gone already."""
        self.remove(self.root / "videos" / job.id)
        self.drop_inputs(job.order.inputs)

    # --- the objects ------------------------------------------------------------------------------

    def send(self, folder: Path) -> None:
        """Let every machine see the files of a folder. Raises Unreachable."""
        if self.objects is not None:
            for path in folder.iterdir():
                self.objects.put(self._name(path), path)

    def bring(self, folder: Path) -> Path:
        """The same folder, whole if it was sent and nothing was here; left absent if there is none anywhere.

        Raises Unreachable.
        """
        if self.objects is None or folder.is_dir():
            return folder
        names = self.objects.names(f"{self._name(folder)}/")
        partial = hidden_name(folder)
        try:
            for name in names:
                partial.mkdir(parents=True, exist_ok=True)
                self.objects.get(name, partial / Path(name).name)
            if names:
                os.rename(partial, folder)
        except OSError:
            if not folder.is_dir():  # else somebody else was faster
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def remove(self, folder: Path) -> None:
        """Remove a folder here and for every machine; what cannot be reached now is left to `sweep`."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.objects is not None:
            with contextlib.suppress(sqlite3.OperationalError):
                self.objects.remove(self.objects.names(f"{self._name(folder)}/"))

    def forget(self, job: Job) -> None:
        """Remove the copies that are here of what belongs to a job."""
        shutil.rmtree(self.root / "videos" / job.id, ignore_errors=True)
        if job.order.inputs:
            shutil.rmtree(self.inputs(job.order.inputs), ignore_errors=True)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def sweep(self, store: Store) -> None:
        """Remove what a kill left behind: files without a row, attempts that were not published, uploads.

        Only to be called while no worker runs on this folder and no request is served. Objects of unfinished jobs
        are left alone: workers on other machines may be writing them.
        """
        self._sweep_objects(store)
        leases, inputs, characters = store.known_files()
        unfinished = store.unfinished()
        shutil.rmtree(self.root / "uploads", ignore_errors=True)
        for folder in _inside(self.root / "videos"):
            if folder.name not in leases:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for path in _inside(folder):
                if path.name == "preview.webp":
                    path.unlink(missing_ok=True)
                elif path.name == "steps" and folder.name in unfinished:
                    continue
                elif path.name != str(leases[folder.name]):
                    shutil.rmtree(path, ignore_errors=True)
        for known, name in ((inputs, "inputs"), (characters, "characters")):
            for folder in _inside(self.root / name):
                if folder.name not in known:
                    shutil.rmtree(folder, ignore_errors=True)

    def _sweep_objects(self, store: Store) -> None:
        if self.objects is None:
            return
        videos, taken = self.objects.names("videos/"), self.objects.names("inputs/")
        unfinished = store.unfinished()  # after the names: what is finished since then was not among them
        leases, inputs, _ = store.known_files()
        stray = [name for name in taken if name.split("/")[1] not in inputs]
        for name in videos:
            _, job, lease, *_ = name.split("/")
            if job not in unfinished and lease != str(leases.get(job)):
                stray.append(name)
        self.objects.remove(stray)


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the lock of a data folder. Raises InputError while another process does, or when it cannot be used."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (root / "lock").open("w")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"The data folder {root} cannot be used: {reason}; choose another with --data."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"Another server uses the data folder {root}; stop it, or choose another folder with --data."
            ) from error
        yield


def share(path: Path, other: Path) -> None:
    """A second name for a file, or a copy where the disk has no second names. Raises FileNotFoundError."""
    try:
        os.link(path, other)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, other)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, a disk without space."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
