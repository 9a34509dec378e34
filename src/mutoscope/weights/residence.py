"""Where a large transformer's weights lie: in memory from the start, from the first use on, or in their file for good.

The text encoder and the transformer are needed one after the other. Where both do not fit easily, the transformer is
read when it is first used, after the prompts have been encoded and the encoder has gone. Where the transformer itself
does not fit, the weights of its blocks stay mapped from the file, as it has them, and each is brought to the device
and the type of the work when it is multiplied with: the kernel keeps as much of the file in memory as there is room.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mutoscope.models.dit import DiT
from mutoscope.weights.tensor_files import read_entries

Residence = Literal["memory", "late", "file"]

RESERVE = 256 * 2**20
"""Bytes left to the rest of the machine."""

ALL_AT_ONCE = 0.5
"""Share of the free memory that a whole model may take before its parts take turns."""

TRANSFORMER_ALONE = 0.75
"""Share of the free memory that transformer and VAE may take before the transformer stays in its file."""


@dataclass(frozen=True)
class Placement:
    """Where the weights of a model go: bytes of each part in the type that it works in, and the transformers' place.

    text: in the type of its file. transformer: of all experts. dtype: of the transformers.
    """

    residence: Residence
    text: int
    transformer: int
    vae: int
    dtype: torch.dtype


def on_card(placement: Placement, card: int) -> Placement:
    """The placement on a GPU with so many free bytes, where transformers work in bfloat16."""
    transformer = placement.transformer * torch.bfloat16.itemsize // placement.dtype.itemsize
    residence = chosen(placement.text, transformer, placement.vae, card)
    return replace(placement, residence=residence, transformer=transformer, dtype=torch.bfloat16)


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
    waiting = (one for one in module.parameters() if one.is_meta and id(one) not in mapped)
    return sum(one.numel() * one.element_size() for one in waiting)


def read_late(dit: DiT, read: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
    """Have a transformer on the meta device filled when it is first used; the result fills it at once.

    Every use begins with the text: its projection asks for the weights.
    """

    def fill(*_: object) -> None:
        asked.remove()
        if any(one.is_meta for one in dit.parameters()):
            dit.load_state_dict(read(), assign=True)

    asked = dit.text.register_forward_pre_hook(fill)
    return fill


class MappedLinear(nn.Linear):
    """A linear layer whose weight stays as the file has it; it is converted each time that it is used."""

    def forward(self, row_SD: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(row_SD)
        return functional.linear(row_SD, self.weight.to(row_SD), bias)


def map_blocks(dit: DiT) -> set[str]:
    """Have the linear layers of the blocks of a transformer on the meta device mapped; the names of their tensors."""
    names = set()
    for path, module in list(dit.named_modules()):
        for name, child in list(module.named_children()):
            place = f"{path}.{name}" if path else name
            if type(child) is nn.Linear and "blocks." in place:
                with torch.device("meta"):
                    mapped = MappedLinear(child.in_features, child.out_features, child.bias is not None)
                setattr(module, name, mapped)
                names |= {f"{place}.{part}" for part, _ in mapped.named_parameters()}
    return names
