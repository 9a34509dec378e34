"""Scenes and their wordings by seed, made ahead by other processes if there are any; needs no torch."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from mutoscope.world.captions import Kind, caption
from mutoscope.world.scene import Scene, SceneMix, View, sample_scene

PART = 32  # clips that a process makes at a time


@dataclass(frozen=True)
class Row:
    """A scene and one wording of every kind."""

    scene: Scene
    texts: dict[Kind, str]


def make_rows(seeds: Sequence[int], mix: SceneMix, view: View, kinds: Sequence[Kind]) -> list[Row]:
    """The rows of some seeds: a pure function."""
    scenes = [sample_scene(seed, mix) for seed in seeds]
    return [Row(scene, {kind: caption(scene, view, kind, 0) for kind in kinds}) for scene in scenes]


def _stay_with_the_run(run: int) -> None:
    """In a worker: signals to the whole group are for the run to answer; when it is gone, so is the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(run,), daemon=True).start()


def _leave_with(run: int) -> None:
    while os.getppid() == run:
        time.sleep(1.0)
    os._exit(0)


class RowMaker:
    """Rows of seeds, in this process or by `workers` others; what was expected is made while others wait."""

    def __init__(self, workers: int, kinds: Sequence[Kind]) -> None:
        self.kinds = tuple(kinds)
        self._coming: dict[tuple[int, ...], list[Future[list[Row]]]] = {}
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            # Spawned, not forked: a fork of a process that has used a GPU cannot.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, context, _stay_with_the_run, (os.getpid(),))

    def expect(self, seeds: Sequence[int], mix: SceneMix, view: View) -> None:
        """Begin to make rows that will be asked for in these words."""
        if self._pool is None or tuple(seeds) in self._coming:
            return
        parts = [list(seeds[start : start + PART]) for start in range(0, len(seeds), PART)]
        with contextlib.suppress(BrokenProcessPool):  # then they are made when they are asked for
            self._coming[tuple(seeds)] = [
                self._pool.submit(make_rows, part, mix, view, self.kinds) for part in parts
            ]

    def rows(self, seeds: Sequence[int], mix: SceneMix, view: View) -> list[Row]:
        """The rows of the seeds, in their order; made here when a worker has died."""
        self.expect(seeds, mix, view)
        try:
            return [row for part in self._coming.pop(tuple(seeds)) for row in part.result()]
        except (KeyError, BrokenProcessPool):
            return make_rows(seeds, mix, view, self.kinds)

    def close(self) -> None:
        """End the other processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
