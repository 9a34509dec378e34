"""Wan's other transformers against diffusers' classes: pictures, first and last frame, control, two experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.models.dit import DIT_PRESETS, DiT, DiTConfig
from mutoscope.models.experts import Experts
from mutoscope.models.vace import VACE_PRESETS, VaceConfig, VaceDiT
from mutoscope.models.wan_image import IMAGE_DIT_PRESETS, ImageDiT, ImageDiTConfig
from mutoscope.weights.wan_layouts import (
    blank_dit,
    detect,
    dit_config,
    dit_table,
    to_ours,
)

SHAPE: dict[str, Any] = {
    name: getattr(DIT_PRESETS["wan2.1-t2v-1.3b"], name) for name in DiTConfig.__dataclass_fields__
} | {"width": 36, "depth": 3, "heads": 2, "mlp_width": 52, "text_width": 14}
SMALL: dict[str, DiTConfig] = {
    "t2v": DiTConfig(**SHAPE | {"channels": 5}),
    "i2v": ImageDiTConfig(**SHAPE | {"channels": 14}, out_channels=5, image_width=10),
    "flf2v": ImageDiTConfig(**SHAPE | {"channels": 14}, out_channels=5, image_width=10, image_tokens=14),
    "i2v-a14b": ImageDiTConfig(**SHAPE | {"channels": 14}, out_channels=5),
    "vace": VaceConfig(**SHAPE | {"channels": 5}, hinted=(0, 2), control_channels=11),
}


def reference_of(config: DiTConfig) -> Any:
    """Diffusers' class of the same sizes."""
    diffusers = pytest.importorskip("diffusers")
    told = {
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "text_dim": config.text_width,
        "ffn_dim": config.mlp_width,
        "num_layers": config.depth,
    }
    if isinstance(config, VaceConfig):
        told |= {"vace_layers": list(config.hinted), "vace_in_channels": config.control_channels}
        return diffusers.WanVACETransformer3DModel(**told).eval()
    if isinstance(config, ImageDiTConfig):
        told["out_channels"] = config.out_channels
        if config.image_width is not None:
            told |= {"image_dim": config.image_width, "added_kv_proj_dim": config.width}
            told["pos_embed_seq_len"] = config.image_tokens
    return diffusers.WanTransformer3DModel(**told).eval()


def random_pair(kind: str, seed: int = 0) -> tuple[Any, Any]:
    """Diffusers' module with random weights, and ours with the same."""
    torch.manual_seed(seed)
    reference = reference_of(SMALL[kind])
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ours = blank_dit(SMALL[kind])
    ours.load_state_dict(to_ours(reference.state_dict(), dit_table(SMALL[kind], "diffusers")), assign=True)
    return reference, ours.eval()


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


LATENT, TIMESTEP, TEXT = drawn(2, 5, 3, 4, 6), torch.tensor([7.0, 981.0]), drawn(2, 512, 14, seed=2)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["i2v", "flf2v", "i2v-a14b"])
def test_pictures_are_seen_as_by_diffusers(kind: str) -> None:
    reference, ours = random_pair(kind)
    beside, image = drawn(2, 9, 3, 4, 6, seed=3), None
    if kind != "i2v-a14b":
        image = drawn(2, 14 if kind == "flf2v" else 7, 10, seed=4)
    theirs = (
        None if image is None else image.reshape(-1, 7, 10)
    )  # two pictures are two members of the batch there
    expected = reference(torch.cat([LATENT, beside], 1), TIMESTEP, TEXT, theirs).sample
    assert_same(ours(LATENT, TIMESTEP, ours.cache_pictures(TEXT, None, beside, image)), expected)
    changed = ours(LATENT, TIMESTEP, ours.cache_pictures(TEXT, None, beside + 1, image))
    assert (changed - expected).abs().max() > 1e-2


@torch.no_grad()
def test_one_picture_serves_the_prompt_and_the_negative_one() -> None:
    _, ours = random_pair("i2v")
    beside, image = drawn(1, 9, 3, 4, 6, seed=3), drawn(1, 7, 10, seed=4)
    latent = LATENT[:1].repeat(2, 1, 1, 1, 1)
    both = ours(latent, TIMESTEP, ours.cache_pictures(TEXT, None, beside, image))
    for row in range(2):
        cache = ours.cache_pictures(TEXT[row : row + 1], None, beside, image)
        assert_same(both[row : row + 1], ours(latent[:1], TIMESTEP[row : row + 1], cache))


@torch.no_grad()
@pytest.mark.parametrize("strength", [1.0, 0.35])
def test_control_is_followed_as_by_diffusers(strength: float) -> None:
    reference, ours = random_pair("vace")
    control = drawn(2, 11, 3, 4, 6, seed=3)
    scale = torch.full((2,), strength)
    expected = reference(LATENT, TIMESTEP, TEXT, None, control, scale).sample
    assert_same(ours(LATENT, TIMESTEP, ours.cache_control(TEXT, None, control, strength)), expected)


@torch.no_grad()
def test_a_timestep_per_token_is_diffusers_way_of_a_timestep_per_frame() -> None:
    reference, ours = random_pair("t2v")
    frames = torch.tensor([[0.0, 500.0, 500.0], [0.0, 33.0, 33.0]])
    expected = reference(LATENT, frames.repeat_interleave(2 * 3, dim=1), TEXT).sample
    assert_same(ours(LATENT, frames, TEXT), expected)


@torch.no_grad()
def test_experts_take_turns_at_the_boundary() -> None:
    _, high = random_pair("t2v", seed=0)
    _, low = random_pair("t2v", seed=1)
    experts = Experts(high, low, boundary=0.875)
    cache = experts.cache_text(TEXT[:1])
    for timestep, expert in ((999.0, high), (875.0, high), (874.0, low), (0.0, low)):
        t = torch.tensor([timestep])
        assert torch.equal(experts(LATENT[:1], t, cache), expert(LATENT[:1], t, TEXT[:1]))
    _, other = random_pair("vace")
    with pytest.raises(InputError, match="different shapes"):
        Experts(high, other, 0.9)


def test_a_model_of_pictures_needs_one() -> None:
    _, ours = random_pair("i2v")
    with pytest.raises(InputError, match="give it one"):
        ours(LATENT, TIMESTEP, TEXT)
    with pytest.raises(InputError, match="CLIP"):
        ours.cache_pictures(TEXT, None, drawn(2, 9, 3, 4, 6))
    _, editor = random_pair("vace")
    with pytest.raises(InputError, match="control"):
        editor(LATENT, TIMESTEP, TEXT)


PUBLISHED = {
    "wan2.1-i2v-14b": 16.395,
    "wan2.1-flf2v-14b": 16.396,
    "wan2.2-i2v-a14b": 14.289,
    "wan2.1-vace-1.3b": 2.154,
    "wan2.1-vace-14b": 17.337,
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_full_presets_have_diffusers_keys_and_the_published_sizes(preset: str) -> None:
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    config = (IMAGE_DIT_PRESETS | VACE_PRESETS)[preset]
    ours = blank_dit(config)
    assert isinstance(ours, VaceDiT if isinstance(config, VaceConfig) else ImageDiT)
    count = sum(parameter.numel() for parameter in ours.parameters())
    with torch.device("meta"):
        reference = reference_of(config)
    theirs = {key: tuple(tensor.shape) for key, tensor in reference.state_dict().items()}
    assert count == sum(parameter.numel() for parameter in reference.parameters())
    assert count / 1e9 == pytest.approx(PUBLISHED[preset], abs=6e-4)
    places = {place.key: place.shape for place in dit_table(config, "diffusers").values()}
    assert places == theirs
    original = {place.key: place.shape for place in dit_table(config, "original").values()}
    converted = single_file.convert_wan_transformer_to_diffusers(
        {key: torch.empty(shape, device="meta") for key, shape in original.items()}
    )
    renamed = {  # diffusers' single-file reader does not know this key; its conversion script does
        key.replace("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"): tuple(tensor.shape)
        for key, tensor in converted.items()
    }
    assert renamed == places
    for shapes in (places, original):
        assert dit_config(shapes, detect(shapes)) == config


def test_layers_of_a_full_preset_stay_what_our_own_presets_are() -> None:
    """The DiT that trains is the DiT of the files: no key of it may change."""
    with torch.device("meta"):
        names = set(DiT(DIT_PRESETS["tiny"]).state_dict())
    assert {"embed.weight", "blocks.7.text_attention.key.weight", "table", "head.bias"} <= names
    assert not any("image" in name or "control" in name for name in names)
