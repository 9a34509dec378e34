"""Devices, precision, compiled blocks, sittings."""

import platform
import subprocess
import sys
import time

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.training.machine import (
    Leg,
    autocast,
    device_of,
    dtype_of,
    words_for,
)

CPU = torch.device("cpu")


def test_devices() -> None:
    assert device_of("cpu") == CPU
    if torch.cuda.is_available():
        assert device_of("auto").type == device_of("cuda").type == "cuda"
    else:
        assert device_of("auto") == CPU
        with pytest.raises(InputError, match='set device = "cpu"'):
            device_of("cuda")
    assert "threads" in words_for(CPU)


def test_precision() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    for precision in ("fp32", "bf16"):
        with autocast(CPU, precision):
            assert layer(x).dtype == dtype_of(precision)


def test_a_leg_ends_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    endless, short = Leg(0.0), Leg(9.0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 8.9 * 60)
    assert not short.over
    monkeypatch.setattr(time, "monotonic", lambda: now + 9.1 * 60)
    assert short.over
    assert not endless.over


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_kept_memory_is_not_cleared_again() -> None:
    """A large block is taken and given back many times: its pages are touched for the first time only once."""
    told = "from mutoscope.training.machine import keep_memory; keep_memory()"
    faults = {}
    for name, first in (("kept", told), ("given back", "")):
        program = (
            f"{first}\nimport resource, torch\n"
            "for _ in range(20): torch.ones(8 * 2**20)\n"  # 32 MiB, 8192 pages
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
        )
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        faults[name] = int(done.stdout)
    assert faults["given back"] - faults["kept"] > 10 * 8192
