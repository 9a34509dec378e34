"""Small random Wan models as diffusers saves them, for the tests of several rooms."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from mutoscope import Request
from mutoscope.generation.generate import resolve
from mutoscope.generation.sampling import address_noise, grid_of
from mutoscope.models.dit import DIT_PRESETS
from mutoscope.models.wan_vae import WanVAEConfig

CONFIG = {
    "vocab_size": 40,
    "d_model": 14,
    "d_kv": 6,
    "d_ff": 22,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}


def word_tokenizer() -> Tokenizer:
    """Words to ids, with T5's end mark 1."""
    words = ["<pad>", "</s>", "<unk>", *"a red ball rolls behind the blue box and comes back".split()]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


VAE = {"base_dim": 8, "z_dim": 4, "latents_mean": [0.1, 0.0, -0.2, 0.3], "latents_std": [1.2, 0.9, 1.0, 1.4]}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 18,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": CONFIG["d_model"],
    "ffn_dim": 44,
    "num_layers": 2,
}
SMALL = replace(
    DIT_PRESETS["wan2.1-t2v-1.3b"], width=48, depth=2, heads=2, mlp_width=80, text_width=20, channels=4
)
SMALL_VAE = WanVAEConfig(latent_mean=(0.1,) * 4, latent_std=(2.0,) * 4, width=8, decoder_width=8)
SIZE = {"width": 32, "height": 48, "frames": 9, "steps": 10, "guidance": 4.0, "seed": 3}
PROMPT = "a red ball rolls behind the box"


def diffusers() -> Any:
    return pytest.importorskip("diffusers")


def diffusers_dit(config: Any) -> Any:
    return (
        diffusers()
        .WanTransformer3DModel(
            num_attention_heads=config.heads,
            attention_head_dim=config.width // config.heads,
            in_channels=config.channels,
            out_channels=config.channels,
            text_dim=config.text_width,
            ffn_dim=config.mlp_width,
            num_layers=config.depth,
        )
        .eval()
    )


def diffusers_vae(config: WanVAEConfig) -> Any:
    return (
        diffusers()
        .AutoencoderKLWan(
            base_dim=config.width,
            decoder_base_dim=config.decoder_width,
            z_dim=len(config.latent_mean),
            is_residual=config.residual,
            in_channels=3 * config.patch**2,
            out_channels=3 * config.patch**2,
            patch_size=config.patch if config.patch > 1 else None,
        )
        .eval()
    )


def randomised(module: Any, amount: float = 0.1) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * amount)
    return module.eval()


def write_model(folder: Path, told: dict[str, Any], **dits: Any) -> Path:
    """A small random Wan model as diffusers saves it; `dits` by the name of their folder."""
    from transformers import UMT5Config, UMT5EncoderModel

    folder.mkdir()
    for name, dit in dits.items():
        randomised(dit).save_pretrained(folder / name)
    randomised(diffusers().AutoencoderKLWan(**VAE), 0.02).save_pretrained(folder / "vae")
    randomised(UMT5EncoderModel(UMT5Config(**CONFIG)), 0.3).save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    word_tokenizer().save(str(folder / "tokenizer" / "tokenizer.json"))
    scheduler(told.get("shift", 3.0)).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(told))
    return folder


def scheduler(shift: float) -> Any:
    return diffusers().UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=shift
    )


def their_parts(folder: Path) -> dict[str, Any]:
    """What diffusers' pipelines are made of."""
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval(),
        "vae": refilled(diffusers().AutoencoderKLWan(**VAE), folder / "vae"),
        "scheduler": scheduler(3.0),
    }


def refilled(module: Any, folder: Path) -> Any:
    """With the weights of a folder (diffusers' own way wants accelerate)."""
    module.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return module.eval()


def psnr(found: torch.Tensor, expected: torch.Tensor) -> float:
    peak = float(expected.max() - expected.min())
    return float(10 * torch.log10(peak**2 / (found - expected).square().mean()))


def their_latents(
    pipeline: Any, model: Any, request: Request, noise_BCTHW: torch.Tensor | None = None, **more: Any
) -> torch.Tensor:
    recipe = resolve(model, request)
    if noise_BCTHW is None:
        noise_BCTHW = address_noise(model, [recipe], grid_of(model, recipe))
    pipeline.set_progress_bar_config(disable=True)
    module = vars(sys.modules[type(pipeline).__module__])
    module.setdefault("ftfy", SimpleNamespace(fix_text=str))  # not installed; the prompts need no mending
    return pipeline(
        prompt=recipe.prompt,
        negative_prompt=recipe.negative,
        height=recipe.height,
        width=recipe.width,
        num_frames=recipe.frames,
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance,
        latents=noise_BCTHW,
        output_type="latent",
        max_sequence_length=512,
        **more,
    ).frames
