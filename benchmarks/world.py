"""Speed of the built-in world on this machine: drawing scenes, rendering them, writing captions.

    python benchmarks/world.py [--threads N] [--clips N]

Medians over five rounds. The target is 60 clips/s at 64x64x17 on two cores.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from mutoscope.world.captions import caption
from mutoscope.world.render import render
from mutoscope.world.scene import EVERYTHING, PLAIN, SceneMix, View, sample_scene

ROUNDS = 5
VIEWS = (View(64, 64, 17), View(64, 64, 1), View(128, 128, 33), View(256, 144, 17))


def per_second(work: Callable[[], object], count: int) -> float:
    """Items per second, median over the rounds."""
    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        rates.append(count / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, mix in (("plain", PLAIN), ("everything", EVERYTHING)):
        print(f"{name}, {options.threads} threads")
        measure(mix, options.clips)


def measure(mix: SceneMix, clips: int) -> None:
    scenes = [sample_scene(seed, mix) for seed in range(clips)]
    rate = per_second(lambda: [sample_scene(scene.seed, mix) for scene in scenes], clips)
    print(f"  {'scenes':<14}{rate:8.0f} /s")
    for view in VIEWS:
        some = scenes[: max(4, 2**24 // (view.width * view.height * view.frames))]
        rate = per_second(partial(render, some, view), len(some))
        print(f"  {f'{view.width}x{view.height}x{view.frames}':<14}{rate:8.1f} clips/s")
    rate = per_second(lambda: [caption(scene, VIEWS[0], "detailed", 0) for scene in scenes], clips)
    print(f"  {'captions':<14}{rate:8.0f} /s")


if __name__ == "__main__":
    main()
