"""A clip from elsewhere made ours: decoded by a confined child, marked, and written anew with its record inside.

The parent runs `python -m mutoscope.serving.adopt` in the folder where the clip lies under the name `upload`; the
child writes video.mp4, thumbnail.webp and spritesheet.jpg beside it and one line of JSON. Sound is left out.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutoscope.serving.ingest import RAW, confine, python_path
from mutoscope.serving.remote import CONTENT_BYTES

MEMORY_BYTES = 4 * 2**30
CPU_SECONDS = 900
WALL_SECONDS = 1200.0
PIECE = 16
"""Frames that are written at a time."""


@dataclass(frozen=True)
class Clip:
    """What the clip turned out to be."""

    width: int
    height: int
    frames: int
    fps: float


class Unfit(Exception):
    """What came is no video within the limits: the end of a sentence that begins with what it is."""


def adopt(folder: Path, record: Mapping[str, Any], number: int, go_on: Callable[[], bool]) -> Clip | None:
    """Make `folder`/upload ours, and remove it; None when `go_on` said no meanwhile.

    `record` goes into the file, `number` into the picture. Raises Unfit.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "mutoscope.serving.adopt"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **python_path()},
        start_new_session=True,
    )
    asked: bytes | None = json.dumps({"record": record, "number": number}).encode()
    until = time.monotonic() + WALL_SECONDS
    try:
        while go_on() and time.monotonic() < until:
            try:
                output, _ = child.communicate(asked, timeout=0.25)
            except subprocess.TimeoutExpired:
                asked = None  # it is on its way already
                continue
            return _told(output, folder)
    finally:
        child.kill()
        child.communicate()
    if time.monotonic() >= until:
        raise Unfit("cannot be decoded in time")
    return None


def _told(output: bytes, folder: Path) -> Clip:
    try:
        answer = json.loads(output)
    except ValueError as error:
        raise Unfit("cannot be decoded within this server's limits of memory and time") from error
    if "full" in answer:
        raise OSError(28, os.strerror(28))
    if "error" in answer:
        raise Unfit(answer["error"])
    (folder / RAW).unlink()
    return Clip(**answer)


def main() -> None:
    """The child: read what to write from stdin, decode `upload`, write the files, print one line of JSON."""
    confine(MEMORY_BYTES, CPU_SECONDS)
    os.nice(5)
    from mutoscope.containers import Limits
    from mutoscope.errors import InputError
    from mutoscope.serving.sheet import Sheet
    from mutoscope.serving.shelf import is_full_disk
    from mutoscope.video import Video, VideoWriter, read_video, write_video
    from mutoscope.watermark import can_carry, marked

    asked = json.loads(sys.stdin.read())
    limits = Limits(bytes=CONTENT_BYTES, frames=7200, pixels=4096 * 4096, total_pixels=600_000_000)
    try:
        video = read_video(Path(RAW), limits)
        if video.frames < 2:
            raise InputError(f"{RAW} shows a single picture.")
        pieces = (video.frames_THWC[at : at + PIECE] for at in range(0, video.frames, PIECE))
        if can_carry(video.width, video.height):
            pieces = marked(pieces, video.fps, asked["number"])  # type: ignore[assignment]
        sheet = Sheet(video.frames)
        with VideoWriter("video.mp4", video.width, video.height, video.fps, asked["record"]) as writer:
            for piece_THWC in pieces:
                writer.write(piece_THWC)
                sheet.add(piece_THWC)
        write_video("thumbnail.webp", Video(sheet.thumbnail()[None], video.fps))
        write_video("spritesheet.jpg", Video(sheet.picture()[None], video.fps))
        answer: dict[str, object] = {
            "width": video.width,
            "height": video.height,
            "frames": video.frames,
            "fps": video.fps,
        }
    except InputError as error:
        rest = str(error).removeprefix(f"{RAW} ").partition("; ")[0].rstrip(".")
        answer = {"full": True} if is_full_disk(error) else {"error": rest}
    except MemoryError:
        answer = {"error": "needs more memory than a video gets here"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
