"""The device that a run trains on: which it is, how it computes, how long it may be used."""

from __future__ import annotations

import ctypes
import platform
import time
from typing import Literal

import torch

from mutoscope.errors import InputError

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]

MALLOPT = {  # of <malloc.h>
    -4: 0,  # M_MMAP_MAX: no block has a mapping of its own, which would be given back
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: nothing is given back from the end of the heap
    -2: 2**28,  # M_TOP_PAD: the heap grows by so many bytes
}


def device_of(name: DeviceName) -> torch.device:
    """The device of a config; "auto" is the GPU if there is one. Raises InputError when it is not there."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise InputError('device is "cuda" and no CUDA device is here: set device = "cpu" or "auto".')
    return torch.device("cuda" if name == "cuda" or (name == "auto" and there) else "cpu")


def dtype_of(precision: Precision) -> torch.dtype:
    """Of activations."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Within, activations have the precision of the config; weights and losses stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def keep_memory() -> None:
    """Have this process keep the memory that it frees, where the C library is glibc: a step needs it again.

    Otherwise every activation of some MiB is fresh memory of the system, whose pages are cleared when they are first
    touched: a tenth of a step (benchmarks/dit.py, with and without --return-memory).
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for option, value in MALLOPT.items():
            library.mallopt(option, value)


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was told, so that clocks tell the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def words_for(device: torch.device) -> str:
    """The machine in a training record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


class Leg:
    """A sitting of at most so many minutes; 0 is without end."""

    def __init__(self, minutes: float) -> None:
        self.minutes, self.began = minutes, time.monotonic()

    @property
    def over(self) -> bool:
        return self.minutes > 0 and time.monotonic() - self.began >= 60 * self.minutes
