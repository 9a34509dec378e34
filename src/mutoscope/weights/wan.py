"""Wan's public weights to our modules and back: diffusers, original and ComfyUI layouts in safetensors.

A layout is a table with one row for each of our parameters: its name and shape in the file. The tables are
built from the configuration, so that a file is checked in full before the first tensor is read: every key is
matched, or reported as missing, unexpected or of a wrong shape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models.dit import DIT_PRESETS, DiT, DiTConfig
from mutoscope.models.wan_vae import WAN_VAE_PRESETS, WanVAE, WanVAEConfig

Layout = Literal["diffusers", "original"]
Shape = tuple[int, ...]
M = TypeVar("M", bound=nn.Module)

COMFY_PREFIX = "model.diffusion_model."
HEAD_WIDTH = 128  # of every published Wan DiT; the number of heads is in no tensor's shape

PROBES: dict[str, tuple[Literal["dit", "vae"], Layout]] = {
    "condition_embedder.time_proj.weight": ("dit", "diffusers"),
    "time_projection.1.weight": ("dit", "original"),
    "decoder.mid_block.resnets.0.norm1.gamma": ("vae", "diffusers"),
    "decoder.middle.0.residual.0.gamma": ("vae", "original"),
}
RELATIVES = {
    "vace_blocks.0.": "VACE",
    "img_emb.": "image-to-video with CLIP",
    "condition_embedder.image_embedder.": "image-to-video with CLIP",
    "motion_encoder.": "Animate",
}


@dataclass(frozen=True)
class Form:
    """What a file holds and how its keys are written."""

    part: Literal["dit", "vae"]
    layout: Layout
    prefix: str = ""


@dataclass(frozen=True)
class Place:
    """Where one of our parameters lies in a file."""

    key: str
    shape: Shape


Table = dict[str, Place]
"""From the name of our parameter to its place."""

# Columns: ours, diffusers, original. A name stands for the weight and the bias beneath it, or for itself.
DIT_OUTER = (
    ("embed", "patch_embedding", "patch_embedding"),
    ("time_in", "condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("time_out", "condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("modulation", "condition_embedder.time_proj", "time_projection.1"),
    ("text.up", "condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("text.down", "condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("table", "scale_shift_table", "head.modulation"),
    ("head", "proj_out", "head.head"),
)
DIT_BLOCK = (
    ("table", "scale_shift_table", "modulation"),
    ("text_norm", "norm2", "norm3"),
    ("mlp.up", "ffn.net.0.proj", "ffn.0"),
    ("mlp.down", "ffn.net.2", "ffn.2"),
)
ATTENTIONS = (("attention", "attn1", "self_attn"), ("text_attention", "attn2", "cross_attn"))
ATTENTION = (
    ("query", "to_q", "q"),
    ("key", "to_k", "k"),
    ("value", "to_v", "v"),
    ("out", "to_out.0", "o"),
    ("query_norm", "norm_q", "norm_q"),
    ("key_norm", "norm_k", "norm_k"),
)
VAE_BLOCK = (
    ("norm1", "norm1", "residual.0"),
    ("conv1", "conv1", "residual.2"),
    ("norm2", "norm2", "residual.3"),
    ("conv2", "conv2", "residual.6"),
    ("shortcut", "conv_shortcut", "shortcut"),
)
VAE_HALF = (
    ("stem", "conv_in", "conv1"),
    ("norm", "norm_out", "head.0"),
    ("head", "conv_out", "head.2"),
    ("middle.attention.norm", "mid_block.attentions.0.norm", "middle.1.norm"),
    ("middle.attention.qkv", "mid_block.attentions.0.to_qkv", "middle.1.to_qkv"),
    ("middle.attention.out", "mid_block.attentions.0.proj", "middle.1.proj"),
)
VAE_MIDDLE = (
    ("middle.first", "mid_block.resnets.0", "middle.0"),
    ("middle.second", "mid_block.resnets.1", "middle.2"),
)
VAE_OUTER = (("quant", "quant_conv", "conv1"), ("post_quant", "post_quant_conv", "conv2"))


def dit_table(config: DiTConfig, layout: Layout, prefix: str = "") -> Table:
    """The table of a DiT."""
    column = 1 if layout == "diffusers" else 2
    names = {row[0]: row[column] for row in DIT_OUTER}
    for index in range(config.depth):
        block = f"blocks.{index}."
        names |= {block + row[0]: block + row[column] for row in DIT_BLOCK}
        for attention in ATTENTIONS:
            path, theirs = f"{block}{attention[0]}.", f"{block}{attention[column]}."
            names |= {path + row[0]: theirs + row[column] for row in ATTENTION}
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in DiT(config).state_dict().items()}
    table = {}
    for name, shape in shapes.items():
        if name == "embed.weight":  # a convolution in the files, a linear map of patches here
            shape = (shape[0], config.channels, *config.patch)
        elif name.endswith("table"):
            shape = (1, *shape)
        table[name] = Place(prefix + renamed(name, names), shape)
    return table


def vae_table(config: WanVAEConfig, layout: Layout, prefix: str = "") -> Table:
    """The table of a VAE."""
    column = 1 if layout == "diffusers" else 2
    names = {row[0]: row[column] for row in VAE_OUTER}
    for half in ("encoder", "decoder"):
        names |= {f"{half}.{row[0]}": f"{half}.{row[column]}" for row in VAE_HALF}
        blocks = {f"{half}.{row[0]}": f"{half}.{row[column]}" for row in VAE_MIDDLE}
        depth = config.blocks + (half == "decoder")
        for stage in range(len(config.multipliers)):
            ours = f"{half}.stages.{stage}."
            blocks |= {
                f"{ours}blocks.{index}": stage_member(config, half, layout, stage, index)
                for index in range(depth)
            }
            resample = stage_member(config, half, layout, stage, depth)
            names |= {f"{ours}resample.space": f"{resample}.resample.1"}
            names |= {f"{ours}resample.time": f"{resample}.time_conv"}
        for ours, theirs in blocks.items():
            names |= {f"{ours}.{row[0]}": f"{theirs}.{row[column]}" for row in VAE_BLOCK}
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in WanVAE(config).state_dict().items()}
    table = {}
    for name, shape in shapes.items():
        key = prefix + renamed(name, names)
        if "norm" in name.split(".")[-2]:
            axes = 2 if "attention" in name else 3  # of frames, of clips
            key, shape = key.removesuffix("weight") + "gamma", shape + (1,) * axes
        table[name] = Place(key, shape)
    return table


def stage_member(config: WanVAEConfig, half: str, layout: Layout, stage: int, index: int) -> str:
    """Their name of member `index` of a stage: its blocks, then what changes its resolution."""
    encoder = half == "encoder"
    depth = config.blocks + (not encoder)
    if layout == "original":
        group = f"{half}.{'downsamples' if encoder else 'upsamples'}"
        if config.residual:
            return f"{group}.{stage}.{group.split('.')[1]}.{index}"
        return f"{group}.{stage * (depth + 1) + index}"
    group = f"{half}.{'down' if encoder else 'up'}_blocks"
    if encoder and not config.residual:
        return f"{group}.{stage * (depth + 1) + index}"
    if index < depth:
        return f"{group}.{stage}.resnets.{index}"
    if not config.residual:
        return f"{group}.{stage}.upsamplers.0"
    return f"{group}.{stage}.{'down' if encoder else 'up'}sampler"


def renamed(name: str, names: Mapping[str, str]) -> str:
    """The name in the file; `names` has it, or what it lies beneath."""
    if name in names:
        return names[name]
    above, _, last = name.rpartition(".")
    return f"{names[above]}.{last}"


def detect(keys: Iterable[str]) -> Form:
    """What a file holds, by its keys alone. Raises InputError for what is not a Wan DiT or VAE."""
    present = set(keys)
    for start, kind in RELATIVES.items():
        if any(key.removeprefix(COMFY_PREFIX).startswith(start) for key in present):
            raise InputError(
                f"These weights are Wan's {kind} variant, which is not read yet; give a T2V or TI2V model."
            )
    for probe, (part, layout) in PROBES.items():
        for prefix in ("", COMFY_PREFIX):
            if prefix + probe in present:
                return Form(part, layout, prefix)
    some = ", ".join(sorted(present)[:3]) or "none"
    raise InputError(
        f"These weights are not Wan's (keys: {some}); give the file of a Wan transformer or VAE."
    )


def dit_config(shapes: Mapping[str, Shape], form: Form, heads: int | None = None) -> DiTConfig:
    """The configuration of a DiT from the shapes in a file; heads are 128 wide unless their number is given.

    Raises InputError when the tensors that tell the sizes are missing or of other axes.
    """
    column = 1 if form.layout == "diffusers" else 2
    outer = {row[0]: form.prefix + row[column] for row in DIT_OUTER}
    up = next(row[column] for row in DIT_BLOCK if row[0] == "mlp.up")
    embed = expected(shapes, f"{outer['embed']}.weight", 5)
    wave = expected(shapes, f"{outer['time_in']}.weight", 2)
    text = expected(shapes, f"{outer['text.up']}.weight", 2)
    mlp = expected(shapes, f"{form.prefix}blocks.0.{up}.weight", 2)
    head = expected(shapes, f"{outer['head']}.weight", 2)
    channels, given = embed[1], head[0] // math.prod(embed[2:])
    if channels > given:
        raise InputError(
            f"These weights take {channels} channels and give {given}, as Wan's image-to-video variants do, which "
            "are not read yet; give a T2V or TI2V model."
        )
    start = f"{form.prefix}blocks."
    depth = len({key.removeprefix(start).split(".")[0] for key in shapes if key.startswith(start)})
    return replace(
        DIT_PRESETS["wan2.1-t2v-1.3b"],
        width=embed[0],
        depth=depth,
        heads=heads or max(1, embed[0] // HEAD_WIDTH),
        mlp_width=mlp[0],
        text_width=text[1],
        channels=channels,
        patch=(embed[2], embed[3], embed[4]),
        frequency_width=wave[1],
    )


def vae_config(shapes: Mapping[str, Shape], form: Form) -> WanVAEConfig:
    """The published VAE that has the latent channels of the file. Raises InputError when there is none."""
    table = vae_table(WAN_VAE_PRESETS["wan2.1-vae"], form.layout, form.prefix)
    channels = expected(shapes, table["post_quant.weight"].key, 5)[0]
    for config in WAN_VAE_PRESETS.values():
        if len(config.latent_mean) == channels:
            return config
    raise InputError(f"A Wan VAE with {channels} latent channels is not known; they have 16 or 48.")


def expected(shapes: Mapping[str, Shape], key: str, axes: int) -> Shape:
    if len(shapes.get(key, ())) != axes:
        found = f"has the shape {shapes[key]}" if key in shapes else "is missing"
        raise InputError(f"{key} {found}, but a Wan model has it with {axes} axes; fetch the file again.")
    return shapes[key]


def check(shapes: Mapping[str, Shape], table: Table) -> None:
    """Raise InputError naming the keys that are missing, unexpected or of a wrong shape."""
    places = {place.key: place.shape for place in table.values()}
    wrong = [
        f"{key} is {shapes[key]} instead of {shape}"
        for key, shape in places.items()
        if key in shapes and tuple(shapes[key]) != shape
    ]
    faults = {
        "missing": sorted(places.keys() - shapes.keys()),
        "unexpected": sorted(shapes.keys() - places.keys()),
        "of a wrong shape": wrong,
    }
    told = [f"{len(keys)} {fault}: {named(keys)}" for fault, keys in faults.items() if keys]
    if told:
        raise InputError(
            f"The weights do not fit the model, {'; '.join(told)}; fetch the whole, right model."
        )


def named(keys: list[str]) -> str:
    """The first keys of a list, and how many more there are."""
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def to_ours(tensors: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """A state dict of ours from the tensors of a file. Raises InputError as `check` does."""
    check({key: tuple(tensor.shape) for key, tensor in tensors.items()}, table)
    return {name: shaped_as_ours(name, tensors[place.key]) for name, place in table.items()}


def to_theirs(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """The tensors of a file from a state dict of ours: the inverse of `to_ours`, bit for bit."""
    return {place.key: state[name].reshape(place.shape) for name, place in table.items()}


def shaped_as_ours(name: str, tensor: Tensor) -> Tensor:
    """Undo what the tables say of shapes: the patch folded into channels, axes of one dropped."""
    last = name.split(".")[-2:]
    if name == "embed.weight":
        return tensor.flatten(1)
    if last[-1] == "table":
        return tensor[0]
    return tensor.flatten() if "norm" in last[0] else tensor


def read_shapes(path: str | Path) -> dict[str, Shape]:
    """Names and shapes of all tensors of a file or a folder of shards; only the headers are read."""
    shapes: dict[str, Shape] = {}
    for file in weight_files(Path(path)):
        try:
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118  (not a dict)
                    shapes[key] = tuple(tensors.get_slice(key).get_shape())
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} cannot be read as safetensors ({error}); fetch it again.") from error
    return shapes


def weight_files(path: Path) -> list[Path]:
    """A safetensors file itself, or those of a folder; with an index, each that it names.

    Raises InputError when there is none, or when one named by the index is not there.
    """
    if path.is_file():
        return [path]
    for index in sorted(path.glob("*.safetensors.index.json")):
        try:
            names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is not an index of weights; fetch it again.") from error
        lost = sorted(name for name in names if not (path / name).is_file())
        if lost:
            raise InputError(f"{path} lacks {named(lost)}, which {index.name} names; finish the download.")
        return [path / name for name in sorted(names)]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise InputError(f"{path} holds no safetensors weights; give a safetensors file or its folder.")
    return files


def load_dit(
    path: str | Path, heads: int | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> DiT:
    """A Wan DiT from a file or a folder of shards, in evaluation mode.

    heads: their number; None takes that of the config.json beside the weights, else heads 128 wide as in
    every published model. Raises InputError for weights that are not a Wan DiT's, and as `check` does.
    """
    shapes = read_shapes(path)
    form = detect(shapes)
    if form.part != "dit":
        raise InputError(f"{path} holds a Wan VAE, not a DiT; give the folder or file of the transformer.")
    config = dit_config(shapes, form, heads or heads_of(Path(path)))
    table = dit_table(config, form.layout, form.prefix)
    check(shapes, table)
    with torch.device("meta"):
        dit = DiT(config)
    return filled(dit, Path(path), table, device, dtype)


def heads_of(path: Path) -> int | None:
    """The number of heads that the config.json beside the weights tells, of either layout."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text("utf-8"))
        heads = told.get("num_attention_heads", told.get("num_heads"))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{file} is not a table of JSON; fetch it again or remove it.") from error
    return heads if isinstance(heads, int) and heads > 0 else None


def load_vae(
    path: str | Path,
    config: WanVAEConfig | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> WanVAE:
    """A Wan VAE from a file or a folder, in evaluation mode; one of the published two unless `config` is given.

    Raises InputError for weights that are not a Wan VAE's, and as `check` does.
    """
    shapes = read_shapes(path)
    form = detect(shapes)
    if form.part != "vae":
        raise InputError(f"{path} holds a Wan DiT, not a VAE; give the folder or file of the VAE.")
    config = config or vae_config(shapes, form)
    table = vae_table(config, form.layout, form.prefix)
    check(shapes, table)
    with torch.device("meta"):
        vae = WanVAE(config)
    return filled(vae, Path(path), table, device, dtype)


def filled(module: M, path: Path, table: Table, device: str, dtype: torch.dtype) -> M:
    """The module with the tensors of the files, each mapped from disk, converted and dropped in turn."""
    names = {place.key: name for name, place in table.items()}
    state = {}
    for file in weight_files(path):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118  (not a dict)
                name = names[key]
                state[name] = shaped_as_ours(name, tensors.get_tensor(key)).to(device, dtype)
    module.load_state_dict(state, assign=True)
    return module.eval()
