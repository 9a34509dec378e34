"""Wan's layouts: every key of the full presets, round trips, parity after loading, and damaged files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.models.dit import DIT_PRESETS, DiT
from mutoscope.models.wan_image import ImageDiTConfig
from mutoscope.models.wan_vae import WAN_VAE_PRESETS, WanVAE, WanVAEConfig
from mutoscope.weights.tensor_files import read_shapes
from mutoscope.weights.wan import (
    COMFY_PREFIX,
    Form,
    detect,
    dit_config,
    dit_table,
    load_dit,
    load_vae,
    to_ours,
    to_theirs,
    vae_config,
    vae_table,
)

WAN_DITS = [name for name in DIT_PRESETS if name.startswith("wan")]
SMALL = replace(
    DIT_PRESETS["wan2.1-t2v-1.3b"], width=48, depth=2, heads=2, mlp_width=80, text_width=20, channels=4
)
SMALL_VAE = WanVAEConfig(latent_mean=(0.1,) * 4, latent_std=(2.0,) * 4, width=8, decoder_width=8)


def diffusers_dit(config: Any) -> Any:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.WanTransformer3DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=config.channels,
        out_channels=config.channels,
        text_dim=config.text_width,
        ffn_dim=config.mlp_width,
        num_layers=config.depth,
    ).eval()


def diffusers_vae(config: WanVAEConfig) -> Any:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.AutoencoderKLWan(
        base_dim=config.width,
        decoder_base_dim=config.decoder_width,
        z_dim=len(config.latent_mean),
        is_residual=config.residual,
        in_channels=3 * config.patch**2,
        out_channels=3 * config.patch**2,
        patch_size=config.patch if config.patch > 1 else None,
    ).eval()


def shapes_of(module: Any) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def places(table: Any) -> dict[str, tuple[int, ...]]:
    return {place.key: place.shape for place in table.values()}


def random_dit(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    reference = diffusers_dit(SMALL)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return reference


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(2, 4, 3, 4, 6, generator=generator)
    return latent, torch.tensor([3.0, 981.0]), torch.randn(2, 7, 20, generator=generator)


def original_copy(tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Diffusers' tensors of the small DiT under the original names."""
    ours = to_ours(tensors, dit_table(SMALL, "diffusers"))
    return {
        key: tensor.contiguous()
        for key, tensor in to_theirs(ours, dit_table(SMALL, "original", prefix)).items()
    }


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


@torch.no_grad()
def test_all_layouts_of_the_same_weights_give_what_diffusers_gives(tmp_path: Path) -> None:
    reference = random_dit()
    tensors = reference.state_dict()
    reference.save_pretrained(tmp_path / "folder")
    save_file(original_copy(tensors), tmp_path / "original.safetensors")
    save_file(original_copy(tensors, COMFY_PREFIX), tmp_path / "comfy.safetensors")
    latent, timestep, text = inputs()
    outputs = [
        load_dit(tmp_path / name, heads)(latent, timestep, text)
        for name, heads in (("folder", None), ("original.safetensors", 2), ("comfy.safetensors", 2))
    ]
    expected = reference(latent, timestep, text).sample
    assert (outputs[0] - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@torch.no_grad()
def test_shards_load_as_one_and_into_the_type_asked_for(tmp_path: Path) -> None:
    reference = random_dit()
    reference.save_pretrained(tmp_path / "whole")
    reference.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    whole, shards = (load_dit(tmp_path / name, heads=2) for name in ("whole", "shards"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, shards.state_dict()[name]), name
    half = load_dit(tmp_path / "shards", heads=2, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@torch.no_grad()
def test_vaes_of_both_layouts_give_what_diffusers_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = diffusers_vae(SMALL_VAE)
    ours = to_ours(reference.state_dict(), vae_table(SMALL_VAE, "diffusers"))
    reference.save_pretrained(tmp_path / "folder")
    save_file(to_theirs(ours, vae_table(SMALL_VAE, "original")), tmp_path / "original.safetensors")
    latent = torch.randn(1, 4, 2, 2, 2)
    expected = reference.decode(latent * 2.0 + 0.1).sample
    for name in ("folder", "original.safetensors"):
        video = load_vae(tmp_path / name, SMALL_VAE).decode(latent)
        assert (video - expected).abs().max() <= 1e-4 * expected.abs().max()


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


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(b"\x80\x04.")
    for path in (tmp_path / "Wan2.1_VAE.pth", tmp_path):
        with pytest.raises(InputError, match=r"pickles?.*safetensors"):
            read_shapes(path)


def test_shards_without_an_index_are_counted_by_their_names(tmp_path: Path) -> None:
    random_dit().save_pretrained(tmp_path, max_shard_size="60KB")
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").unlink()
    assert len(read_shapes(tmp_path)) == len(dit_table(SMALL, "diffusers"))
    lost = sorted(tmp_path.glob("*.safetensors"))[0]
    lost.unlink()
    with pytest.raises(InputError, match=lost.name):
        read_shapes(tmp_path)


def test_missing_unexpected_and_misshapen_keys_are_all_named(tmp_path: Path) -> None:
    tensors = original_copy(random_dit().state_dict())
    del tensors["blocks.1.norm3.bias"]
    tensors["lora_up.weight"] = torch.zeros(2)
    tensors["blocks.0.ffn.0.bias"] = torch.zeros(79)
    save_file(tensors, tmp_path / "damaged.safetensors")
    with pytest.raises(InputError) as caught:
        load_dit(tmp_path / "damaged.safetensors", heads=2)
    for words in (
        "1 missing: blocks.1.norm3.bias",
        "1 unexpected: lora_up.weight",
        "blocks.0.ffn.0.bias is (79,)",
    ):
        assert words in str(caught.value)


def test_bad_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no safetensors"):
        read_shapes(tmp_path)
    random_dit().save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    lost = sorted((tmp_path / "shards").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(InputError, match=lost.name):
        read_shapes(tmp_path / "shards")
    cut = tmp_path / "cut.safetensors"
    save_file(original_copy(random_dit().state_dict()), cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        load_dit(cut, heads=2)
    (tmp_path / "x.safetensors.index.json").write_text(json.dumps([]))
    with pytest.raises(InputError, match="not an index"):
        read_shapes(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/hostname", 5])
def test_an_index_names_files_of_its_own_folder(tmp_path: Path, name: object) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "secret.safetensors")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InputError, match="no file of its folder"):
        read_shapes(tmp_path / "model")


def test_a_vae_is_no_dit_and_the_reverse(tmp_path: Path) -> None:
    vae = to_theirs(WanVAE(SMALL_VAE).state_dict(), vae_table(SMALL_VAE, "original"))
    save_file(vae, tmp_path / "vae.safetensors")
    save_file(original_copy(random_dit().state_dict()), tmp_path / "dit.safetensors")
    with pytest.raises(InputError, match="not a DiT"):
        load_dit(tmp_path / "vae.safetensors")
    with pytest.raises(InputError, match="not a VAE"):
        load_vae(tmp_path / "dit.safetensors")
    with pytest.raises(InputError, match="4 latent channels"):
        load_vae(tmp_path / "vae.safetensors")


def test_a_transformer_in_8_bits_as_comfyui_ships_it_is_multiplied_by_its_scales(tmp_path: Path) -> None:
    """Matrices in float8 with a scale each, all else as it was, the prefix and the mark of ComfyUI."""
    ours = random_dit().state_dict()
    prefix = "model.diffusion_model."
    tensors, expected = {}, original_copy(ours)
    for key, tensor in original_copy(ours).items():
        if tensor.ndim == 2:
            scale = tensor.abs().max() / 448
            codes = (tensor / scale).to(torch.float8_e4m3fn)
            tensors |= {prefix + key: codes, f"{prefix}{key.removesuffix('weight')}scale_weight": scale}
            expected[key] = codes.float() * scale
        else:
            tensors[prefix + key] = tensor
    tensors[prefix + "scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "comfy.safetensors")
    save_file(expected, tmp_path / "plain.safetensors")
    found, plain = (load_dit(tmp_path / f"{name}.safetensors", heads=2) for name in ("comfy", "plain"))
    for one, other in zip(found.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    half = load_dit(tmp_path / "comfy.safetensors", heads=2, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
