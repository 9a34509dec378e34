"""Wan's layouts: every key of the full presets, round trips, and what a file holds told from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.models.dit import DIT_PRESETS, DiT
from mutoscope.models.wan_image import ImageDiTConfig
from mutoscope.models.wan_vae import WAN_VAE_PRESETS, WanVAE
from mutoscope.weights.wan_layouts import (
    COMFY_PREFIX,
    Form,
    detect,
    dit_config,
    dit_table,
    to_ours,
    to_theirs,
    vae_config,
    vae_table,
)
from wan_models import SMALL, SMALL_VAE, diffusers_dit, diffusers_vae

WAN_DITS = [name for name in DIT_PRESETS if name.startswith("wan")]


def places(table: Any) -> dict[str, tuple[int, ...]]:
    return {place.key: place.shape for place in table.values()}


def shapes_of(module: Any) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


@pytest.mark.parametrize("preset", WAN_DITS)
def test_every_key_of_a_full_dit_is_mapped(preset: str) -> None:
    config = DIT_PRESETS[preset]
    with torch.device("meta"):
        reference = diffusers_dit(config)
    assert places(dit_table(config, "diffusers")) == shapes_of(reference)
    assert preset != "wan2.1-t2v-1.3b" or len(reference.state_dict()) == 825


@pytest.mark.parametrize("preset", WAN_DITS)
def test_every_original_key_of_a_full_dit_is_the_one_that_diffusers_reads(preset: str) -> None:
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    config = DIT_PRESETS[preset]
    with torch.device("meta"):
        for prefix in ("", COMFY_PREFIX):
            original = {
                key: torch.empty(shape)
                for key, shape in places(dit_table(config, "original", prefix)).items()
            }
            converted = single_file.convert_wan_transformer_to_diffusers(original)
            assert {key: tuple(tensor.shape) for key, tensor in converted.items()} == places(
                dit_table(config, "diffusers")
            )


@pytest.mark.parametrize("preset", WAN_VAE_PRESETS)
def test_every_key_of_a_full_vae_is_mapped(preset: str) -> None:
    config = WAN_VAE_PRESETS[preset]
    with torch.device("meta"):
        assert places(vae_table(config, "diffusers")) == shapes_of(diffusers_vae(config))


def test_every_original_key_of_the_first_vae_is_the_one_that_diffusers_reads() -> None:
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    config = WAN_VAE_PRESETS["wan2.1-vae"]
    with torch.device("meta"):
        original = {key: torch.empty(shape) for key, shape in places(vae_table(config, "original")).items()}
    converted = single_file.convert_wan_vae_to_diffusers(original)
    assert {key: tuple(tensor.shape) for key, tensor in converted.items()} == places(
        vae_table(config, "diffusers")
    )


def test_every_original_key_of_the_residual_vae_is_mapped() -> None:
    """By the renaming of diffusers' scripts/convert_wan_to_diffusers.py, whose loader does not read this VAE."""
    config = WAN_VAE_PRESETS["wan2.2-vae"]
    rules = [
        (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
        (r"^conv1\.", "quant_conv."),
        (r"^conv2\.", "post_quant_conv."),
        (r"\.head\.0\.", ".norm_out."),
        (r"\.head\.2\.", ".conv_out."),
        (r"\.middle\.0\.", ".mid_block.resnets.0."),
        (r"\.middle\.1\.", ".mid_block.attentions.0."),
        (r"\.middle\.2\.", ".mid_block.resnets.1."),
        (r"\.(down|up)samples\.(\d+)\.\1samples\.\d+\.(resample|time_conv)", r".\1_blocks.\2.\1sampler.\3"),
        (r"\.(down|up)samples\.(\d+)\.\1samples\.", r".\1_blocks.\2.resnets."),
        (r"\.residual\.0\.", ".norm1."),
        (r"\.residual\.2\.", ".conv1."),
        (r"\.residual\.3\.", ".norm2."),
        (r"\.residual\.6\.", ".conv2."),
        (r"\.shortcut\.", ".conv_shortcut."),
    ]
    converted = {}
    for key, shape in places(vae_table(config, "original")).items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        converted[key] = shape
    assert converted == places(vae_table(config, "diffusers"))
    indices = {
        "encoder.downsamples.2.downsamples.2.time_conv.bias",
        "decoder.upsamples.1.upsamples.3.time_conv.bias",
    }
    assert (
        indices <= places(vae_table(config, "original")).keys()
    )  # each stage's blocks come before its resampling


@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_round_trips_are_bit_for_bit(layout: Any) -> None:
    cases: list[tuple[Callable[..., Any], Any, Any]] = [
        (dit_table, SMALL, DiT(SMALL)),
        (vae_table, SMALL_VAE, WanVAE(SMALL_VAE)),
        (vae_table, replace(SMALL_VAE, patch=2, residual=True), None),
    ]
    for table_of, config, module in cases:
        module = WanVAE(config) if module is None else module
        table, state = table_of(config, layout), module.state_dict()
        back = to_ours(to_theirs(state, table), table)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("layout", "prefix"), [("diffusers", ""), ("original", ""), ("original", COMFY_PREFIX)]
)
def test_forms_and_sizes_are_told_from_names_and_shapes(layout: Any, prefix: str) -> None:
    short = replace(DIT_PRESETS["wan2.2-ti2v-5b"], depth=3)
    shapes = places(dit_table(short, layout, prefix))
    assert detect(shapes) == Form("dit", layout, prefix)
    assert dit_config(shapes, detect(shapes)) == short
    for config in WAN_VAE_PRESETS.values():
        shapes = places(vae_table(config, layout, prefix))
        assert detect(shapes) == Form("vae", layout, prefix)
        assert vae_config(shapes, detect(shapes)) == config


@pytest.mark.parametrize("layout", ["diffusers", "original"])
@pytest.mark.parametrize("preset", WAN_VAE_PRESETS)
def test_a_small_vae_of_a_published_kind_is_told_from_shapes(preset: str, layout: Any) -> None:
    for sizes in ({"width": 6, "decoder_width": 10, "blocks": 1}, {"width": 12, "blocks": 3}):
        config = replace(WAN_VAE_PRESETS[preset], **sizes)
        shapes = places(vae_table(config, layout))
        assert vae_config(shapes, detect(shapes)) == config


@pytest.mark.parametrize("preset", WAN_DITS)
def test_presets_are_told_from_shapes(preset: str) -> None:
    shapes = places(dit_table(DIT_PRESETS[preset], "original"))
    assert dit_config(shapes, detect(shapes)) == DIT_PRESETS[preset]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["motion_encoder.enc.fc.0.weight", "time_projection.1.weight"], "Animate"),
        (["casual_audio_encoder.weights", "time_projection.1.weight"], "S2V"),
        (["model.layers.0.weight"], "not Wan's"),
        ([], "not Wan's"),
    ],
)
def test_other_models_are_named_and_refused(keys: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        detect(keys)


def test_image_to_video_without_clip_is_told_by_its_channels() -> None:
    shapes = places(dit_table(SMALL, "original"))
    shapes["patch_embedding.weight"] = (48, 9, 1, 2, 2)
    config = dit_config(shapes, detect(shapes), heads=2)
    assert isinstance(config, ImageDiTConfig)
    assert (config.channels, config.out_channels, config.image_width) == (9, 4, None)
