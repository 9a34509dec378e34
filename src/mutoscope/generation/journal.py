"""What is made of a long clip is kept on disk as it is made: after a crash the same command goes on from there.

A journal is a hidden folder beside the output, named after a hash of everything that decides the clip. It
holds the latents of each finished window and, of the window at work, what the model said at each step. On the
way back the sampler runs again from its start, but where an answer is kept the model is not asked: so every
sampler resumes at the step where it was, bit for bit, and needs to know nothing of it.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mutoscope import __version__
from mutoscope.config import to_dict
from mutoscope.diffusion.guidance import Branches
from mutoscope.errors import InputError
from mutoscope.files import unwritable, write_atomically
from mutoscope.generation.request import Request, file_sha256
from mutoscope.weights.store import Model

PATIENCE = 1.0
"""Seconds of work that a crash may cost: what was made since the last writing is written when so old."""

SEEDS = 1_000_000
"""A seed that nobody named is below this, as in `request.fill`."""


@dataclass
class Journal:
    """A folder of named tensors, each whole or absent; `found` tells that there were some at the start."""

    folder: Path
    found: bool = False
    _pending: dict[str, Tensor] = field(default_factory=dict)
    _written: float = field(default_factory=time.monotonic)

    def read(self, name: str) -> Tensor | None:
        """A kept tensor; None when there is none, or when it cannot be read (it is then made again)."""
        try:
            with safe_open(self.folder / f"{name}.safetensors", "pt") as file:
                tensor: Tensor = file.get_tensor("latent")
                return tensor
        except (OSError, SafetensorError):
            return None

    def keep(self, name: str, tensor: Tensor) -> None:
        """Write a tensor soon: with the next one that comes after PATIENCE seconds."""
        self._pending[name] = tensor.detach().cpu().clone()
        if time.monotonic() - self._written >= PATIENCE:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises InputError when there is no space."""
        for name, tensor in self._pending.items():
            write_atomically(self.folder / f"{name}.safetensors", save({"latent": tensor.contiguous()}))
        self._pending.clear()
        self._written = time.monotonic()

    def settle(self, name: str, tensor: Tensor) -> None:
        """Keep the result NAME, and drop the NAME-step-n that led to it."""
        for step in [label for label in self._pending if label.startswith(f"{name}-step-")]:
            del self._pending[step]
        steps = list(self.folder.glob(f"{name}-step-*"))
        self.keep(name, tensor)
        if steps:
            self.flush()  # first: a crash between the two loses nothing
            for path in steps:
                path.unlink(missing_ok=True)

    def remembered(self, name: str, branches: Branches) -> Branches:
        """The model with a memory: its n-th answer is kept as NAME-step-n, and is given again if kept.

        Guidance and the step cache stand above it: they come to the same state again from the same answers.
        """
        call = 0

        def answer(latent_BCTHW: Tensor, sigma: Tensor, both: bool, /) -> Tensor:
            nonlocal call
            call += 1
            label = f"{name}-step-{call:04d}"
            kept = self.read(label) if self.found else None
            if kept is not None:
                return kept.to(latent_BCTHW.device)
            x0_BCTHW = branches(latent_BCTHW, sigma, both)
            self.keep(label, x0_BCTHW)
            return x0_BCTHW

        return answer


@dataclass
class Job:
    """The journal of one request, held by one process at a time: a context manager.

    `request` comes out with a seed: the one in the journal, where a run without a seed goes on. The folder is
    removed by `done`; without it, after a crash, Ctrl-C or an error, it stays.
    """

    model: Model
    request: Request
    beside: Path
    journal: Journal = field(init=False)

    def __enter__(self) -> Self:
        """Find the journal of this request that no other process works at, or begin one."""
        digest, number = key(self.model, self.request), 1
        while (lock := _locked(folder := self.beside / f".mutoscope-{digest}-{number}")) is None:
            number += 1
        self._lock, self.journal = lock, Journal(folder, any(folder.glob("*.safetensors")))
        self._settle_seed()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and not isinstance(error, InputError):
                self.journal.flush()
        finally:
            with suppress(OSError):
                self.journal.folder.rmdir()  # when nothing is in it
            os.close(self._lock)

    def done(self) -> None:
        """The clip is written: nothing more is to be remembered."""
        shutil.rmtree(self.journal.folder, ignore_errors=True)

    def keeps(self) -> bool:
        """Write what waits; whether there is something for the next run to go on from."""
        self.journal.flush()
        return any(self.journal.folder.glob("window-*"))

    def _settle_seed(self) -> None:
        """The seed of the run that is gone on with; else a new one, which the journal tells."""
        if self.request.seed is not None:
            return
        kept = self.journal.read("seed")
        seed = secrets.randbelow(SEEDS) if kept is None else int(kept)
        self.request = replace(self.request, seed=seed)
        if kept is None:
            self.journal.keep("seed", torch.tensor(seed))


def _locked(folder: Path) -> int | None:
    """Make a folder and lock it; None when another process holds it. The kernel frees it after a crash."""
    while True:
        try:
            folder.mkdir(exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # taken away between the two
            continue
        except OSError as error:
            raise unwritable(folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.is_dir() and os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
            os.close(descriptor)  # the one before removed the folder after its work
        except OSError:
            os.close(descriptor)
            return None


def key(model: Model, request: Request) -> str:
    """16 hexadecimal digits of what decides a clip: the request, its pictures, the weights, the machine."""
    pictures = [request.image, request.last_image, *(Path(frame.image) for frame in request.at)]
    pictures += request.references
    facts = {
        "mutoscope": __version__,
        "request": to_dict(request),
        "pictures": [path and file_sha256(path) for path in pictures],
        "model": model.identity,
        "torch": [torch.__version__, torch.get_num_threads(), str(model.vae.latent_mean.device)],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
