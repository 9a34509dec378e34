"""Tensors from files of other people: what a `.pth` may hold and what is refused, weights in 8 bits with scales."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.weights.tensor_files import opened, read_shapes


class Shell:
    """What a hostile pickle does."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("pickle-ran",)


def test_a_pth_of_tensors_is_mapped_and_equal(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(3, 5).bfloat16(), "b": torch.nn.Parameter(torch.randn(7))}
    torch.save(state, tmp_path / "w.pth")
    assert read_shapes(tmp_path / "w.pth") == {"a.weight": (3, 5), "b": (7,)}
    with opened(tmp_path / "w.pth") as file:
        for key, tensor in state.items():
            assert torch.equal(file.get(key), tensor)
            assert not file.get(key).requires_grad


@pytest.mark.parametrize("content", ["code", "list", "names", "nested", "sparse", "wide"])
def test_a_pth_of_anything_else_is_refused_and_nothing_runs(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    things: dict[str, Any] = {
        "code": {"w": torch.zeros(2), "x": Shell()},
        "list": [torch.zeros(2)],
        "names": {1: torch.zeros(2)},
        "nested": {"state_dict": {"w": torch.zeros(2)}},
        "sparse": {"w": torch.eye(3).to_sparse()},
        "wide": {"w": torch.zeros(1).expand(1 << 40)},  # four bytes that would be copied as terabytes
    }
    torch.save(things[content], "w.pth")
    with pytest.raises(InputError, match="give the model in safetensors") as caught:
        read_shapes(tmp_path / "w.pth")
    assert "w.pth" in str(caught.value)
    assert not Path("pickle-ran").exists()


def test_bare_pickles_damaged_and_compressed_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(InputError, match="outside of a zip file"):
        read_shapes(path)
    torch.save({"w": torch.zeros(100_000)}, path)
    with (
        zipfile.ZipFile(path) as whole,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for part in whole.infolist():
            small.writestr(part.filename, whole.read(part))
    with pytest.raises(InputError, match="larger inside than on disk"):
        read_shapes(tmp_path / "small.pth")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"w\.pth"):
        read_shapes(path)


@pytest.mark.parametrize("scale", [torch.tensor(0.25), torch.tensor([[0.5], [2.0], [4.0]])])
def test_weights_in_8_bits_are_multiplied_by_their_scales(scale: Tensor, tmp_path: Path) -> None:
    weight = torch.randn(3, 4).to(torch.float8_e4m3fn)
    for name in ("scale_weight", "weight_scale"):
        tensors = {
            "l.weight": weight,
            f"l.{name}": scale,
            "l.scale_input": torch.ones(1),
            "scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn),
            "n.weight": torch.ones(2),
        }
        save_file(tensors, tmp_path / "w.safetensors")
        assert read_shapes(tmp_path / "w.safetensors") == {"l.weight": (3, 4), "n.weight": (2,)}
        with opened(tmp_path / "w.safetensors") as file:
            assert torch.equal(file.get("l.weight"), weight.float() * scale)
    save_file({"l.weight": weight, "l.scale_weight": torch.ones(2)}, tmp_path / "w.safetensors")
    with opened(tmp_path / "w.safetensors") as file, pytest.raises(InputError, match="2 scales for 3 rows"):
        file.get("l.weight")
