"""UMT5 and CLIP from files of every layout, and the full sizes by shapes alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mutoscope.errors import InputError
from mutoscope.models.umt5 import build_umt5
from mutoscope.weights.encoders import (
    encoder_kind,
    load_clip,
    load_umt5,
    original_key,
    read_clip_state,
    umt5_config,
)
from wan_models import CONFIG, randomised

pytest.importorskip("transformers")

# Wan's own names to transformers', written down from Wan's wan/modules/t5.py and transformers' UMT5.
ORIGINAL = [
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (
        r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
    ),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
]


def theirs(key: str) -> str:
    for pattern, name in ORIGINAL:
        key = re.sub(pattern, name, key)
    return key


@torch.no_grad()
def test_the_original_and_transformers_layout_are_one_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {key: value for key, value in CONFIG.items() if not key.endswith("max_distance")}
    encoder = randomised(build_umt5(sizes), 0.3)
    state = {key: value for key, value in encoder.state_dict().items() if "embed_tokens" not in key}
    original = {original_key(key): value for key, value in state.items()}
    assert {theirs(key) for key in original} == state.keys()
    save_file(original, tmp_path / "original.safetensors")
    save_file(state | {"spiece_model": torch.zeros(3)}, tmp_path / "comfy.safetensors")
    ids = torch.randint(0, 40, (2, 9))
    expected = encoder(input_ids=ids).last_hidden_state
    for name in ("original", "comfy"):
        path = tmp_path / f"{name}.safetensors"
        assert torch.equal(load_umt5(path)(input_ids=ids).last_hidden_state, expected), name
    del original["blocks.1.ffn.fc2.weight"]
    save_file(original, tmp_path / "original.safetensors")
    with pytest.raises(InputError, match=r"1 missing: blocks\.1\.ffn\.fc2\.weight"):
        load_umt5(tmp_path / "original.safetensors")


def test_the_full_encoder_is_told_by_its_shapes() -> None:
    sizes = {
        "vocab_size": 256384,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
    }
    with torch.device("meta"):
        encoder = build_umt5(sizes)
    shapes = {key: tuple(tensor.shape) for key, tensor in encoder.state_dict().items()}
    assert encoder_kind(shapes) == "umt5"
    assert umt5_config(shapes, original=False) == sizes | {"relative_attention_num_buckets": 32}
    unique = sum(tensor.numel() for key, tensor in encoder.state_dict().items() if "embed_tokens" not in key)
    assert unique / 1e9 == pytest.approx(5.68, abs=0.005)


@torch.no_grad()
def test_clip_is_read_with_and_without_its_prefix(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    told = {"hidden_size": 80, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 1}
    model = CLIPVisionModel(CLIPVisionConfig(**told, image_size=28, patch_size=7, hidden_act="gelu")).eval()
    plain = {key.removeprefix("vision_model."): tensor for key, tensor in model.state_dict().items()}
    picture = torch.rand(1, 3, 28, 28) * 2 - 1
    outputs = []
    for prefix in ("", "vision_model."):
        path = tmp_path / f"clip{prefix}safetensors.safetensors"
        save_file({prefix + key: tensor.contiguous() for key, tensor in plain.items()}, path)
        outputs.append(load_clip(path)(picture))
    assert outputs[0].shape == (1, 17, 80)
    assert torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize("prefix", ["", "vision_model."])
def test_names_of_clip_are_kept_as_the_file_has_them(tmp_path: Path, prefix: str) -> None:
    """Transformers 5 saves CLIP's vision half without the prefix that is in the files of Wan's publishers."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    told = {"hidden_size": 80, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 1}
    state = CLIPVisionModel(CLIPVisionConfig(**told, image_size=14, patch_size=7)).state_dict()
    written = {prefix + key.removeprefix("vision_model."): one.contiguous() for key, one in state.items()}
    save_file(written, tmp_path / "clip.safetensors")
    found, _ = read_clip_state(tmp_path / "clip.safetensors")
    assert found.keys() == written.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in written.items())


# transformers' names to Wan's own, written down from Wan's wan/modules/clip.py and transformers' CLIPVisionModel.
CLIP_ORIGINAL = [
    (r"^embeddings\.class_embedding", "cls_embedding"),
    (r"^embeddings\.patch_embedding", "patch_embedding"),
    (r"^embeddings\.position_embedding\.weight", "pos_embedding"),
    (r"^pre_layrnorm", "pre_norm"),
    (r"^post_layernorm", "post_norm"),
    (r"^encoder\.layers\.(\d+)\.layer_norm", r"transformer.\1.norm"),
    (r"^encoder\.layers\.(\d+)\.self_attn\.out_proj", r"transformer.\1.attn.proj"),
    (r"^encoder\.layers\.(\d+)\.mlp\.fc1", r"transformer.\1.mlp.0"),
    (r"^encoder\.layers\.(\d+)\.mlp\.fc2", r"transformer.\1.mlp.2"),
    (r"^encoder\.layers\.(\d+)\.self_attn\.q_proj", r"transformer.\1.attn.to_qkv"),
]


@torch.no_grad()
def test_clip_of_wans_own_file_is_the_same(tmp_path: Path) -> None:
    """Query, key and value joined, a text half and a scale beside it, in float16 and in a `.pth`."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    told = {"hidden_size": 160, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = (
        CLIPVisionModel(CLIPVisionConfig(**told, image_size=28, patch_size=7, hidden_act="gelu"))
        .eval()
        .half()
    )
    state = {
        key.removeprefix("vision_model."): tensor for key, tensor in randomised(model).state_dict().items()
    }
    original: dict[str, torch.Tensor] = {"log_scale": torch.zeros(()), "textual.norm.weight": torch.zeros(3)}
    original["visual.head"] = torch.zeros(160, 4)
    for key, tensor in state.items():
        if "k_proj" in key or "v_proj" in key or key.endswith("position_ids"):
            continue
        if "q_proj" in key:
            tensor = torch.cat([state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        name = key
        for pattern, theirs_ in CLIP_ORIGINAL:
            name = re.sub(pattern, theirs_, name)
        original["visual." + name] = (
            tensor.reshape((1,) * (3 - tensor.ndim) + tensor.shape)
            if "_emb" in name and "patch" not in name
            else tensor
        )
    torch.save(original, tmp_path / "clip.pth")
    assert encoder_kind(original) == "clip"
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / "clip.safetensors")
    picture = torch.rand(1, 3, 28, 28) * 2 - 1
    found = [
        load_clip(tmp_path / name, dtype=torch.float32)(picture) for name in ("clip.pth", "clip.safetensors")
    ]
    assert torch.equal(*found)
