"""Wan's transformers and VAEs from their files: what config.json tells beside the weights, then tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from mutoscope.config import from_dict, read_table
from mutoscope.errors import InputError
from mutoscope.models.dit import DiT, DiTConfig
from mutoscope.models.vace import VaceConfig
from mutoscope.models.wan_image import ImageDiTConfig
from mutoscope.models.wan_vae import WanVAE, WanVAEConfig
from mutoscope.weights.residence import fill, map_blocks, quantise_blocks
from mutoscope.weights.tensor_files import EIGHT_BITS, Entry, Shape, opened, read_shapes, weight_files
from mutoscope.weights.wan_layouts import (
    Form,
    Table,
    blank_dit,
    check,
    detect,
    dit_config,
    dit_table,
    shaped_as_ours,
    vae_config,
    vae_table,
)

M = TypeVar("M", bound=nn.Module)
K = TypeVar("K")
Kept = Literal["plain", "mapped", "int8"]
OUR_KINDS: dict[str, type] = {
    "DiT": DiTConfig,
    "ImageDiT": ImageDiTConfig,
    "VaceDiT": VaceConfig,
    "WanVAE": WanVAEConfig,
}
VAE_TOLD = {  # the words of diffusers' config.json, and ours
    "latents_mean": "latent_mean",
    "latents_std": "latent_std",
    "base_dim": "width",
    "decoder_base_dim": "decoder_width",
    "dim_mult": "multipliers",
    "temperal_downsample": "halves_time",
    "num_res_blocks": "blocks",
    "patch_size": "patch",
    "is_residual": "residual",
}
ENCODERS_OWN = {"d_model", "hidden_size", "base_dim"}  # in the config.json of an encoder or VAE, not of a DiT


def vae_config_at(path: Path, shapes: Mapping[str, Shape], form: Form) -> WanVAEConfig:
    """The configuration that the config.json beside the weights tells, else as `vae_config`."""
    told = told_beside(path)
    if form.layout == "mutoscope":
        return our_config_told(WanVAEConfig, told, path)
    return vae_config_told(told, path) or vae_config(shapes, form)


def our_config_told(kind: type[K], told: Mapping[str, Any], path: Path) -> K:
    """The configuration in a config.json of ours. Raises InputError when there is none of this kind."""
    name = told.get("_class_name")
    cls = OUR_KINDS.get(name) if isinstance(name, str) else None
    if cls is None or not issubclass(cls, kind):
        raise InputError(
            f"{path} has our names but no config.json of ours beside it; convert the model again."
        )
    config = from_dict(cls, {key: value for key, value in told.items() if key != "_class_name"}, str(path))
    assert isinstance(config, kind)
    return config


def vae_config_told(told: Mapping[str, Any], path: Path) -> WanVAEConfig | None:
    """The configuration that a config.json of diffusers' AutoencoderKLWan tells; None when it tells none.

    Raises InputError for values that are none of a VAE's.
    """
    if "base_dim" not in told or "latents_mean" not in told:
        return None
    data = {ours: told[theirs] for theirs, ours in VAE_TOLD.items() if told.get(theirs) is not None}
    return from_dict(WanVAEConfig, {"decoder_width": told["base_dim"]} | data, f"The config.json of {path}")


def load_dit(
    path: str | Path, heads: int | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> DiT:
    """A Wan DiT from a file or a folder of shards, in evaluation mode; see `prepare_dit`."""
    dit, read = prepare_dit(Path(path), heads, device, dtype)
    fill(dit, read())
    return dit


def prepare_dit(
    path: Path,
    heads: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    kept: Kept = "plain",
) -> tuple[DiT, Callable[[], Iterator[dict[str, Tensor]]]]:
    """A Wan DiT on the meta device, and what reads its weights, block by block; the files have been checked.

    heads: their number; None takes that of the config.json beside the weights, else heads 128 wide as in
    every published model. kept: "mapped" leaves the weights of the blocks in the file (see `residence`), "int8" has
    them rounded to 8 bits when what was read is loaded.

    Raises InputError for weights that are not a Wan DiT's, and as `check` does.
    """
    config, table = dit_plan(path, heads)
    dit = blank_dit(config).to(dtype).eval()
    left = set()
    if kept != "plain":
        left = map_blocks(dit) if kept == "mapped" else quantise_blocks(dit, torch.device(device))
    parts: dict[str, Table] = {}
    for name, place in table.items():
        block = ".".join(name.split(".")[:2]) if "blocks." in name else ""
        parts.setdefault(block, {})[name] = place

    def read() -> Iterator[dict[str, Tensor]]:
        for part in parts.values():
            state = read_state(path, {name: part[name] for name in part if name not in left}, device, dtype)
            yield state | read_state(path, {name: part[name] for name in part if name in left}, "cpu", None)

    return dit, read


def dit_plan(path: Path, heads: int | None = None) -> tuple[DiTConfig, Table]:
    """The configuration of a DiT in a file or a folder, and the table that its keys have been checked against."""
    shapes = read_shapes(path)
    form = detect(shapes)
    if form.part != "dit":
        raise InputError(f"{path} holds a Wan VAE, not a DiT; give the folder or file of the transformer.")
    config = dit_config_at(path, shapes, form, heads)
    table = dit_table(config, form.layout, form.prefix)
    check(shapes, table, path)
    return config, table


def dit_config_at(path: Path, shapes: Mapping[str, Shape], form: Form, heads: int | None = None) -> DiTConfig:
    """As `dit_config`, with what the config.json beside the weights tells and shapes do not.

    The number of blocks is told too where shapes would tell the same, so that a lost one is missed.
    """
    told = told_beside(path)
    if form.layout == "mutoscope":
        return our_config_told(DiTConfig, told, path)
    if ENCODERS_OWN & told.keys():
        told = {}
    hinted = told.get("vace_layers")
    if hinted is not None and not (isinstance(hinted, list) and all(type(place) is int for place in hinted)):
        raise InputError(f"The config.json of {path} has vace_layers = {hinted!r}; fetch it again.")
    heads = heads or count_told(told, "num_attention_heads", path) or count_told(told, "num_heads", path)
    config = dit_config(shapes, form, heads, None if hinted is None else tuple(hinted))
    return replace(config, depth=count_told(told, "num_layers", path) or config.depth)


def count_told(told: Mapping[str, Any], name: str, path: Path) -> int | None:
    """A count of a config.json, None when it tells none. Raises InputError for another value."""
    value = told.get(name)
    if value is None or (type(value) is int and value > 0):
        return value
    raise InputError(f"The config.json of {path} has {name} = {value!r}, which is no count; fetch it again.")


def told_beside(path: Path) -> dict[str, Any]:
    """The config.json beside the weights; empty when there is none. Raises InputError for a damaged one."""
    return read_json((path if path.is_dir() else path.parent) / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """A table of JSON, empty when it is not there. Raises InputError when it is none."""
    if not path.is_file():
        return {}
    try:
        return read_table(path)
    except InputError as error:
        raise InputError(f"{path} is not a table of JSON; fetch it again.") from error


def load_vae(
    path: str | Path,
    config: WanVAEConfig | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> WanVAE:
    """A Wan VAE from a file or a folder, in evaluation mode.

    config: None takes that of the config.json beside the weights, else the published one of two.

    Raises InputError for weights that are not a Wan VAE's, and as `check` does.
    """
    config, table = vae_plan(Path(path), config)
    with torch.device("meta"):
        vae = WanVAE(config)
    return filled(vae, Path(path), table, device, dtype)


def vae_plan(path: Path, config: WanVAEConfig | None = None) -> tuple[WanVAEConfig, Table]:
    """The configuration of a VAE in a file or a folder, and the table that its keys have been checked against."""
    shapes = read_shapes(path)
    form = detect(shapes)
    if form.part != "vae":
        raise InputError(f"{path} holds a Wan DiT, not a VAE; give the folder or file of the VAE.")
    config = config or vae_config_at(path, shapes, form)
    table = vae_table(config, form.layout, form.prefix)
    check(shapes, table, path)
    return config, table


def filled(module: M, path: Path, table: Table, device: str, dtype: torch.dtype) -> M:
    """The module with the tensors of the files."""
    module.load_state_dict(read_state(path, table, device, dtype), assign=True)
    return module.eval()


def read_state(path: Path, table: Table, device: str, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Our state dict, each tensor mapped from disk, converted and dropped in turn.

    dtype: None keeps the types of the file; of weights in 8 bits, which nothing here multiplies, it makes bfloat16.

    Raises InputError for a tensor of a type that weights do not have.
    """
    wanted: dict[str, list[str]] = {}
    for name, place in table.items():
        wanted.setdefault(place.key, []).append(name)
    state = {}
    for file in weight_files(path):
        with opened(file) as stream:
            for key in stream.entries.keys() & wanted.keys():
                kept = kept_type(key, stream.entries[key], file)
                tensor = stream.get(key)
                for name in wanted[key]:
                    third = table[name].third
                    part = tensor if third is None else tensor.chunk(3)[third]
                    state[name] = shaped_as_ours(name, part).to(device, dtype or kept)
    return state


def kept_type(key: str, entry: Entry, file: Path) -> torch.dtype:
    if entry.dtype is None:
        raise InputError(
            f"{file}: {key} is stored in a type that is not read; use float32, float16, bfloat16 or float8."
        )
    return torch.bfloat16 if entry.dtype in EIGHT_BITS else entry.dtype
