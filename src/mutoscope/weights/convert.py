"""A Wan model from any layout to diffusers' folders or to our own names, bit for bit, and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor

from mutoscope.config import to_dict, write_json
from mutoscope.errors import InputError
from mutoscope.files import replacing_folder
from mutoscope.models.dit import DiTConfig
from mutoscope.models.vace import VaceConfig
from mutoscope.models.wan_image import ImageDiTConfig
from mutoscope.models.wan_vae import WanVAEConfig
from mutoscope.weights.encoders import read_clip_state, read_umt5_state
from mutoscope.weights.library import located
from mutoscope.weights.wan_folder import Parts, survey
from mutoscope.weights.wan_layouts import Table, dit_table, to_theirs, vae_table
from mutoscope.weights.wan_modules import OUR_KINDS, dit_plan, read_json, read_state, vae_plan
from mutoscope.weights.wan_settings import SETTINGS, name_of

Target = Literal["diffusers", "mutoscope"]
WEIGHTS = "diffusion_pytorch_model.safetensors"
PIPELINES = {"i2v": "WanImageToVideoPipeline", "flf2v": "WanImageToVideoPipeline", "vace": "WanVACEPipeline"}


def convert(source: Path, target: Path, layout: Target) -> Path:
    """Write a model anew: every tensor keeps its bits and its type, only names and shapes change.

    source: its folder, or its name if it was imported.

    Raises InputError for what is no Wan model, and when the target is there.
    """
    if target.exists():
        raise InputError(f"{target} exists; choose another folder for the converted model.")
    source = located(source)
    if not source.is_dir():
        raise InputError(
            f"{source} is neither an imported model nor a folder; give the folder of a Wan model."
        )
    if (source / "model.json").is_file():
        raise InputError(
            f"{source} is a model of ours, which no other layout can hold; only Wan's are converted."
        )
    parts = survey(source)
    with replacing_folder(target) as partial:
        config = _dit(parts.dit, partial / "transformer", layout)
        if parts.low is not None:
            _dit(parts.low, partial / "transformer_2", layout)
        _vae(parts.vae, partial / "vae", layout)
        _encoders(parts, partial)
        _tables(source, partial, config, parts)
    return target


def _dit(path: Path, folder: Path, layout: Target) -> DiTConfig:
    config, table = dit_plan(path)
    told = our_config(config) if layout == "mutoscope" else their_dit_config(config)
    _rename(path, table, folder, dit_table(config, layout), told)
    return config


def _vae(path: Path, folder: Path, layout: Target) -> None:
    config, table = vae_plan(path)
    told = our_config(config) if layout == "mutoscope" else their_vae_config(config)
    _rename(path, table, folder, vae_table(config, layout), told)


def _rename(path: Path, table: Table, folder: Path, new: Table, told: dict[str, Any]) -> None:
    """The tensors of a file in another layout."""
    _write(folder, WEIGHTS, to_theirs(read_state(path, table, "cpu", None), new), told)


def _encoders(parts: Parts, folder: Path) -> None:
    """Both layouts hold the encoders under transformers' names."""
    _write(folder / "text_encoder", "model.safetensors", *read_umt5_state(parts.text))
    if parts.clip is not None:
        _write(folder / "image_encoder", "model.safetensors", *read_clip_state(parts.clip))
    (folder / "tokenizer").mkdir()
    shutil.copy(parts.tokenizer, folder / "tokenizer" / "tokenizer.json")


def _tables(source: Path, folder: Path, config: DiTConfig, parts: Parts) -> None:
    """model_index.json and the scheduler's: those of the source, else what the model is published with."""
    name = name_of(config, 1 if parts.low is None else 2)
    setting = SETTINGS[name]
    index: dict[str, Any] = {
        "_class_name": PIPELINES.get(name.split("-")[1], "WanPipeline"),
        "boundary_ratio": setting.boundary if parts.low is not None else None,
        "expand_timesteps": name == "wan2.2-ti2v-5b",
    }
    steps = {
        "_class_name": "UniPCMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "num_train_timesteps": 1000,
        "flow_shift": setting.shift,
    }
    write_json(folder / "model_index.json", read_json(source / "model_index.json") or index)
    (folder / "scheduler").mkdir()
    path = Path("scheduler") / "scheduler_config.json"
    write_json(folder / path, read_json(source / path) or steps)


def _write(folder: Path, name: str, tensors: dict[str, Tensor], told: dict[str, Any]) -> None:
    folder.mkdir()
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name, {"format": "pt"})
    write_json(folder / "config.json", told)


def our_config(config: DiTConfig | WanVAEConfig) -> dict[str, Any]:
    """The config.json of a module under our own names."""
    kind = next(kind for kind, cls in OUR_KINDS.items() if type(config) is cls)
    return {"_class_name": kind, **to_dict(config)}


def their_dit_config(config: DiTConfig) -> dict[str, Any]:
    """The config.json of diffusers' transformer of the same shape."""
    told: dict[str, Any] = {
        "_class_name": "WanTransformer3DModel",
        "patch_size": list(config.patch),
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "text_dim": config.text_width,
        "freq_dim": config.frequency_width,
        "ffn_dim": config.mlp_width,
        "num_layers": config.depth,
    }
    if isinstance(config, VaceConfig):
        told |= {"_class_name": "WanVACETransformer3DModel", "vace_in_channels": config.control_channels}
        told["vace_layers"] = list(config.hinted)
    if isinstance(config, ImageDiTConfig):
        told |= {"out_channels": config.out_channels, "image_dim": config.image_width}
        told["added_kv_proj_dim"] = None if config.image_width is None else config.width
        told["pos_embed_seq_len"] = config.image_tokens
    return told


def their_vae_config(config: WanVAEConfig) -> dict[str, Any]:
    """The config.json of diffusers' VAE of the same shape."""
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.width,
        "decoder_base_dim": config.decoder_width,
        "z_dim": len(config.latent_mean),
        "dim_mult": list(config.multipliers),
        "num_res_blocks": config.blocks,
        "temperal_downsample": list(config.halves_time),
        "latents_mean": list(config.latent_mean),
        "latents_std": list(config.latent_std),
        "is_residual": config.residual,
        "in_channels": 3 * config.patch**2,
        "out_channels": 3 * config.patch**2,
        "patch_size": config.patch if config.patch > 1 else None,
        "scale_factor_temporal": config.strides[0],
        "scale_factor_spatial": config.strides[1],
    }
