"""Names and shapes of Wan's public weights, and where ours lie among them: diffusers, original and ComfyUI layouts.

A layout is a table with one row for each of our parameters: its name and shape in the file. The tables are
built from the configuration, so that a file is checked in full before the first tensor is read: every key is
matched, or reported as missing, unexpected or of a wrong shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.models.dit import DIT_PRESETS, DiT, DiTConfig
from mutoscope.models.vace import VaceConfig, VaceDiT
from mutoscope.models.wan_image import ImageDiT, ImageDiTConfig
from mutoscope.models.wan_vae import WAN_VAE_PRESETS, WanVAE, WanVAEConfig
from mutoscope.weights.tensor_files import Shape, named

Layout = Literal["diffusers", "original", "mutoscope"]

COMFY_PREFIX = "model.diffusion_model."
HEAD_WIDTH = 128  # of every published Wan DiT; the number of heads is in no tensor's shape

PROBES: dict[str, tuple[Literal["dit", "vae"], Layout]] = {
    "condition_embedder.time_proj.weight": ("dit", "diffusers"),
    "time_projection.1.weight": ("dit", "original"),
    "decoder.mid_block.resnets.0.norm1.gamma": ("vae", "diffusers"),
    "decoder.middle.0.residual.0.gamma": ("vae", "original"),
    "blocks.0.text_attention.query.weight": ("dit", "mutoscope"),
    "decoder.middle.first.norm1.weight": ("vae", "mutoscope"),
}
RELATIVES = {"motion_encoder.": "Animate", "face_adapter.": "Animate", "casual_audio_encoder.": "S2V"}


@dataclass(frozen=True)
class Form:
    """What a file holds and how its keys are written."""

    part: Literal["dit", "vae"]
    layout: Layout
    prefix: str = ""


@dataclass(frozen=True)
class Place:
    """Where one of our parameters lies in a file. third: of a tensor of query, key and value joined."""

    key: str
    shape: Shape
    third: int | None = None


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
    ("image.places", "condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"),
    ("image.norm_in", "condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
    ("image.mlp.up", "condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ("image.mlp.down", "condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    ("image.norm_out", "condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
    ("control_embed", "vace_patch_embedding", "vace_patch_embedding"),
)
DIT_BLOCK = (
    ("table", "scale_shift_table", "modulation"),
    ("text_norm", "norm2", "norm3"),
    ("mlp.up", "ffn.net.0.proj", "ffn.0"),
    ("mlp.down", "ffn.net.2", "ffn.2"),
    ("before", "proj_in", "before_proj"),
    ("after", "proj_out", "after_proj"),
)
ATTENTIONS = (("attention", "attn1", "self_attn"), ("text_attention", "attn2", "cross_attn"))
ATTENTION = (
    ("query", "to_q", "q"),
    ("key", "to_k", "k"),
    ("value", "to_v", "v"),
    ("out", "to_out.0", "o"),
    ("query_norm", "norm_q", "norm_q"),
    ("key_norm", "norm_k", "norm_k"),
    ("image_key", "add_k_proj", "k_img"),
    ("image_value", "add_v_proj", "v_img"),
    ("image_key_norm", "norm_added_k", "norm_k_img"),
)
BLOCKS = (("blocks", "blocks"), ("control_blocks", "vace_blocks"))  # ours, theirs in both layouts
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


def blank_dit(config: DiTConfig) -> DiT:
    """The DiT of a configuration, without memory for its weights."""
    with torch.device("meta"):
        if isinstance(config, ImageDiTConfig):
            return ImageDiT(config)
        return VaceDiT(config) if isinstance(config, VaceConfig) else DiT(config)


def dit_table(config: DiTConfig, layout: Layout, prefix: str = "") -> Table:
    """The table of a DiT of any kind."""
    column = 1 if layout == "diffusers" else 2
    names = {row[0]: row[column] for row in DIT_OUTER}
    for ours, theirs in BLOCKS:
        for index in range(config.depth):
            block, there = f"{ours}.{index}.", f"{theirs}.{index}."
            names |= {block + row[0]: there + row[column] for row in DIT_BLOCK}
            for attention in ATTENTIONS:
                names |= {
                    f"{block}{attention[0]}.{row[0]}": f"{there}{attention[column]}.{row[column]}"
                    for row in ATTENTION
                }
    table = {}
    for name, tensor in blank_dit(config).state_dict().items():
        shape = tuple(tensor.shape)
        if layout == "mutoscope":
            table[name] = Place(prefix + name, shape)
            continue
        if name.endswith("embed.weight"):  # a convolution in the files, a linear map of patches here
            shape = (shape[0], shape[1] // math.prod(config.patch), *config.patch)
        elif name.endswith(("table", "places")):
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
    if layout == "mutoscope":
        return {name: Place(prefix + name, shape) for name, shape in shapes.items()}
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
                f"These weights are Wan's {kind} variant, which is not read; give T2V, I2V, FLF2V, TI2V or VACE."
            )
    for probe, (part, layout) in PROBES.items():
        for prefix in ("", COMFY_PREFIX):
            if prefix + probe in present:
                return Form(part, layout, prefix)
    some = ", ".join(sorted(present)[:3]) or "none"
    raise InputError(
        f"These weights are not Wan's (keys: {some}); give the file of a Wan transformer or VAE."
    )


def dit_config(
    shapes: Mapping[str, Shape], form: Form, heads: int | None = None, hinted: tuple[int, ...] | None = None
) -> DiTConfig:
    """The configuration of a DiT of any kind from the shapes in a file.

    heads: their number, else they are 128 wide. hinted: the blocks that VACE gives hints to, else evenly spread.

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
    config = replace(
        DIT_PRESETS["wan2.1-t2v-1.3b"],
        width=embed[0],
        depth=blocks_of(shapes, f"{form.prefix}blocks."),
        heads=heads or max(1, embed[0] // HEAD_WIDTH),
        mlp_width=mlp[0],
        text_width=text[1],
        channels=channels,
        patch=(embed[2], embed[3], embed[4]),
        frequency_width=wave[1],
    )
    shared = {name: getattr(config, name) for name in DiTConfig.__dataclass_fields__}
    control = f"{outer['control_embed']}.weight"
    if control in shapes:
        if hinted is None:  # every published model spreads them evenly
            count = blocks_of(shapes, f"{form.prefix}vace_blocks.")
            hinted = tuple(range(0, config.depth, max(1, config.depth // max(1, count))))[:count]
        return VaceConfig(**shared, hinted=hinted, control_channels=expected(shapes, control, 5)[1])
    norm, places = f"{outer['image.norm_in']}.weight", outer["image.places"]
    if channels > given or norm in shapes:
        return ImageDiTConfig(
            **shared,
            out_channels=given,
            image_width=expected(shapes, norm, 1)[0] if norm in shapes else None,
            image_tokens=expected(shapes, places, 3)[1] if places in shapes else None,
        )
    return config


def blocks_of(shapes: Mapping[str, Shape], start: str) -> int:
    """How many numbered members lie under a name."""
    return len({key.removeprefix(start).split(".")[0] for key in shapes if key.startswith(start)})


def vae_config(shapes: Mapping[str, Shape], form: Form) -> WanVAEConfig:
    """The VAE of the published kind that has the latent channels of the file, as wide and deep as the file's.

    Raises InputError when there is none of such channels, whose statistics no file tells.
    """
    table = vae_table(WAN_VAE_PRESETS["wan2.1-vae"], form.layout, form.prefix)
    channels = expected(shapes, table["post_quant.weight"].key, 5)[0]
    known = [config for config in WAN_VAE_PRESETS.values() if len(config.latent_mean) == channels]
    if not known:
        raise InputError(f"A Wan VAE with {channels} latent channels is not known; they have 16 or 48.")
    width = expected(shapes, table["encoder.stem.weight"].key, 5)[0]
    decoder_width = expected(shapes, table["decoder.norm.weight"].key, 4)[0]
    below = form.prefix + ("encoder.down_blocks." if form.layout == "diffusers" else "encoder.downsamples.")
    if not known[0].residual:
        blocks = (blocks_of(shapes, below) + 1) // len(known[0].multipliers) - 1
    elif form.layout == "diffusers":
        blocks = blocks_of(shapes, below + "0.resnets.")
    else:
        blocks = blocks_of(shapes, below + "0.downsamples.") - 1
    return replace(known[0], width=width, decoder_width=decoder_width, blocks=blocks)


def expected(shapes: Mapping[str, Shape], key: str, axes: int) -> Shape:
    if len(shapes.get(key, ())) != axes:
        found = f"has the shape {shapes[key]}" if key in shapes else "is missing"
        raise InputError(f"{key} {found}, but a Wan model has it with {axes} axes; fetch the file again.")
    return shapes[key]


def check(shapes: Mapping[str, Shape], table: Table, path: Path | None = None) -> None:
    """Raise InputError naming the file and the keys that are missing, unexpected or of a wrong shape."""
    places = {place.key: place.shape for place in table.values() if place.third is None}
    thirds = [place for place in table.values() if place.third is not None]
    places |= {place.key: (3 * place.shape[0], *place.shape[1:]) for place in thirds}
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
            f"The weights{f' in {path}' if path else ''} do not fit the model, {'; '.join(told)}; fetch the whole, "
            "right model."
        )


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
    if name in ("embed.weight", "control_embed.weight"):
        return tensor.flatten(1)
    if last[-1] in ("table", "places"):
        return tensor.flatten(0, -2)
    return tensor.flatten() if "norm" in last[0] else tensor
