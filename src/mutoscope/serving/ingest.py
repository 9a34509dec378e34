"""Uploaded media, decoded by a child process that cannot do harm: little memory, little time, no network.

The server writes the bytes under a name of its own and runs `python -m mutoscope.serving.ingest KIND FPS` in
that folder; the child writes a normalised file beside them and one line of JSON. Whatever happens to the
child (a crash in a decoder, a bomb, a hang), the server only sees a refused upload.
"""

import asyncio
import ctypes
import errno
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mutoscope.serving.protocol import ApiError

Kind = Literal["picture", "video"]

MEMORY_BYTES = 2**30
CPU_SECONDS = 30
WALL_SECONDS = 60.0
OUTPUT_BYTES = 2**30
AT_ONCE = 2
"""Uploads decoded at the same time."""

NEW_NETWORK = 0x40000000  # unshare(2), CLONE_NEWNET: a network namespace without any interface
RAW = "upload"
NORMAL = {"picture": "normal.png", "video": "normal.mp4"}

_turns = asyncio.Semaphore(AT_ONCE)


@dataclass(frozen=True)
class Media:
    """A normalised file and what it shows."""

    path: Path
    width: int
    height: int
    frames: int
    fps: float


async def normalise(folder: Path, kind: Kind, param: str, fps: float) -> Media:
    """Decode `folder`/upload in a limited child and write it again as PNG, or MP4 of rate `fps`.

    Raises ApiError (400) with a sentence about `param` when the file is not a picture or video within limits, and
    OSError when the disk is full.
    """
    async with _turns:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mutoscope.serving.ingest",
            kind,
            str(fps),
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **python_path()},
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), WALL_SECONDS)
        except (TimeoutError, asyncio.CancelledError) as error:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise
            output = b""
    try:
        answer = json.loads(output)
    except ValueError:
        answer = {
            "error": "cannot be decoded within this server's limits of memory and time; send a smaller one."
        }
    if "full" in answer:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "error" in answer:
        raise ApiError(400, f"invalid_{kind}", f"The {kind} in {param!r} {answer['error']}", param)
    return Media(folder / NORMAL[kind], answer["width"], answer["height"], answer["frames"], answer["fps"])


def python_path() -> dict[str, str]:
    """The search path of this interpreter, for a child that starts with an empty environment."""
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def confine(memory: int = MEMORY_BYTES, seconds: int = CPU_SECONDS) -> None:
    """Bound this process for good: memory, time, files, no core, no network where the kernel lets us."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES, OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a full quota is then an error of the write
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK)


def main(kind: Kind, fps: float) -> None:
    """The child: decode `upload` in the current folder, write the normal form, print one line of JSON."""
    confine()
    os.nice(5)
    from mutoscope.containers import Limits
    from mutoscope.errors import InputError
    from mutoscope.serving.shelf import is_full_disk
    from mutoscope.video import Video, fit_frames_rate, read_video

    limits = {
        "picture": Limits(bytes=32 * 2**20, frames=1, pixels=50_000_000, total_pixels=50_000_000),
        "video": Limits(bytes=64 * 2**20, frames=1500, pixels=4096 * 4096, total_pixels=120_000_000),
    }[kind]
    try:
        video = read_video(Path(RAW), limits)
        if kind == "picture":
            video = Video(video.frames_THWC[:1], video.fps)
        elif video.frames < 2:
            raise InputError(f"{RAW} shows a single picture; send a video.")
        video = fit_frames_rate(Video(video.frames_THWC, video.fps), fps)
        video.save(NORMAL[kind])
        answer: dict[str, object] = {
            "width": video.width,
            "height": video.height,
            "frames": video.frames,
            "fps": video.fps,
        }
    except InputError as error:
        answer = {"full": True} if is_full_disk(error) else {"error": _about_the_upload(str(error))}
    except MemoryError:
        answer = {"error": "needs more memory than an upload gets here; send a smaller one."}
    print(json.dumps(answer))


def _about_the_upload(sentence: str) -> str:
    """The rest of a sentence that begins with the name of the file, or all of it."""
    rest = sentence.removeprefix(f"{RAW} ")
    return rest if rest != sentence else f"was refused: {sentence}"


if __name__ == "__main__":
    main("picture" if sys.argv[1] == "picture" else "video", float(sys.argv[2]))
