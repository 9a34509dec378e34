"""Where a large transformer's weights lie: in memory from the start, from the first use on, or in their file for good.

The text encoder and the transformer are needed one after the other. Where both do not fit easily, the transformer is
read when it is first used, after the prompts have been encoded and the encoder has gone. Where the transformer itself
does not fit, the weights of its blocks stay mapped from the file, as it has them, and each is brought to the device
and the type of the work when it is multiplied with: the kernel keeps as much of the file in memory as there is room.
Or, where that is asked for, these weights are rounded to 8 bits as they are read (`quantise`) and lie in memory: the
clip is another one then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mutoscope.models.dit import DiT
from mutoscope.weights.quantise import QuantisedLinear, bytes_in_8_bits
from mutoscope.weights.tensor_files import read_entries

Residence = Literal["memory", "late", "file"]
Weights = Literal["exact", "int8"]

RESERVE = 256 * 2**20
"""Bytes left to the rest of the machine."""

ALL_AT_ONCE = 0.5
"""Share of the free memory that a whole model may take before its parts take turns."""

TRANSFORMER_ALONE = 0.75
"""Share of the free memory that transformer and VAE may take before the transformer stays in its file."""


@dataclass(frozen=True)
class Placement:
    """Where the weights of a model go: bytes of each part in the type that it works in, and the transformers' place.

    text: in the type of its file. numbers: of all transformers; matrices: those of them that may be in 8 bits, the
    matrices of the blocks. dtype: of the transformers. weights: "int8" keeps matrices in 8 bits.
    """

    residence: Residence
    text: int
    numbers: int
    matrices: int
    vae: int
    dtype: torch.dtype
    weights: Weights = "exact"

    @property
    def transformer(self) -> int:
        """Bytes of all transformers."""
        if self.weights == "exact":
            return self.numbers * self.dtype.itemsize
        return (self.numbers - self.matrices) * self.dtype.itemsize + bytes_in_8_bits(self.matrices)

    def within(self, free: int) -> Placement:
        """The same weights with so many free bytes; those that are rounded as they are read lie in no file."""
        residence = chosen(self.text, self.transformer, self.vae, free)
        return replace(self, residence="late" if (residence, self.weights) == ("file", "int8") else residence)


def on_card(placement: Placement, card: int) -> Placement:
    """The placement on a GPU with so many free bytes, where transformers work in bfloat16."""
    return replace(placement, dtype=torch.bfloat16).within(card)


def chosen(text: int, transformer: int, vae: int, free: int) -> Residence:
    """Where the transformer's weights go, from the bytes of each part and those that are free."""
    if text + transformer + vae <= ALL_AT_ONCE * free:
        return "memory"
    return "late" if transformer + vae <= TRANSFORMER_ALONE * free else "file"


def weight_bytes(path: Path, dtype: torch.dtype | None = None) -> int:
    """Bytes of the weights of a file or folder in a type, None for the type of the file; by headers alone."""
    return sum(
        entry.numel * (dtype or entry.dtype or torch.uint8).itemsize for entry in read_entries(path).values()
    )


def count_weights(path: Path) -> tuple[int, int]:
    """Numbers in the file or folder of a transformer, and those of them in matrices of its blocks; by headers alone."""
    entries = read_entries(path)
    matrices = (
        entry.numel
        for key, entry in entries.items()
        if "blocks." in key and key.endswith(".weight") and len(entry.shape) == 2
    )
    return sum(entry.numel for entry in entries.values()), sum(matrices)


def free_memory(device: torch.device) -> int:
    """Bytes that may be allocated: what the kernel calls available, within the limit of the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text()) - cached_files(group / "memory.stat")
        limits.append(int((group / "memory.max").read_text()) - used)
    return max(0, min(limits) - RESERVE)


def cached_files(stat: Path) -> int:
    """Bytes of files that the kernel holds for a container and gives up for what is allocated."""
    rows = dict(line.split() for line in stat.read_text().splitlines())
    return int(rows.get("inactive_file", 0)) + int(rows.get("active_file", 0))


def unread_bytes(module: nn.Module) -> int:
    """Bytes that a module will take when its weights are read; those that stay in their file take none."""
    mapped = {
        id(one) for each in module.modules() if isinstance(each, MappedLinear) for one in each.parameters()
    }
    everything = chain(module.parameters(), module.buffers())
    waiting = (one for one in everything if one.is_meta and id(one) not in mapped)
    return sum(one.numel() * one.element_size() for one in waiting)


def fill(dit: DiT, states: Iterable[Mapping[str, Tensor]]) -> None:
    """Give a transformer on the meta device its weights, a part of them at a time."""
    for state in states:
        dit.load_state_dict(state, strict=False, assign=True)
    assert not any(one.is_meta for one in dit.parameters())


def read_late(dit: DiT, read: Callable[[], Iterable[Mapping[str, Tensor]]]) -> Callable[[], None]:
    """Have a transformer on the meta device filled when it is first used; the result fills it at once.

    Every use begins with the text: its projection asks for the weights.
    """

    def wake(*_: object) -> None:
        asked.remove()
        if any(one.is_meta for one in dit.parameters()):
            fill(dit, read())

    asked = dit.text.register_forward_pre_hook(wake)
    return wake


class MappedLinear(nn.Linear):
    """A linear layer whose weight stays as the file has it; it is converted each time that it is used."""

    def forward(self, row_SD: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(row_SD)
        return functional.linear(row_SD, self.weight.to(row_SD), bias)


def map_blocks(dit: DiT) -> set[str]:
    """Have the linear layers of the blocks of a transformer on the meta device mapped; the names of their tensors."""
    names = set()
    for place, layer in linear_layers(dit):
        with torch.device("meta"):
            mapped = MappedLinear(layer.in_features, layer.out_features, layer.bias is not None)
        dit.set_submodule(place, mapped)
        names |= {f"{place}.{part}" for part, _ in mapped.named_parameters()}
    return names


def quantise_blocks(dit: DiT, device: torch.device) -> set[str]:
    """Have linear layers of the blocks of a transformer on the meta device in 8 bits; the names of their weights."""
    names = set()
    for place, layer in linear_layers(dit):
        dit.set_submodule(place, QuantisedLinear(layer, device))
        names.add(f"{place}.weight")
    return names


def linear_layers(dit: DiT) -> list[tuple[str, nn.Linear]]:
    """The linear layers of the blocks, by name."""
    return [
        (place, module)
        for place, module in dit.named_modules()
        if isinstance(module, nn.Linear) and "blocks." in place
    ]
