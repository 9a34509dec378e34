"""Whole Wan models from folders: diffusers' layout and others, the pipeline against diffusers', what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mutoscope import Request, load
from mutoscope.errors import InputError
from mutoscope.generation.generate import resolve
from mutoscope.generation.sampling import sample
from mutoscope.weights.encoders import load_umt5, original_key
from mutoscope.weights.library import import_model, verify
from mutoscope.weights.store import read_card
from mutoscope.weights.wan_folder import survey
from mutoscope.weights.wan_layouts import (
    COMFY_PREFIX,
    dit_table,
    to_theirs,
    vae_table,
)
from mutoscope.weights.wan_modules import load_dit, load_vae
from wan_models import DIT, PROMPT, SIZE, VAE, psnr, refilled, their_latents, their_parts, write_model

pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def t2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    dit = diffusers.WanTransformer3DModel(**DIT)
    folder = tmp_path_factory.mktemp("wan") / "Small-T2V-Diffusers"
    return write_model(folder, {"_class_name": "WanPipeline"}, transformer=dit)


def test_ten_steps_give_what_diffusers_pipeline_gives(t2v: Path) -> None:
    model = load(t2v)
    request = Request(PROMPT, negative="the blue ball", **SIZE)
    found = sample(model, [resolve(model, request)]).latent_BCTHW
    transformer = refilled(diffusers.WanTransformer3DModel(**DIT), t2v / "transformer")
    pipeline = diffusers.WanPipeline(transformer=transformer, **their_parts(t2v))
    expected = their_latents(pipeline, model, request)
    assert psnr(found, expected) >= 60
    mean, std = (torch.tensor(VAE[name]).view(4, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    with torch.no_grad():
        video = pipeline.vae.decode(expected * std + mean).sample
        assert psnr(model.vae.decode(found), video) >= 60
    other = sample(model, [resolve(model, Request("the box", negative="a ball", **SIZE))]).latent_BCTHW
    assert psnr(other, expected) < 50  # the prompt matters


def test_two_experts_give_what_diffusers_pipeline_gives(tmp_path: Path) -> None:
    torch.manual_seed(1)
    dits = [diffusers.WanTransformer3DModel(**DIT) for _ in range(2)]
    told = {"_class_name": "WanPipeline", "boundary_ratio": 0.7}
    folder = write_model(tmp_path / "A14B", told, transformer=dits[0], transformer_2=dits[1])
    model = load(folder)
    request = Request(PROMPT, negative="the box", **SIZE)
    found = sample(model, [resolve(model, request)]).latent_BCTHW
    pipeline = diffusers.WanPipeline(
        transformer=dits[0], transformer_2=dits[1], boundary_ratio=0.7, **their_parts(folder)
    )
    assert psnr(found, their_latents(pipeline, model, request, guidance_scale_2=3.0)) >= 60
    assert psnr(found, their_latents(pipeline, model, request, guidance_scale_2=4.0)) < 60
    assert read_card(folder).training["family"] == "wan2.2-t2v-a14b"


def test_every_layout_of_one_model_is_the_same_model(t2v: Path, tmp_path: Path) -> None:
    """Original names in folders, and loose files with ComfyUI's prefix, found by their headers."""
    dit, vae = load_dit(t2v / "transformer"), load_vae(t2v / "vae")
    text = load_file(t2v / "text_encoder" / "model.safetensors")
    recipe_of = {}
    for layout, prefix in (("original", ""), ("comfy", COMFY_PREFIX)):
        folder = tmp_path / layout
        folder.mkdir()
        tensors = to_theirs(dit.state_dict(), dit_table(dit.config, "original", prefix))
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "w.safetensors")
        tensors = to_theirs(vae.state_dict(), vae_table(vae.config, "original"))
        (folder / "vae").mkdir()
        save_file(
            {key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "vae" / "v.safetensors"
        )
        (folder / "vae" / "config.json").write_text((t2v / "vae" / "config.json").read_text())
        save_file(text, folder / "umt5.safetensors")
        (folder / "tokenizer.json").write_text((t2v / "tokenizer" / "tokenizer.json").read_text())
        recipe_of[layout] = survey(folder)
        assert read_card(folder).training["family"] == "wan2.1-t2v-1.3b"
        model = load_dit(recipe_of[layout].dit, heads=2)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), dit.parameters(), strict=True))
    encoder = load_umt5(recipe_of["comfy"].text)
    assert torch.equal(encoder.state_dict()["shared.weight"], text["shared.weight"])


def test_a_folder_as_wan_publishes_it_is_the_same_model(t2v: Path, tmp_path: Path) -> None:
    """VAE and text encoder as `.pth`, the transformer's config.json beside them, the tokenizer of CLIP's text half."""
    dit, vae = load_dit(t2v / "transformer"), load_vae(t2v / "vae")
    text = load_file(t2v / "text_encoder" / "model.safetensors")
    folder = tmp_path / "Wan2.1-T2V"
    for place in ("vae", "google/umt5-xxl", "xlm-roberta-large"):
        (folder / place).mkdir(parents=True)
    tensors = to_theirs(dit.state_dict(), dit_table(dit.config, "original"))
    save_file(
        {key: one.contiguous() for key, one in tensors.items()},
        folder / "diffusion_pytorch_model.safetensors",
    )
    (folder / "config.json").write_text(
        json.dumps({"num_heads": 2, "num_layers": 2, "dim": 36, "text_len": 512})
    )
    torch.save(
        to_theirs(vae.state_dict(), vae_table(vae.config, "original")), folder / "vae" / "Wan2.1_VAE.pth"
    )
    shutil.copy(t2v / "vae" / "config.json", folder / "vae")
    names = {key: original_key(key) for key in text if "embed_tokens" not in key}
    torch.save({name: text[key] for key, name in names.items()}, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    shutil.copy(t2v / "tokenizer" / "tokenizer.json", folder / "google" / "umt5-xxl")
    (folder / "xlm-roberta-large" / "tokenizer.json").write_text("{}")
    one, other = load(t2v), load(folder)
    for mine, theirs in ((one.dit, other.dit), (one.vae, other.vae)):
        assert all(torch.equal(*pair) for pair in zip(mine.parameters(), theirs.parameters(), strict=True))
    encoder = load_umt5(survey(folder).text).state_dict()
    assert all(torch.equal(encoder[key], tensor) for key, tensor in text.items())
    assert other.text(["a red ball"])[0].shape == one.text(["a red ball"])[0].shape
    assert read_card(folder).sha256 == other.card.sha256 != one.card.sha256
    save_file(text, folder / "umt5.safetensors")  # comes before the .pth of the same part
    assert survey(folder).text.name == "umt5.safetensors"


def test_defaults_are_those_of_the_model(t2v: Path) -> None:
    card = read_card(t2v)
    assert (card.defaults.steps, card.defaults.sampler, card.defaults.guidance) == (50, "unipc", 6.0)
    assert card.defaults.negative.startswith("色调艳丽")
    assert load(t2v).process.sigmas(2)[1].item() == pytest.approx(3 * 0.5005 / (1 + 2 * 0.5005))
    assert (
        resolve(load(t2v), Request("a ball", width=32, height=32, frames=5)).negative
        == card.defaults.negative
    )


def test_a_picture_is_refused_by_a_model_of_prompts(t2v: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 48), "red").save(tmp_path / "red.png")
    model = load(t2v)
    with pytest.raises(InputError, match="prompts alone"):
        sample(model, [resolve(model, Request(PROMPT, image=tmp_path / "red.png", **SIZE))])


def test_what_is_missing_is_named(t2v: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(t2v, folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"lacks the VAE and the tokenizer \(tokenizer.json\)"):
        load(folder)
    (folder / "vae" / "model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"pickles \(model.bin\)"):
        load(folder)
    (folder / "Wan2.1_VAE.pth").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"Wan2.1_VAE.pth is a pickle outside of a zip file"):
        load(folder)


def test_a_lost_last_block_is_missed_by_what_config_json_tells(t2v: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(t2v, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    last = f"blocks.{DIT['num_layers'] - 1}."
    save_file({key: one for key, one in load_file(file).items() if not key.startswith(last)}, file)
    with pytest.raises(InputError, match=rf"transformer.* 27 missing: {last}attn1"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("transformer/config.json", {"num_attention_heads": "two"}, "num_attention_heads = 'two'"),
        ("transformer/config.json", {"num_layers": 0}, "num_layers = 0"),
        ("transformer/config.json", {"vace_layers": ["a"]}, "vace_layers"),
        ("vae/config.json", {"base_dim": "eight"}, r"vae.*width"),
        ("vae/config.json", {"latents_std": None}, r"vae.*latent_std is missing"),
        ("text_encoder/config.json", {"d_ff": "many"}, "none of UMT5"),
        ("scheduler/scheduler_config.json", {"flow_shift": "much"}, "shift 'much'"),
        ("model_index.json", [], "model_index.json is not a table"),
    ],
)
def test_tables_beside_the_weights_are_read_with_care(
    t2v: Path, tmp_path: Path, file: str, change: dict[str, object] | list[object], words: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(t2v, folder)
    told = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(told | change if isinstance(change, dict) else change))
    with pytest.raises(InputError, match=words):
        load(folder)


def test_a_config_json_of_another_part_tells_nothing_of_the_transformer(t2v: Path, tmp_path: Path) -> None:
    """As in one folder of files for ComfyUI with the text encoder's config.json among them."""
    (tmp_path / "flat").mkdir()
    dit = load_dit(t2v / "transformer")
    save_file(
        {key: one.contiguous() for key, one in load_file(next((t2v / "transformer").glob("*s"))).items()},
        tmp_path / "flat" / "wan.safetensors",
    )
    (tmp_path / "flat" / "config.json").write_text((t2v / "text_encoder" / "config.json").read_text())
    assert load_dit(tmp_path / "flat" / "wan.safetensors", heads=2).config == dit.config


@pytest.mark.parametrize("boundary", ["half", 1, 1.5])
def test_a_boundary_lies_between_the_experts(t2v: Path, tmp_path: Path, boundary: object) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(t2v, folder)
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    (folder / "model_index.json").write_text(json.dumps({"boundary_ratio": boundary}))
    with pytest.raises(InputError, match=r"not between 0 and 1"):
        load(folder)


@pytest.mark.parametrize(
    "file",
    [
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    ],
)
def test_a_model_with_a_tensor_too_few_is_not_imported_and_not_sound(
    t2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setenv("MUTOSCOPE_MODELS", str(tmp_path / "models"))
    folder = tmp_path / "copy"
    shutil.copytree(t2v, folder)
    tensors = load_file(folder / file)
    lost = min(tensors)
    del tensors[lost]
    save_file(tensors, folder / file)
    with pytest.raises(InputError, match=rf"1 missing: {lost}"):
        import_model(folder)
    with pytest.raises(InputError, match=rf"1 missing: {lost}"):
        verify(folder)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "key",
    ["diffusion_model.blocks.0.self_attn.q.lora_down.weight", "lora_unet_blocks_0_ffn_0.lora_up.weight"],
)
def test_a_lora_beside_the_model_is_no_part_of_it(t2v: Path, tmp_path: Path, key: str) -> None:
    """As in the repositories of lightx2v."""
    folder = tmp_path / "copy"
    shutil.copytree(t2v, folder)
    (folder / "loras").mkdir()
    save_file({key: torch.zeros(2, 2)}, folder / "loras" / "distill_rank32.safetensors")
    assert survey(folder).dit.parent.name == "transformer"
    save_file({"conv.weight": torch.zeros(2, 2)}, folder / "loras" / "upscaler.safetensors")
    with pytest.raises(InputError, match=r"upscaler.safetensors is no part of the model"):
        survey(folder)
