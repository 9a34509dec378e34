"""Wan's VAEs: parity with diffusers on random weights, whole and in chunks of any length; sizes; bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models import wan_vae
from mutoscope.models.wan_vae import WAN_VAE_PRESETS, WanVAE, WanVAEConfig
from mutoscope.weights.wan_layouts import to_ours, vae_table

STATISTICS = {"latent_mean": (0.3, -0.5, 0.1, 0.0), "latent_std": (1.5, 0.7, 1.0, 2.0)}
SMALL = WanVAEConfig(**STATISTICS, width=8, decoder_width=8, blocks=1)
CONFIGS = {
    "2.1": SMALL,
    "2.1 deeper": replace(SMALL, multipliers=(1, 2, 3), halves_time=(True, True), blocks=2, decoder_width=12),
    "2.2": replace(SMALL, decoder_width=12, patch=2, residual=True),
    "2.2 odd": replace(
        SMALL, multipliers=(1, 2, 2), halves_time=(True, True), blocks=2, patch=2, residual=True
    ),
}


def theirs(config: WanVAEConfig) -> Any:
    """diffusers' VAE of the same sizes, with random weights, norms and biases."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(
        base_dim=config.width,
        decoder_base_dim=config.decoder_width,
        z_dim=len(config.latent_mean),
        dim_mult=list(config.multipliers),
        num_res_blocks=config.blocks,
        temperal_downsample=list(config.halves_time),
        latents_mean=list(config.latent_mean),
        latents_std=list(config.latent_std),
        is_residual=config.residual,
        in_channels=3 * config.patch**2,
        out_channels=3 * config.patch**2,
        patch_size=config.patch if config.patch > 1 else None,
        scale_factor_spatial=config.strides[1],
    ).eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 5 else 0.02))
    return vae


def ours(config: WanVAEConfig, reference: nn.Module) -> WanVAE:
    vae = WanVAE(config).eval()
    vae.load_state_dict(to_ours(reference.state_dict(), vae_table(config, "diffusers")))
    return vae


def statistics(config: WanVAEConfig) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(config.latent_mean), torch.tensor(config.latent_std)
    return mean.view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_diffusers_whole_and_streamed(name: str) -> None:
    config = CONFIGS[name]
    reference = theirs(config)
    vae, (mean, std) = ours(config, reference), statistics(config)
    side = config.strides[1]
    video = torch.rand(1, 3, 9, 2 * side, side) * 2 - 1
    expected = (reference.encode(video).latent_dist.mode() - mean) / std
    assert_near(vae.encode(video), expected)
    for cuts in ([1, 4, 4], [3, 1, 5], [9]):
        assert_near(torch.cat(list(vae.encode_stream(torch.split(video, cuts, dim=2))), dim=2), expected)
    latent = torch.randn(1, 4, 4, 2, 1)
    expected = reference.decode(latent * std + mean).sample
    assert (expected.abs() < 1).float().mean() > 0.5  # the clamp leaves something to compare
    assert_near(vae.decode(latent), expected)
    for cuts in ([1, 1, 1, 1], [1, 3], [3, 1]):
        assert_near(torch.cat(list(vae.decode_stream(torch.split(latent, cuts, dim=2))), dim=2), expected)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_large_frame_is_enlarged_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last stages a frame at a time is in memory, and the clip is the same."""
    config = CONFIGS[name]
    vae = WanVAE(config).eval()
    latent = torch.randn(1, 4, 3, 2, 3)
    expected, seen = vae.decode(latent), list[int]()
    vae.decoder.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2]))
    vae.decode(latent)
    assert seen == [1 + 2 * config.strides[0]]
    seen.clear()
    monkeypatch.setattr(wan_vae, "ENLARGED_POSITIONS", 1)
    found = vae.decode(latent)
    assert seen == [1] * (1 + 2 * config.strides[0])
    assert_near(found, expected)


@pytest.mark.slow
@torch.no_grad()
def test_the_full_first_vae_equals_diffusers() -> None:
    config = WAN_VAE_PRESETS["wan2.1-vae"]
    reference = theirs(config)
    vae, (mean, std) = ours(config, reference), statistics(config)
    video = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    assert_near(vae.encode(video), (reference.encode(video).latent_dist.mode() - mean) / std)
    latent = torch.randn(1, 16, 2, 2, 3)
    assert_near(vae.decode(latent), reference.decode(latent * std + mean).sample)


@torch.no_grad()
def test_a_picture_is_a_clip_of_one_frame() -> None:
    vae = WanVAE(SMALL).eval()
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    latent = vae.encode(video)
    torch.testing.assert_close(vae.encode(video[:, :, :1]), latent[:, :, :1])
    assert vae.decode(latent[:, :, :1]).shape == (1, 3, 1, 16, 16)


@torch.no_grad()
def test_later_frames_do_not_reach_back() -> None:
    vae = WanVAE(SMALL).eval()
    latent = torch.randn(1, 4, 3, 2, 2)
    other = torch.cat([latent[:, :, :2], torch.randn(1, 4, 1, 2, 2)], dim=2)
    video, changed = vae.decode(latent), vae.decode(other)
    torch.testing.assert_close(video[:, :, :5], changed[:, :, :5])
    assert not torch.allclose(video[:, :, 5:], changed[:, :, 5:])


@pytest.mark.parametrize(("preset", "billions"), [("wan2.1-vae", 0.127), ("wan2.2-vae", 0.705)])
def test_presets_have_the_published_sizes(preset: str, billions: float) -> None:
    with torch.device("meta"):
        vae = WanVAE(WAN_VAE_PRESETS[preset])
    count = sum(parameter.numel() for parameter in vae.parameters())
    assert round(count / 1e9, 3) == billions
    assert vae.strides == {"wan2.1-vae": (4, 8, 8), "wan2.2-vae": (4, 16, 16)}[preset]


@pytest.mark.parametrize("preset", WAN_VAE_PRESETS)
def test_presets_run_on_the_meta_device(preset: str) -> None:
    with torch.device("meta"):
        vae = WanVAE(WAN_VAE_PRESETS[preset])
        time, space, _ = vae.strides
        latent = vae.encode(torch.empty(1, 3, 1 + time, 2 * space, 3 * space))
        assert latent.shape == (1, vae.latent_channels, 2, 2, 3)
        assert vae.decode(latent).shape == (1, 3, 1 + time, 2 * space, 3 * space)


def test_the_published_statistics_are_diffusers_own() -> None:
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        published = diffusers.AutoencoderKLWan().config
    assert WAN_VAE_PRESETS["wan2.1-vae"].latent_mean == tuple(published.latents_mean)
    assert WAN_VAE_PRESETS["wan2.1-vae"].latent_std == tuple(published.latents_std)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 3, 4, 16, 16), "1 \\+ 4k"), ((1, 3, 5, 12, 16), "multiples of 8"), ((1, 1, 5, 16, 16), "batch, 3")],
)
def test_bad_videos_are_refused(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        WanVAE(SMALL).encode(torch.zeros(shape))


@torch.no_grad()
def test_a_stream_that_ends_between_latents_is_refused() -> None:
    stream = WanVAE(SMALL).encode_stream([torch.zeros(1, 3, 1, 8, 8), torch.zeros(1, 3, 3, 8, 8)])
    with pytest.raises(InputError, match="3 frames after"):
        list(stream)


def test_bad_configurations_are_refused() -> None:
    with pytest.raises(InputError, match="one of each per channel"):
        replace(SMALL, latent_std=(1.0,))
    with pytest.raises(InputError, match="halves_time"):
        replace(SMALL, halves_time=(True,))
