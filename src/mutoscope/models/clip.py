"""CLIP's picture encoder for Wan's image-to-video models: a picture to one token per patch, by transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mutoscope.errors import InputError

MEAN = (
    0.48145466,
    0.4578275,
    0.40821073,
)  # of CLIP's training pictures (Radford et al. 2021), red, green, blue
STD = (0.26862954, 0.26130258, 0.27577711)


def build_clip(config: Mapping[str, Any]) -> nn.Module:
    """The vision half that a config.json of transformers describes, in evaluation mode.

    Raises InputError when transformers is not installed, and for a config.json of something else.
    """
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModel
    except ImportError as error:
        raise InputError(
            'Wan\'s picture encoder needs transformers, which is not installed; pip install "mutoscope[wan]".'
        ) from error
    try:
        encoder: nn.Module = CLIPVisionModel(CLIPVisionConfig.from_dict(dict(config)))
    except Exception as error:  # of several kinds of transformers' own
        told = " ".join(str(error).split())
        raise InputError(
            f"The config.json of the picture encoder is none of CLIP ({told}); fetch it again."
        ) from error
    return encoder.eval()


class PictureEncoder(nn.Module):
    """Pictures to the tokens of CLIP's last layer but one, which Wan's image cross-attention reads."""

    def __init__(self, encoder: nn.Module, size: int) -> None:
        super().__init__()
        self.encoder, self.size = encoder, size

    def forward(self, picture_BCHW: Tensor) -> Tensor:
        """(B, 1 + patches, D) of pictures in [-1, 1] of any size, which are squeezed to CLIP's square as Wan does."""
        weight = next(self.encoder.parameters())
        scaled_BCHW = functional.interpolate(
            picture_BCHW.float(), (self.size, self.size), mode="bicubic", align_corners=False
        )
        mean_C11, std_C11 = (scaled_BCHW.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        pixels_BCHW = ((scaled_BCHW / 2 + 0.5) - mean_C11) / std_C11
        states = self.encoder(pixel_values=pixels_BCHW.to(weight), output_hidden_states=True).hidden_states
        tokens_BLD: Tensor = states[-2]
        return tokens_BLD


def placed(encoder: nn.Module) -> nn.Module:
    """The encoder with its table of positions, which no file holds, made anew after a stay on the meta device."""
    for module in encoder.modules():
        positions = getattr(module, "position_ids", None)
        if isinstance(positions, Tensor) and positions.is_meta:
            device = next(encoder.parameters()).device
            module.position_ids = torch.arange(positions.shape[-1], device=device).expand(1, -1)
    return encoder
