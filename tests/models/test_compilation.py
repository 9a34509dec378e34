"""Compiled blocks compute the same, keep their names, and are refused where nothing can be compiled."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mutoscope.models.compilation import compile_blocks, uncompiled
from mutoscope.models.dit import DiT, DiTConfig
from mutoscope.video import read_recipe

COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@COMPILER
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


@pytest.mark.slow
@COMPILER
def test_a_compiled_clip_says_so_and_is_made_again_bit_for_bit(tmp_path: Path) -> None:
    clip, again = tmp_path / "clip.mp4", tmp_path / "again.mp4"
    words = [
        "a red ball rolls",
        "--seed",
        "1",
        "--frames",
        "5",
        "--steps",
        "3",
        "--candidates",
        "1",
        "--no-expand",
    ]
    mutoscope("generate", *words, "--compile", "-o", str(clip))
    recipe = read_recipe(clip)
    assert recipe is not None
    assert recipe["machine"]["compiled"] is True
    mutoscope("reproduce", str(clip), "-o", str(again))
    assert again.read_bytes() == clip.read_bytes()


@pytest.mark.slow
def test_nothing_is_begun_where_nothing_can_be_compiled(tmp_path: Path) -> None:
    nowhere = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = mutoscope(
        "generate", "a red ball", "--compile", "-o", str(tmp_path / "x.mp4"), expected=2, **nowhere
    )
    assert "--compile" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.mp4").exists()


def mutoscope(*words: str, expected: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mutoscope.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == expected, done.stderr
    return done
