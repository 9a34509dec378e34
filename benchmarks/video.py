"""Speed of writing and reading video files on this machine, and the memory of a minute of 1080p.

    python benchmarks/video.py [--size 1280x720] [--frames 48] [--rounds 3] [--minute]

Writing and reading run in turn, round by round, so that other work on the machine disturbs both alike; figures
are medians, in frames per wall second and per CPU second. The frames are textured and noisy, hard to code.
`--minute` streams 60 s of 1920x1080 at 24 fps through VideoWriter and tells its peak memory (minutes long).
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mutoscope.video import Video, VideoWriter, read_video


def textured(frames: int, height: int, width: int) -> np.ndarray:
    """Moving waves with noise, (T, H, W, 3) uint8."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    clip = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        wave = 90 * np.sin(x / 17 + index / 3) * np.cos(y / 23 - index / 5) + 128
        noise = random.integers(-12, 13, (height, width, 3))
        clip[index] = (wave[..., None] + noise).clip(0, 255).astype(np.uint8)
    return clip


def rates(work: Callable[[], object], frames: int) -> tuple[float, float]:
    """Frames per wall second and per CPU second."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return frames / (time.perf_counter() - wall), frames / (time.process_time() - cpu)


def minute(folder: Path) -> None:
    """Stream a minute of 1080p; only one frame exists at a time."""
    clip = textured(4, 1080, 1920)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with VideoWriter(folder / "minute.mp4", 1920, 1080, 24) as writer:
        for index in range(1440):
            writer.write(clip[index % 4 : index % 4 + 1])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = (folder / "minute.mp4").stat().st_size / 2**20
    print(
        f"a minute of 1080p: {time.perf_counter() - start:.0f} s, {size:.0f} MiB, {grown:.0f} MiB of memory"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minute", action="store_true")
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    video = Video(textured(options.frames, height, width), 24)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in (".mp4", ".webm"):
            path = folder / f"clip{suffix}"
            written, read = [], []
            for _ in range(options.rounds):
                written.append(rates(partial(video.save, path), options.frames))
                read.append(rates(partial(read_video, path), options.frames))
            for label, found in (("write", written), ("read", read)):
                wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
                print(f"{suffix} {options.size} {label}: {wall:.1f} frames/s, {cpu:.1f} per CPU second")
            print(f"{suffix}: {path.stat().st_size / options.frames / 1024:.0f} KiB a frame")
        if options.minute:
            minute(folder)


if __name__ == "__main__":
    main()
