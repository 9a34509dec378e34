"""Wan's modules from files: parity in every layout, shards, types, and damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.models.wan_vae import WanVAE
from mutoscope.weights.tensor_files import read_shapes
from mutoscope.weights.wan_layouts import COMFY_PREFIX, dit_table, to_ours, to_theirs, vae_table
from mutoscope.weights.wan_modules import load_dit, load_vae
from wan_models import SMALL, SMALL_VAE, diffusers_dit, diffusers_vae


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
