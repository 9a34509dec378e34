"""Devices, precision, compiled blocks, sittings."""

import platform
import shutil
import subprocess
import sys
import time

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.models.dit import DiT, DiTConfig
from mutoscope.training.machine import (
    Leg,
    autocast,
    compile_blocks,
    device_of,
    dtype_of,
    uncompiled,
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_compute_the_same_under_the_same_names() -> None:
    torch.manual_seed(0)
    dit = DiT(DiTConfig(width=32, depth=2, heads=2, mlp_width=64, text_width=16, zero_init=False))
    names = list(dit.state_dict())
    inputs = (torch.randn(2, 16, 3, 4, 4), torch.tensor([500.0, 20.0]), torch.randn(2, 5, 16))
    with torch.no_grad():
        plain = dit(*inputs)
        compile_blocks([dit])
        with uncompiled(compiled=True):
            assert torch.equal(dit(*inputs), plain)
        assert torch.allclose(dit(*inputs), plain, atol=1e-4)
    assert list(dit.state_dict()) == names


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
