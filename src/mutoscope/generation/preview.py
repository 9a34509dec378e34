"""A look at a clip that is still being made: the VAE's linear shortcut makes pixels at almost no cost."""

import numpy as np
import torch
from torch import Tensor

from mutoscope.models.vae import VAE, per_channel, unfold
from mutoscope.video import to_frames


@torch.inference_mode()
def thumbnail(vae: VAE, latent_CTHW: Tensor, frame: int) -> np.ndarray:
    """Latent frame `frame` as an image, uint8 (8H, 8W, 3): the shortcut alone, without the convolutions.

    One multiplication per latent position, about a thousandth of a decode.
    """
    latent_BCTHW = latent_CTHW[None, :, frame : frame + 1]
    scaled_BCTHW = latent_BCTHW * per_channel(vae.latent_std) + per_channel(vae.latent_mean)
    video_BCTHW = unfold(vae.shortcut_out(scaled_BCTHW), vae.strides[0], vae.strides[1])
    image_HWC: np.ndarray = to_frames(video_BCTHW[0, :, -1:])[0]
    return image_HWC


def shrink(image_HWC: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """The image within columns x rows, its shape kept; each pixel is the mean of what it covers (uint8)."""
    height, width, _ = image_HWC.shape
    scale = min(columns / width, rows / height, 1.0)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    image_BCHW = torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)[None].float()
    small_BCHW = torch.nn.functional.interpolate(image_BCHW, size=size, mode="area")
    small_HWC: np.ndarray = small_BCHW[0].permute(1, 2, 0).round().byte().numpy()
    return small_HWC
