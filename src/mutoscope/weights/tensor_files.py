"""Tensors of other people's files, mapped one at a time: safetensors, their shards, fp8 with scales, tensors in `.pth`.

Headers come first: names, shapes and types are known before a tensor is touched. A `.pth` is a zip file around a
pickle; it is read by torch's restricted unpickler, which builds tensors and runs nothing, and only when its parts are
stored as they are, so that it cannot grow while it is read.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mutoscope.errors import InputError

Shape = tuple[int, ...]

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
PTH = ".pth"
PICKLES = (PTH, ".pt", ".bin", ".ckpt", ".pkl")
SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.safetensors")
SCALES = (
    "scale_weight",
    "weight_scale",
)  # ComfyUI's two names of what the 8 bits of a weight are multiplied by
UNUSED = ("scale_input", "input_scale", "comfy_quant")  # of products in 8 bits, which are not made here
MARK = "scaled_fp8"
LARGEST_HEADER = 100 * 2**20  # bytes, as the library safetensors allows
UNRESERVED = getattr(mmap, "MAP_NORESERVE", 0x4000)  # of Linux; Python names it from 3.13 on
LARGEST_PICKLE = 64 * 2**20  # bytes of the pickle itself, which holds names and shapes only


@dataclass(frozen=True)
class Entry:
    """What a header tells of a tensor; dtype None is one that weights do not have."""

    shape: Shape
    dtype: torch.dtype | None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Span:
    """A tensor of a safetensors file, and from which byte of the file to which it lies."""

    entry: Entry
    begin: int
    end: int


@dataclass(frozen=True)
class Opened:
    """An open file: what its header tells, and how a tensor is had (mapped, not copied, where its bits are kept)."""

    entries: Mapping[str, Entry]
    get: Callable[[str], Tensor]


@contextmanager
def opened(file: Path) -> Iterator[Opened]:
    """A file of weights; scales of 8 bits do not show, `get` has applied them, in float32.

    Raises InputError for a file that is not one of these, or that holds something else than tensors.
    """
    if file.suffix == PTH:
        tensors = read_pth(file)
        yield Opened(
            {key: Entry(tuple(one.shape), one.dtype) for key, one in tensors.items()}, tensors.__getitem__
        )
        return
    spans = spans_of(file)
    entries = {key: span.entry for key, span in spans.items()}
    scales = scales_of(entries)
    hidden = {*scales.values(), *(key for key in entries if aside(key, entries))}
    memory = cache(partial(mapped, file))

    def get(key: str) -> Tensor:
        tensor = tensor_at(memory(), spans[key])
        return scaled(tensor, tensor_at(memory(), spans[scales[key]]), key, file) if key in scales else tensor

    yield Opened({key: entry for key, entry in entries.items() if key not in hidden}, get)


def spans_of(file: Path) -> dict[str, Span]:
    """The tensors of a safetensors file by its header. Raises InputError unless they fill the file to its end."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(LARGEST_HEADER, size - 8):
                raise ValueError("it has no header")
            table = json.loads(stream.read(length))
        spans = {key: span(key, told, 8 + length) for key, told in table.items() if key != "__metadata__"}
        edge = 8 + length
        for one in sorted(spans.values(), key=lambda one: (one.begin, one.end)):
            if one.begin != edge:
                raise ValueError("its tensors do not follow one another")
            edge = one.end
        if edge != size:
            raise ValueError(f"it has {size} bytes and its header tells {edge}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({error}); fetch it again.") from error
    return spans


def span(key: str, told: Mapping[str, Any], start: int) -> Span:
    """A tensor of a header whose offsets count from the byte `start`. Raises ValueError for a wrong size."""
    (begin, end), entry = told["data_offsets"], Entry(tuple(told["shape"]), TYPES.get(told["dtype"]))
    if not all(type(number) is int and number >= 0 for number in (begin, end, *entry.shape)):
        raise ValueError(f"{key} has numbers that are no sizes")
    if end < begin or (entry.dtype is not None and entry.numel * entry.dtype.itemsize != end - begin):
        raise ValueError(f"{key} has {end - begin} bytes, which is not what its shape takes")
    return Span(entry, start + begin, start + end)


def mapped(file: Path) -> mmap.mmap:
    """A file as memory; what is changed there does not change the file.

    No memory is set aside for such changes, so that a file larger than the machine's memory is mapped too.
    """
    with file.open("rb") as stream:
        if sys.platform == "win32":
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        flags = mmap.MAP_PRIVATE | (UNRESERVED if sys.platform == "linux" else 0)
        return mmap.mmap(stream.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def tensor_at(memory: mmap.mmap, span: Span) -> Tensor:
    """A tensor that lies in a mapped file; a copy only where its place does not suit its type."""
    dtype = span.entry.dtype
    assert dtype is not None
    if not span.entry.numel:
        return torch.empty(span.entry.shape, dtype=dtype)
    if span.begin % dtype.itemsize == 0:
        flat = torch.frombuffer(memory, dtype=dtype, count=span.entry.numel, offset=span.begin)
    else:
        count = span.end - span.begin
        flat = torch.frombuffer(memory, dtype=torch.uint8, count=count, offset=span.begin).clone().view(dtype)
    return flat.reshape(span.entry.shape)


def scales_of(entries: Mapping[str, Entry]) -> dict[str, str]:
    """The key of the scale of each weight in 8 bits that has one."""
    found = {}
    for key, entry in entries.items():
        if entry.dtype in EIGHT_BITS and key.endswith(".weight"):
            for name in SCALES:
                scale = key.removesuffix("weight") + name
                if scale in entries:
                    found[key] = scale
    return found


def aside(key: str, entries: Mapping[str, Entry]) -> bool:
    """Whether a key is ComfyUI's note on 8 bits and no weight."""
    above, _, last = key.rpartition(".")
    return last == MARK or (last in UNUSED and f"{above}.weight" in entries)


def scaled(tensor: Tensor, scale: Tensor, key: str, file: Path) -> Tensor:
    """A weight in 8 bits times its scale: one for all, or one for each row."""
    if scale.numel() not in (1, len(tensor)):
        raise InputError(
            f"{file}: {key} has {scale.numel()} scales for {len(tensor)} rows; one or one per row are read, take "
            "the file in another type."
        )
    return tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))


def read_pth(file: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth`, mapped from it.

    Raises InputError for anything that is not a plain table of names and dense tensors, as torch.save writes it.
    """
    refuse_what_may_grow(file)
    try:
        table = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # of many kinds: the pickle is not ours
        raise InputError(
            f"{file} holds more than tensors, which could run code, or is damaged; give the model in safetensors."
        ) from error
    if not isinstance(table, dict) or not table or not all(plain(*pair) for pair in table.items()):
        raise InputError(f"{file} is not a table of names and tensors; give the model in safetensors.")
    return {key: tensor.detach() for key, tensor in table.items()}


def plain(key: object, tensor: object) -> bool:
    """Whether this is a name and a dense tensor that is no larger than what the file holds of it."""
    if not isinstance(key, str) or type(tensor) not in (Tensor, torch.nn.Parameter):
        return False
    assert isinstance(tensor, Tensor)
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def refuse_what_may_grow(file: Path) -> None:
    """Raise InputError unless a `.pth` is a zip file whose parts are stored uncompressed and within it."""
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{file} is a pickle outside of a zip file, which can run code ({error}); give the model in safetensors."
        ) from error
    size = file.stat().st_size
    packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    pickle = max((part.file_size for part in parts if part.filename.endswith(".pkl")), default=0)
    if packed or sum(part.file_size for part in parts) > size or pickle > LARGEST_PICKLE:
        raise InputError(f"{file} is larger inside than on disk; give the model in safetensors.")


def read_entries(path: str | Path) -> dict[str, Entry]:
    """What the headers of a file or a folder of shards tell of every tensor."""
    entries: dict[str, Entry] = {}
    for file in weight_files(Path(path)):
        with opened(file) as stream:
            entries |= stream.entries
    return entries


def read_shapes(path: str | Path) -> dict[str, Shape]:
    """Names and shapes of all tensors of a file or a folder of shards; only the headers are read."""
    return {key: entry.shape for key, entry in read_entries(path).items()}


def weight_files(path: Path) -> list[Path]:
    """A file of weights itself, or those of a folder; with an index, each that it names.

    Raises InputError when there is none, or when one named by the index is not there.
    """
    if path.suffix in PICKLES and path.suffix != PTH:
        raise InputError(
            f"{path} is a pickle, which can run code when it is read; give the model in safetensors."
        )
    if path.is_file():
        return [path]
    for index in sorted(path.glob("*.safetensors.index.json")):
        try:
            names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is not an index of weights; fetch it again.") from error
        if not all(isinstance(name, str) and name == Path(name).name for name in names):
            raise InputError(f"{index} names what is no file of its folder; fetch it again.")
        lost = sorted(name for name in names if not (path / name).is_file())
        if lost:
            raise InputError(f"{path} lacks {named(lost)}, which {index.name} names; finish the download.")
        return [path / name for name in sorted(names)]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickles = sorted(file.name for file in path.glob("*") if file.suffix in PICKLES)
        kind = f"only pickles ({named(pickles)}), which can run code" if pickles else "no safetensors weights"
        raise InputError(f"{path} holds {kind}; give a safetensors file or its folder.")
    lost = [name for name in promised(files) if not (path / name).is_file()]
    if lost:
        raise InputError(f"{path} lacks {named(lost)}, of a set of shards; finish the download.")
    return files


def promised(files: Iterable[Path]) -> list[str]:
    """The names of all shards of which some are here, as their own names tell: NAME-00001-of-00003.safetensors."""
    sets = {match.group(1, 2) for file in files if (match := SHARD.fullmatch(file.name))}
    return sorted(
        f"{start}-{part:05d}-of-{count}.safetensors"
        for start, count in sets
        for part in range(1, int(count) + 1)
    )


def named(keys: list[str]) -> str:
    """The first keys of a list, and how many more there are."""
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
