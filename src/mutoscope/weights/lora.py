"""LoRA files of any common key style onto a DiT of ours, fused into its weights and taken out again bit for bit.

A LoRA (Hu 2021, arXiv 2106.09685) changes a weight W by strength x alpha / r x B A, with A (r, in) and B (out, r).
The styles PEFT, diffusers, kohya, ComfyUI and DiffSynth differ in the names of the layers (diffusers', the
original ones of Wan, or ours), in what stands before and after them, and in where alpha is told.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import Module

from mutoscope.errors import InputError
from mutoscope.models.dit import DiT
from mutoscope.models.experts import Experts
from mutoscope.weights.quantise import QuantisedLinear
from mutoscope.weights.store import Model
from mutoscope.weights.tensor_files import PICKLES, named
from mutoscope.weights.wan_layouts import Layout, blank_dit, dit_table, shaped_as_ours

STRENGTHS = (-10.0, 10.0)
PREFIX = re.compile(r"^(?:base_model\.model\.|model\.|pipe\.|diffusion_model\.|transformer\.|dit\.|unet\.)*")
KOHYA = re.compile(r"^lora_(?:unet|transformer|dit)_")
ENDING = re.compile(
    r"\.(lora_A|lora_B)(?:\.[\w-]+)?\.weight$|\.(lora_down|lora_up|lora\.down|lora\.up)\.weight$|\.(alpha|diff|diff_b|diff_m)$"
)
PARTS = {
    "lora_A": "down",
    "lora_down": "down",
    "lora.down": "down",
    "lora_B": "up",
    "lora_up": "up",
    "lora.up": "up",
}
UNREAD = ("dora_scale", "lora_magnitude_vector", "hada_w", "lokr_w", "oft_", "lora_mid", "reshape_weight")
CONFIG = "adapter_config.json"  # PEFT's, beside adapter_model.safetensors


@dataclass(frozen=True)
class Change:
    """What a LoRA adds to one parameter of ours, at strength 1: scale x up @ down, or `whole`."""

    scale: float = 1.0
    down_RI: Tensor | None = None
    up_OR: Tensor | None = None
    whole: Tensor | None = None

    def delta(self, device: torch.device) -> Tensor:
        """In float32, of the shape of the parameter."""
        if self.down_RI is not None and self.up_OR is not None:
            return self.scale * (
                self.up_OR.to(device, torch.float32) @ self.down_RI.to(device, torch.float32)
            )
        assert self.whole is not None
        return self.whole.to(device, torch.float32)


Strong = tuple[Change, float]
"""A change and its strength."""


@dataclass(frozen=True)
class LoRA:
    """Changes by name of our parameter. unmatched: keys of the file for which the model has no place."""

    path: Path
    changes: Mapping[str, Change]
    unmatched: tuple[str, ...]


@dataclass(frozen=True)
class Fused:
    """The parameters as they were before `fuse`, for `unfuse`."""

    originals: Mapping[str, Tensor]


def parse_lora(text: str) -> tuple[Path, float]:
    """File and strength from "FILE[:STRENGTH]". Raises InputError for a strength that is none."""
    path, colon, strength = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), 1.0
    try:
        value = float(strength)
    except ValueError as error:
        raise InputError(
            f"The strength {strength!r} of the LoRA {path} is not a number; write FILE:STRENGTH, as a.safetensors:0.8."
        ) from error
    if not STRENGTHS[0] <= value <= STRENGTHS[1]:
        raise InputError(
            f"The strength {value:g} of the LoRA {path} is out of range; choose {STRENGTHS[0]:g} to {STRENGTHS[1]:g}."
        )
    return Path(path), value


def read_lora(path: str | Path, dit: DiT, allow_unmatched: bool = False) -> LoRA:
    """A LoRA for this DiT, from a safetensors file or a PEFT folder.

    Raises InputError for a file that is no LoRA, that is of a kind not read (DoRA, LoHa, LoKr), whose shapes are
    those of another model, or, unless allowed, that has keys for which this model has no place.
    """
    path = Path(path)
    file = path / "adapter_model.safetensors" if path.is_dir() else path
    tensors, told = _read(file)
    layers = _layers(dit)
    found: dict[str, dict[str, Tensor]] = {}
    scales: dict[str, float] = {}
    unmatched: list[str] = []
    for key, tensor in tensors.items():
        layer, part = _split(key)
        ours = layers.get(layer.replace(".", "_"))
        if ours is None:
            unmatched.append(key)
            continue
        found.setdefault(ours, {})[part] = tensor
        if part == "down":
            scales[ours] = _scale(layer, len(tensor), told)
    if not found:
        raise InputError(
            f"{path} is a LoRA for another model: none of its {len(unmatched)} keys ({named(sorted(unmatched))}) has a "
            "place in this one; name the model that it was trained for with -m."
        )
    if unmatched and not allow_unmatched:
        raise InputError(
            f"{path} has {len(unmatched)} keys without a place in this model: {named(sorted(unmatched))}; use the "
            "model that it was trained for, or leave them out with --allow-unmatched."
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in blank_dit(dit.config).state_dict().items()}
    changes: dict[str, Change] = {}
    for layer, parts in found.items():
        changes |= _changes(path, layer, parts, scales.get(layer, 1.0), shapes)
    return LoRA(path, changes, tuple(sorted(unmatched)))


@torch.no_grad()
def fuse(dit: DiT, loras: Sequence[tuple[LoRA, float]], keep: bool = True) -> Fused:
    """Add each LoRA times its strength to the DiT's weights, in place.

    All are summed in float32 and rounded once. keep: remember the weights for `unfuse`, which costs the memory
    of those that change.
    """
    parameters = dict(dit.named_parameters())
    originals: dict[str, Tensor] = {}
    for name, changes in _together(loras).items():
        parameter = parameters[name]
        if keep:
            originals[name] = parameter.detach().clone()
        parameter.copy_(_changed(parameter, changes))
    return Fused(originals)


def fuse_when_read(dit: DiT, loras: Sequence[tuple[LoRA, float]]) -> None:
    """As `fuse` for a DiT that is yet to be read: each weight is changed on its way in, before it is rounded."""
    for name, changes in _together(loras).items():
        above, _, last = name.rpartition(".")
        change = partial(_change_read, last, changes)
        dit.get_submodule(above).register_load_state_dict_pre_hook(change)  # type: ignore[no-untyped-call]


def _change_read(
    last: str, changes: Sequence[Strong], layer: Module, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """A step of loading: one tensor with its changes, in float32 where it will be rounded, else in its type."""
    weight = state.get(prefix + last)
    if weight is None:  # in another part of the file
        return
    dtype = torch.float32 if isinstance(layer, QuantisedLinear) and last == "weight" else weight.dtype
    state[prefix + last] = _changed(weight, changes).to(dtype)


def _together(loras: Sequence[tuple[LoRA, float]]) -> dict[str, list[Strong]]:
    """The changes of each parameter with their strengths."""
    found: dict[str, list[Strong]] = {}
    for lora, strength in loras:
        for name, change in lora.changes.items():
            found.setdefault(name, []).append((change, strength))
    return found


def _changed(weight: Tensor, changes: Sequence[Strong]) -> Tensor:
    """In float32."""
    total = weight.float()
    for change, strength in changes:
        total = total + strength * change.delta(weight.device).reshape(weight.shape)
    return total


@torch.no_grad()
def unfuse(dit: DiT, fused: Fused) -> None:
    """The weights as they were before `fuse`, bit for bit."""
    parameters = dict(dit.named_parameters())
    for name, original in fused.originals.items():
        parameters[name].copy_(original)


def with_loras(model: Model, given: Sequence[tuple[Path, float]], allow_unmatched: bool = False) -> Model:
    """The model with LoRAs fused into its DiT, in place; its sha256 tells of them, so that a recipe does too.

    Into weights in 8 bits they go before these are rounded. Of two experts each gets those that `experts_of` says.
    """
    rounded = model.weights == "int8"
    if rounded and not all(one.is_meta for one in model.dit.parameters()):
        raise InputError(
            "These weights have been rounded to 8 bits already and a LoRA comes before that; load the model again."
        )
    if model.wake is not None and not rounded:
        model.wake()
    together: dict[DiT, list[tuple[LoRA, float]]] = {}
    for path, strength in given:
        for dit in experts_of(model.dit, path):
            together.setdefault(dit, []).append((read_lora(path, dit, allow_unmatched), strength))
    for dit, loras in together.items():
        if rounded:
            fuse_when_read(dit, loras)
        else:
            fuse(dit, loras, keep=False)
    identity = hashlib.sha256(model.card.sha256.encode())
    for path, strength in given:
        file = path / "adapter_model.safetensors" if path.is_dir() else path
        with open(file, "rb") as stream:
            identity.update(hashlib.file_digest(stream, "sha256").digest())
        identity.update(f"{strength!r}".encode())
    return replace(model, card=replace(model.card, sha256=identity.hexdigest()))


def experts_of(dit: DiT | Experts, path: Path) -> list[DiT]:
    """The DiTs that a file is for: of two experts the one for "high" or "low" noise in its name, else both."""
    if not isinstance(dit, Experts):
        return [dit]
    high, low = "high" in path.name.lower(), "low" in path.name.lower()
    return [expert for expert, meant in ((dit.high, high), (dit.low, low)) if meant or high == low]


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and what the file or the config beside it tells of alpha."""
    if file.suffix.lower() in PICKLES:
        raise InputError(f"{file} is a pickle, which can run code; convert the LoRA to safetensors.")
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  (not a dict)
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({error}); fetch the LoRA again.") from error
    beside = file.parent / CONFIG
    try:
        if file.name == "adapter_model.safetensors" and beside.is_file():
            return tensors, dict(json.loads(beside.read_text("utf-8")))
        inside = dict(json.loads(metadata.get("lora_adapter_metadata", "{}")))
    except (ValueError, TypeError) as error:
        raise InputError(f"What {file} tells of its alpha is not a table of JSON; fetch it again.") from error
    return tensors, {key.removeprefix("transformer."): value for key, value in inside.items()}


def _split(key: str) -> tuple[str, str]:
    """The layer in the file's words, without what stands before it, and which part of its change this is."""
    for mark in UNREAD:
        if mark in key:
            raise InputError(
                f"The LoRA has {key}, of a kind that is not read (DoRA, LoHa, LoKr, OFT); give a plain LoRA."
            )
    ending = ENDING.search(key)
    if ending is None:
        return "", ""
    layer, part = key[: ending.start()], next(filter(None, ending.groups()))
    if part == "diff_m":  # what lightx2v's distilled ones say of the table of a block, or of the head
        layer, part = f"{layer}.modulation", "diff"
    return (KOHYA if KOHYA.match(layer) else PREFIX).sub("", layer), PARTS.get(part, part)


def _layers(dit: DiT) -> dict[str, str]:
    """Ours by the name of every layer and lone parameter in each layout, dots as underscores (kohya has no dots)."""
    ours = {name: _layer(name) for name in blank_dit(dit.config).state_dict()}
    layers = {layer.replace(".", "_"): layer for layer in ours.values()}
    config = dit.config
    if config.positions == "grid" and not config.pooled_text and not config.coordinates:  # Wan's architecture
        layouts: tuple[Layout, ...] = ("diffusers", "original")
        for layout in layouts:
            table = dit_table(config, layout)
            layers |= {_layer(table[name].key).replace(".", "_"): layer for name, layer in ours.items()}
    return layers


def _layer(name: str) -> str:
    return name.removesuffix(".weight").removesuffix(".bias")


def _changes(
    path: Path,
    layer: str,
    parts: Mapping[str, Tensor],
    scale: float,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Change]:
    """The changes of one layer's weight and bias, checked against their shapes."""
    changes = {}
    if ("down" in parts) != ("up" in parts):
        half = "A" if "down" in parts else "B"
        raise InputError(f"{path} has only the {half} half of {layer}; fetch the LoRA again.")
    if "down" in parts:
        down, up = parts["down"].flatten(1), parts["up"].flatten(1)
        if up.shape[1] != down.shape[0]:
            raise InputError(
                f"The halves of {layer} in {path} have ranks {down.shape[0]} and {up.shape[1]}; fetch the LoRA again."
            )
        _fits(path, f"{layer}.weight", (up.shape[0], down.shape[1]), shapes)
        scale = float(parts["alpha"]) / len(down) if "alpha" in parts else scale
        changes[f"{layer}.weight"] = Change(scale, down, up)
    for part, name in (
        ("diff", layer if layer in shapes else f"{layer}.weight"),
        ("diff_b", f"{layer}.bias"),
    ):
        if part in parts:
            whole = shaped_as_ours(name, parts[part])
            _fits(path, name, tuple(whole.shape), shapes)
            if name in changes:
                raise InputError(f"{path} changes {name} in two ways; fetch the LoRA again.")
            changes[name] = Change(whole=whole)
    return changes


def _fits(path: Path, name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if shapes.get(name) != shape:
        here = "x".join(map(str, shapes[name])) if name in shapes else "missing"
        raise InputError(
            f"{path} is a LoRA for another model: its {name} is {'x'.join(map(str, shape))} and this model's is "
            f"{here}; name the model that it was trained for with -m."
        )


def _scale(layer: str, rank: int, told: Mapping[str, Any]) -> float:
    """alpha / r as PEFT's config tells it (alpha / sqrt(r) when it says so), 1 when nothing does."""
    patterns = told.get("alpha_pattern") or {}
    matching = (value for key, value in patterns.items() if re.search(rf"(?:^|\.){key}$", layer))
    alpha = next(matching, told.get("lora_alpha"))
    if alpha is None:
        return 1.0
    return float(alpha) / (rank**0.5 if told.get("use_rslora") else rank)
