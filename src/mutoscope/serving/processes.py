"""Who runs: a mark for a process that no later process can bear, and the tie of a child to its parent."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

SET_PARENT_DEATH_SIGNAL = 1  # prctl(2), PR_SET_PDEATHSIG


def owner_of(pid: int) -> str:
    """Boot, process number and start time: numbers are reused, the three together are not."""
    return f"{_boot()}:{pid}:{_start_time(pid)}"


def is_gone(owner: str) -> bool:
    """Whether the process of an owner mark has certainly ended (False where that cannot be told)."""
    boot, pid, started = owner.split(":")
    if boot != _boot():
        return True
    if not Path("/proc/self/stat").exists():
        return False
    return _start_time(int(pid)) != started


def is_of_this_boot(owner: str) -> bool:
    """Whether an owner mark was made here, by a process that we could see."""
    return owner.split(":")[0] == _boot()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, however it ends (Linux only)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _boot() -> str:
    """This boot of this machine; within a container also which: process numbers are told per namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{''.join(filter(str.isdigit, os.readlink('/proc/self/ns/pid')))}"
    except OSError:
        return "here"


def _start_time(pid: int) -> str:
    """Ticks since boot at which a process began; "" when there is none, or only its remains (a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
