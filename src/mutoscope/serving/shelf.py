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
"""

import errno
import os
import secrets
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from mutoscope.serving.jobs import Job, Store

FILES = {
    "video": ("video.mp4", "video/mp4"),
    "thumbnail": ("thumbnail.webp", "image/webp"),
    "spritesheet": ("spritesheet.jpg", "image/jpeg"),
}


@dataclass(frozen=True)
class Shelf:
    """The data folder."""

    root: Path

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
        for path in self.inputs(token).iterdir():
            share(path, self.inputs(copy) / path.name)
        return copy

    def drop_inputs(self, token: str) -> None:
        if token:
            shutil.rmtree(self.inputs(token), ignore_errors=True)

    def new_upload(self) -> Path:
        """A folder for one raw upload."""
        folder = self.root / "uploads" / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def drop(self, job: Job) -> None:
        """Remove everything that belongs to a job; its row is gone already."""
        shutil.rmtree(self.root / "videos" / job.id, ignore_errors=True)
        self.drop_inputs(job.order.inputs)

    def sweep(self, store: Store) -> None:
        """Remove what a kill left behind: files without a row, attempts that were not published, uploads.

        Only to be called while no worker runs and no request is served.
        """
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
