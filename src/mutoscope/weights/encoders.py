"""Wan's encoders from their files: UMT5 and CLIP's vision half in transformers' and in the original layouts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models.clip import PictureEncoder, build_clip, placed
from mutoscope.models.umt5 import build_umt5
from mutoscope.weights.tensor_files import Shape, read_shapes
from mutoscope.weights.wan_layouts import (
    Place,
    Table,
    check,
    expected,
)
from mutoscope.weights.wan_modules import read_state, told_beside

EMBEDDING = "encoder.embed_tokens.weight"  # UMT5's second name for shared.weight
IGNORED = ("spiece_model", "embeddings.position_ids", "visual_projection.weight", EMBEDDING)
CLIP_PREFIX = "vision_model."
CLIP_HEAD_WIDTH = 80  # of ViT-H/14; the number of heads is in no tensor's shape
VISUAL = "visual."  # CLIP's vision half in Wan's own file
CLIP_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
CLIP_OUTER = {
    "embeddings.class_embedding": "cls_embedding",
    "embeddings.patch_embedding.weight": "patch_embedding.weight",
    "embeddings.position_embedding.weight": "pos_embedding",
    "pre_layrnorm.weight": "pre_norm.weight",
    "pre_layrnorm.bias": "pre_norm.bias",
    "post_layernorm.weight": "post_norm.weight",
    "post_layernorm.bias": "post_norm.bias",
}
CLIP_INNER = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
CLIP_THIRDS = {f"self_attn.{name}_proj": third for third, name in enumerate("qkv")}
MLP_NAMES = {"wi_0": "ffn.gate.0", "wi_1": "ffn.fc1", "wo": "ffn.fc2"}


def encoder_kind(keys: Iterable[str]) -> Literal["umt5", "clip"] | None:
    """Which encoder a file holds, by its keys alone; None when it holds neither."""
    present = set(keys)
    if {
        "encoder.block.0.layer.0.SelfAttention.q.weight",
        "blocks.0.pos_embedding.embedding.weight",
    } & present:
        return "umt5"
    if {
        name + "embeddings.class_embedding" for name in ("", CLIP_PREFIX)
    } & present or VISUAL + "cls_embedding" in present:
        return "clip"
    return None


def blank_umt5(path: Path) -> nn.Module:
    """UMT5 of the sizes in a file or folder, on the meta device. Raises InputError as `wan_layouts.check` does."""
    return _umt5(path)[0]


def load_umt5(path: Path, device: str = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
    """UMT5 from a file or a folder of shards; `dtype` None keeps the type of the file, which is the fastest.

    Raises InputError as `wan_layouts.check` does.
    """
    encoder, table = _umt5(path)
    state = read_state(path, table, device, dtype)
    if EMBEDDING in encoder.state_dict():
        state[EMBEDDING] = state["shared.weight"]
    encoder.load_state_dict(state, assign=True)
    return encoder


def blank_clip(path: Path) -> nn.Module:
    """CLIP's vision half of the sizes in a file or folder, on the meta device."""
    return _clip(path)[0]


def load_clip(path: Path, device: str = "cpu", dtype: torch.dtype | None = None) -> PictureEncoder:
    """CLIP's vision half from a file or a folder. Raises InputError as `wan_layouts.check` does."""
    encoder, table, config = _clip(path)
    encoder.load_state_dict(_clip_state(path, encoder, table, device, dtype), assign=True)
    return PictureEncoder(placed(encoder), config["image_size"]).eval()


def _clip_state(
    path: Path, encoder: nn.Module, table: Table, device: str, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """CLIP's tensors; those of Wan's own file lose their axes of one."""
    shapes = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    state = read_state(path, table, device, dtype)
    return {name: tensor.reshape(shapes[name]) for name, tensor in state.items()}


def _told(path: Path, mark: str) -> dict[str, Any]:
    """The config.json beside an encoder; empty when it is another part's, as in Wan's own folders."""
    told = told_beside(path)
    return told if mark in told else {}


def read_umt5_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """UMT5's tensors under transformers' names, as they are in the file, and its config.json."""
    encoder, table = _umt5(path)
    return read_state(path, table, "cpu", None), told_by(encoder)


def read_clip_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As `read_umt5_state`, for CLIP's vision half; names without a prefix in the file stay without."""
    encoder, table, _ = _clip(path)
    state = _clip_state(path, encoder, table, "cpu", None)
    bare = not any(place.key.startswith((CLIP_PREFIX, VISUAL)) for place in table.values())
    prefix = "" if bare else CLIP_PREFIX
    return {prefix + name.removeprefix(CLIP_PREFIX): tensor for name, tensor in state.items()}, told_by(
        encoder
    )


def told_by(encoder: nn.Module) -> dict[str, Any]:
    """The config.json of a module of transformers."""
    config: Any = encoder.config
    told: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    return told


def _clip(path: Path) -> tuple[nn.Module, Table, dict[str, Any]]:
    told = _told(path, "vision_config") or _told(path, "image_size")
    shapes = {key: shape for key, shape in read_shapes(path).items() if not key.startswith("text_")}
    original = VISUAL + "cls_embedding" in shapes
    if original:
        shapes = {
            key: shape for key, shape in shapes.items() if key.startswith(VISUAL) and key != VISUAL + "head"
        }
    prefix = CLIP_PREFIX if any(key.startswith(CLIP_PREFIX) for key in shapes) else ""
    config = clip_config(shapes, prefix, original) | (told.get("vision_config") or told)
    with torch.device("meta"):
        encoder = build_clip(config)
    names = encoder.state_dict()
    inner = CLIP_PREFIX if any(name.startswith(CLIP_PREFIX) for name in names) else ""
    table = {}
    for name, tensor in names.items():
        bare, shape = name.removeprefix(inner), tuple(tensor.shape)
        table[name] = original_clip_place(bare, shape) if original else Place(prefix + bare, shape)
    check(_without_ignored(shapes), table, path)
    return encoder, table, config


def original_clip_place(name: str, shape: Shape) -> Place:
    """Where a tensor of CLIP's vision half lies in Wan's own file (wan/modules/clip.py)."""
    if name in CLIP_OUTER:
        key = CLIP_OUTER[name]
        lead = {"cls_embedding": (1, 1), "pos_embedding": (1,)}.get(key, ())
        return Place(VISUAL + key, (*lead, *shape))
    match = CLIP_LAYER.fullmatch(name)
    if match is None:
        raise InputError(f"CLIP has a tensor {name} that Wan's layout does not know; update transformers.")
    layer, module, kind = match.groups()
    start = f"{VISUAL}transformer.{layer}."
    if module in CLIP_THIRDS:
        return Place(f"{start}attn.to_qkv.{kind}", shape, CLIP_THIRDS[module])
    return Place(f"{start}{CLIP_INNER[module]}.{kind}", shape)


def clip_config(shapes: Mapping[str, Shape], prefix: str, original: bool = False) -> dict[str, Any]:
    """What a config.json would say of these shapes."""
    if original:
        patch = expected(shapes, f"{VISUAL}patch_embedding.weight", 4)
        places = expected(shapes, f"{VISUAL}pos_embedding", 3)[1:]
        hidden = expected(shapes, f"{VISUAL}transformer.0.mlp.0.weight", 2)
        start = f"{VISUAL}transformer."
    else:
        patch = expected(shapes, f"{prefix}embeddings.patch_embedding.weight", 4)
        places = expected(shapes, f"{prefix}embeddings.position_embedding.weight", 2)
        hidden = expected(shapes, f"{prefix}encoder.layers.0.mlp.fc1.weight", 2)
        start = f"{prefix}encoder.layers."
    return {
        "hidden_size": patch[0],
        "intermediate_size": hidden[0],
        "num_hidden_layers": len(
            {key.removeprefix(start).split(".")[0] for key in shapes if key.startswith(start)}
        ),
        "num_attention_heads": max(1, patch[0] // CLIP_HEAD_WIDTH),
        "patch_size": patch[2],
        "image_size": patch[2] * round((places[0] - 1) ** 0.5),
        "hidden_act": "gelu",
    }


def umt5_config(shapes: Mapping[str, Shape], original: bool) -> dict[str, Any]:
    """What a config.json would say of these shapes."""
    start = "blocks.0." if original else "encoder.block.0.layer."
    bias = "pos_embedding.embedding.weight" if original else "0.SelfAttention.relative_attention_bias.weight"
    query = expected(shapes, start + ("attn.q.weight" if original else "0.SelfAttention.q.weight"), 2)
    hidden = expected(shapes, start + ("ffn.fc1.weight" if original else "1.DenseReluDense.wi_1.weight"), 2)
    words = expected(shapes, "token_embedding.weight" if original else word_key(shapes), 2)
    buckets, heads = expected(shapes, start + bias, 2)
    blocks = start.removesuffix("0.layer.").removesuffix("0.")
    depth = {key.removeprefix(blocks).split(".")[0] for key in shapes if key.startswith(blocks)}
    return {
        "vocab_size": words[0],
        "d_model": words[1],
        "d_kv": query[0] // heads,
        "d_ff": hidden[0],
        "num_layers": len(depth),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def word_key(shapes: Mapping[str, Shape]) -> str:
    """The one of UMT5's two names for its embeddings that the file uses."""
    return "shared.weight" if "shared.weight" in shapes else EMBEDDING


def _umt5(path: Path) -> tuple[nn.Module, Table]:
    """The module without memory, and its table, which the shapes of the file have been checked against."""
    shapes, told = read_shapes(path), _told(path, "d_model")
    original = "blocks.0.attn.q.weight" in shapes
    with torch.device("meta"):
        encoder = build_umt5(umt5_config(shapes, original) | told)
    table = {}
    for name, tensor in encoder.state_dict().items():
        if name == EMBEDDING:
            continue
        key = original_key(name) if original else (word_key(shapes) if name == "shared.weight" else name)
        table[name] = Place(key, tuple(tensor.shape))
    kept = {place.key for place in table.values()}
    check({key: shape for key, shape in shapes.items() if key in kept or key not in IGNORED}, table, path)
    return encoder, table


def original_key(name: str) -> str:
    """The name of a tensor of UMT5 in Wan's own file."""
    if name == "shared.weight":
        return "token_embedding.weight"
    if name == "encoder.final_layer_norm.weight":
        return "norm.weight"
    parts = name.split(".")
    if parts[:2] != ["encoder", "block"] or len(parts) < 7:
        raise InputError(f"UMT5 has a tensor {name} that Wan's layout does not know; update transformers.")
    block, layer, module, last = parts[2], parts[4], parts[5], parts[-2]
    if module == "layer_norm":
        return f"blocks.{block}.norm{int(layer) + 1}.weight"
    if last == "relative_attention_bias":
        return f"blocks.{block}.pos_embedding.embedding.weight"
    return f"blocks.{block}.{f'attn.{last}' if module == 'SelfAttention' else MLP_NAMES[last]}.weight"


def _without_ignored(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {key: shape for key, shape in shapes.items() if key.removeprefix(CLIP_PREFIX) not in IGNORED}
