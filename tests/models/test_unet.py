"""The U-Net: called as the DiT is, it hears all that it is told, and learns."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mutoscope.errors import InputError
from mutoscope.models.unet import UNET_PRESETS, UNet, UNetConfig

SMALL = UNetConfig(widths=(16, 24, 32), blocks=1, heads=2, text_width=20, channels=4)


def lively(config: UNetConfig = SMALL) -> UNet:
    """A U-Net whose zeros are random, so that every part has an effect."""
    torch.manual_seed(0)
    unet = UNet(config).eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            if parameter.abs().max() == 0 or parameter.ndim == 1:
                parameter.normal_(std=0.2)
    return unet


@pytest.mark.parametrize("preset", UNET_PRESETS)
def test_every_preset_on_every_shape(preset: str) -> None:
    with torch.device("meta"):
        unet = UNet(UNET_PRESETS[preset])
        for shape in ((1, 8, 8), (5, 8, 8), (5, 10, 6), (9, 12, 12), (6, 10, 14)):
            latent, text = torch.empty(2, 16, *shape), torch.empty(2, 11, unet.config.text_width)
            for timestep in (torch.empty(2), torch.empty(2, shape[0])):
                assert unet(latent, timestep, text).shape == latent.shape


def test_starts_as_zero_and_learns_with_every_part() -> None:
    torch.manual_seed(0)
    unet = UNet(SMALL)
    latent, text, mask = torch.randn(4, 4, 3, 4, 4), torch.randn(4, 5, 20), torch.ones(4, 5, dtype=torch.bool)
    timestep, fps = torch.tensor([0.0, 300, 600, 999]), torch.tensor([8.0, 12, 16, 24])
    optimizer = torch.optim.AdamW(unet.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = (unet(latent, timestep, text, mask, fps) - latent).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == latent.square().mean().item()  # the prediction is zero
    assert losses[-1] < 0.5 * losses[0]
    for name, parameter in unet.named_parameters():
        assert parameter.grad is not None, name
        if not name.endswith("key.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_every_frame_has_its_own_timestep_and_text_masks_hold() -> None:
    unet = lively()
    latent, text = torch.randn(2, 4, 3, 4, 6), torch.randn(2, 6, 20)
    mask, timestep = torch.arange(6) < torch.tensor([[2], [6]]), torch.tensor([5.0, 900])
    with torch.no_grad():
        out = unet(latent, timestep, text, mask)
        torch.testing.assert_close(unet(latent, timestep[:, None].expand(2, 3), text, mask), out)
        other = torch.where(mask[..., None], text, 100.0)
        torch.testing.assert_close(unet(latent, timestep, other, mask), out)
        torch.testing.assert_close(
            unet(latent[:1], timestep[:1], text[:1, :2]), out[:1], rtol=1e-4, atol=1e-4
        )
        assert torch.equal(unet(latent, timestep, unet.cache_text(text, mask)), out)
        moved = unet(latent, torch.tensor([[500.0, 5, 5], [900, 900, 900]]), text, mask) - out
        assert moved[0].abs().max() > 1e-3
        assert moved[1].abs().max() < 1e-4
        assert (unet(latent, timestep, text, mask, torch.tensor([8.0, 24.0])) - out)[1].abs().max() > 1e-3


def test_time_passes_between_frames_and_space_within_them() -> None:
    """A change of one value reaches every place of every frame."""
    unet, latent, text = lively(), torch.zeros(1, 4, 3, 8, 8), torch.randn(1, 4, 20)
    other = latent.clone()
    other[0, 0, 0, 0, 0] = 3.0
    with torch.no_grad():
        change = unet(other, torch.tensor([100.0]), text) - unet(latent, torch.tensor([100.0]), text)
    assert change.abs().amax(1).min() > 0


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="even"):
        UNet(SMALL)(torch.zeros(1, 4, 1, 3, 4), torch.zeros(1), torch.zeros(1, 2, 20))
    with pytest.raises(InputError, match="multiples"):
        replace(SMALL, widths=(20,))


@pytest.mark.parametrize(
    "config", [UNetConfig((40, 72, 104), 1, 4, 128), UNetConfig((32, 64, 80), 2, 4, 128)]
)
def test_plans_count_with_a_transformer_of_about_its_cost(config: UNetConfig) -> None:
    unet, latent = UNet(config), torch.zeros(1, 16, 5, 8, 8)
    with FlopCounterMode(display=False) as counter:
        unet(latent, torch.zeros(1), torch.zeros(1, 12, 128))
    counted = 2 * 80 * config.depth * config.width * (6 * config.width + 2 * config.mlp_width)
    assert 0.6 < counted / counter.get_total_flops() < 1.6
    assert config.depth == len(list(unet._stages()))
