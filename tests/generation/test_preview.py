"""The preview shows what a decode shows, roughly, and never enlarges."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.generation.preview import shrink, thumbnail
from mutoscope.weights.store import load


@torch.inference_mode()
def test_a_thumbnail_is_the_frame_when_the_shortcut_is_the_whole_decoder(model_folder: Path) -> None:
    vae = load(model_folder, device="cpu").vae
    torch.nn.init.zeros_(vae.decoder.head.weight)
    torch.nn.init.zeros_(vae.decoder.head.bias)
    latent_CTHW = torch.randn(16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    video_CTHW = vae.decode(latent_CTHW[None])[0]
    for frame, last in ((0, 0), (1, 4), (2, 8)):
        image_HWC = thumbnail(vae, latent_CTHW, frame)
        shown = torch.from_numpy(image_HWC).permute(2, 0, 1) / 127.5 - 1
        assert image_HWC.shape == (32, 48, 3)
        torch.testing.assert_close(shown, video_CTHW[:, last].clamp(-1, 1), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [(64, 64, (24, 24)), (64, 128, (22, 44)), (8, 16, (8, 16)), (500, 8, (24, 1))],
)
def test_shrinking_keeps_the_shape_and_the_mean(height: int, width: int, shape: tuple[int, int]) -> None:
    image_HWC = np.full((height, width, 3), (10, 100, 200), np.uint8)
    small_HWC = shrink(image_HWC, 44, 24)
    assert small_HWC.shape == (*shape, 3)
    assert (small_HWC == (10, 100, 200)).all()
