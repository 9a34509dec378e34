"""Tensors from files of other people: what a `.pth` may hold and what is refused, weights in 8 bits with scales."""

from __future__ import annotations

import json
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


def test_a_file_larger_than_the_memory_is_mapped(tmp_path: Path) -> None:
    """Sparse, of 2 TiB: the header, and a tensor at its end."""
    path, large = tmp_path / "w.safetensors", 2**41
    told = {
        "large": {"dtype": "BF16", "shape": [2**20, 2**20], "data_offsets": [0, large]},
        "last": {"dtype": "F32", "shape": [2], "data_offsets": [large, large + 8]},
    }
    header = json.dumps(told).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.seek(large, os.SEEK_CUR)
        file.write(torch.tensor([1.0, 2.0]).numpy().tobytes())
    assert read_shapes(path) == {"large": (2**20, 2**20), "last": (2,)}
    with opened(path) as weights:
        assert weights.get("last").tolist() == [1.0, 2.0]
        assert not weights.get("large")[5].any()


def test_what_the_library_writes_is_read_as_it_reads_it(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)
    tensors = {str(kind): torch.randn(3, 5).to(kind) for kind in kinds}
    tensors |= {
        "none": torch.empty(0, 4),
        "one": torch.tensor(3.0),
        "odd": torch.randn(3).to(torch.float8_e5m2),
    }
    save_file(tensors, tmp_path / "w.safetensors", {"format": "pt"})
    with opened(tmp_path / "w.safetensors") as file:
        assert file.entries.keys() == tensors.keys()
        for key, tensor in tensors.items():
            found = file.get(key)
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found.double(), tensor.double())


def test_a_tensor_at_an_odd_place_is_read(tmp_path: Path) -> None:
    told = {
        "a": {"dtype": "F8_E5M2", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    header = json.dumps(told).encode()
    values = torch.tensor([1.0, 2.0]).numpy().tobytes()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"abc" + values)
    with opened(tmp_path / "w.safetensors") as file:
        assert file.get("b").tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "told",
    [
        [],
        {"w": 1},
        {"w": {"dtype": "F32", "shape": [2]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 7]}},
        {"w": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}},
        {"w": {"dtype": "I4", "shape": [4], "data_offsets": [8, 0]}},
    ],
)
def test_headers_that_do_not_tell_the_file_are_refused(told: object, tmp_path: Path) -> None:
    header = json.dumps(told).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(InputError, match=r"w\.safetensors cannot be read as safetensors"):
        read_shapes(tmp_path / "w.safetensors")
