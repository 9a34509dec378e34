"""Whether this installation works: each check tries the thing itself and says what to do when it fails.

Layer: just below the command line; it may look into every room.
"""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mutoscope.errors import InputError

GIBI = 2**30
BUILT_FOR_TORCH = ("torchvision", "torchaudio", "torchcodec")
"""Packages whose binaries must match torch's: with the wrong build, importing transformers fails too."""


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and when something is wrong the remedy."""

    name: str
    found: str
    remedy: str | None = None


def examine() -> list[Finding]:
    """All findings; a check that raises is a finding too."""
    return [_guarded(name, check) for name, check in CHECKS.items()]


def _guarded(name: str, check: Callable[[], tuple[str, str | None]]) -> Finding:
    try:
        return Finding(name, *check())
    except InputError as error:
        return Finding(name, str(error), "Get the model again: make install.")
    except Exception as error:  # whatever breaks here is what we are looking for
        reason = " ".join(str(error).split())
        return Finding(
            name, f"{type(error).__name__}: {reason}", "Install again in a fresh environment: make demo."
        )


def _python() -> tuple[str, str | None]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return found, None if sys.version_info >= (3, 11) else "Mutoscope needs Python 3.11 or newer."


def _torch() -> tuple[str, str | None]:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads", None


def _companions() -> tuple[str, str | None]:
    """Import what was built against a certain torch, if it is there."""
    present, broken = [], []
    for name in BUILT_FOR_TORCH:
        try:
            present.append(f"{name} {importlib.metadata.version(name)}")
            importlib.import_module(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        except Exception:
            broken.append(name)
    if broken:
        return f"{' and '.join(broken)} cannot be imported beside this torch", (
            f"Mutoscope does not need it: pip uninstall {' '.join(broken)}."
        )
    return ", ".join(present) or "none installed, none needed", None


def _device() -> tuple[str, str | None]:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), None
    return f"cpu with {os.cpu_count()} cores (no CUDA device)", None


def _speed() -> tuple[str, str | None]:
    """The rate of float32 matrix products, best of a fifth of a second."""
    import torch

    size, best = 1024, float("inf")
    left, right = torch.ones(size, size), torch.ones(size, size)
    until = time.perf_counter() + 0.2
    while time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    rate = 2 * size**3 / best / 1e9
    return (
        f"{rate:.0f} GFLOP/s in float32 on the CPU",
        None if rate > 5 else "The machine is very slow or busy.",
    )


def _memory() -> tuple[str, str | None]:
    import torch

    from mutoscope.generation.plan import free_memory

    free = free_memory(torch.device("cpu"))
    return (
        f"{free / GIBI:.1f} GiB free",
        None if free > GIBI / 2 else "Close other programs: 0.5 GiB are needed.",
    )


def _disk() -> tuple[str, str | None]:
    free = shutil.disk_usage(Path.cwd()).free
    if not os.access(Path.cwd(), os.W_OK):
        return f"{Path.cwd()} cannot be written", "Change to a folder of your own, or name one with -o."
    return (
        f"{free / GIBI:.1f} GiB free here",
        None if free > GIBI / 4 else "Free some space: 0.25 GiB are needed.",
    )


def _video() -> tuple[str, str | None]:
    """Write and read back a clip in each streamed format."""
    from mutoscope.video import Video, read_video, write_video

    frames_THWC = np.zeros((5, 32, 48, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".mp4", ".webm", ".gif"):
            path = write_video(Path(folder) / f"clip{suffix}", Video(frames_THWC, 8.0))
            if read_video(path).frames_THWC.shape != frames_THWC.shape:
                return (
                    f"{suffix} does not come back as it was written",
                    "Install av again: pip install --force av.",
                )
    return "MP4, WebM and GIF are written and read", None


def _model() -> tuple[str, str | None]:
    """Load the built-in model, which compares the sha256 of its files."""
    from mutoscope.weights.store import load

    start = time.perf_counter()
    card = load("tiny").card
    return f"{card.name} is whole, loaded in {time.perf_counter() - start:.1f} s", None


def _terminal() -> tuple[str, str | None]:
    from rich.console import Console

    console = Console()
    if console.is_terminal and console.color_system is not None and not console.no_color:
        return f"{console.width} columns, {console.color_system} colours: previews are shown", None
    return "not a colour terminal: plain lines instead of previews", None


CHECKS: dict[str, Callable[[], tuple[str, str | None]]] = {
    "python": _python,
    "torch": _torch,
    "companions": _companions,
    "device": _device,
    "speed": _speed,
    "memory": _memory,
    "disk": _disk,
    "video": _video,
    "model": _model,
    "terminal": _terminal,
}
