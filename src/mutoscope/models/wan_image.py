"""Wan's image-to-video transformers: channels beside the latent, and for 2.1 cross-attention to CLIP's tokens.

The input of every step is the noisy latent, a mask of four channels (which of the four frames of a latent frame
are known) and the latent of the known frames among grey ones. Wan 2.1 also attends to the picture: each
cross-attention has keys and values of its own for it, and both results are added (Wan Team 2025, section 4.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models.dit import DIT_PRESETS, DiT, DiTConfig, TextCache
from mutoscope.models.layers import MLP, Attention, Layout, RMSNorm, attend


@dataclass(frozen=True)
class ImageDiTConfig(DiTConfig):
    """A DiT that is shown pictures. `channels` counts all that goes in.

    out_channels: of the latent, which comes out. image_width: D of CLIP's tokens, None for a model without
    cross-attention to them (Wan 2.2). image_tokens: how many when their places are learned (first and last
    frame), else None.
    """

    out_channels: int = 16
    image_width: int | None = None
    image_tokens: int | None = None


@dataclass(frozen=True)
class ImageCache(TextCache):
    """Text and pictures of a request: as TextCache, and the channels that go beside the latent (B, C, T, H, W)."""

    beside_BCTHW: Tensor


class ImageEmbedding(nn.Module):
    """CLIP's tokens to the width of the DiT: norm, MLP, norm; with learned places where two pictures come."""

    def __init__(self, width: int, out_width: int, tokens: int | None) -> None:
        super().__init__()
        self.places = None if tokens is None else nn.Parameter(torch.zeros(tokens, width))
        self.norm_in = nn.LayerNorm(width)
        self.mlp = MLP(width, width, out_width)
        self.norm_out = nn.LayerNorm(out_width)

    def forward(self, image_BLD: Tensor) -> Tensor:
        if self.places is not None:
            image_BLD = image_BLD + self.places
        out_BLD: Tensor = self.norm_out(self.mlp(self.norm_in(image_BLD)))
        return out_BLD


class ImageAttention(Attention):
    """Cross-attention to the text and, by a softmax of its own, to the picture. Dense batches only.

    The keys are one row whose layout has two groups: the texts, then the pictures.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.image_key = nn.Linear(width, width)
        self.image_value = nn.Linear(width, width)
        self.image_key_norm = RMSNorm(width)

    def image_keys_values(self, image_SD: Tensor) -> tuple[Tensor, Tensor]:
        value_SD: Tensor = self.image_value(image_SD)
        return self.image_key_norm(self.image_key(image_SD)).to(value_SD.dtype), value_SD

    def forward(
        self,
        row_SD: Tensor,
        key_SD: Tensor,
        value_SD: Tensor,
        layout: Layout,
        key_layout: Layout,
        rope_S1K2: Tensor | None = None,
    ) -> Tensor:
        query_SD = self.query_norm(self.query(row_SD), self.scale).to(value_SD.dtype)
        (query_BNSK,) = self._heads(query_SD, layout)
        keys, values = self._heads(key_SD, key_layout), self._heads(value_SD, key_layout)
        seen = [
            attend(query_BNSK, key, value, mask)
            for key, value, mask in zip(keys, values, key_layout.masks, strict=True)
        ]
        mixed_SD = torch.stack(seen).sum(0).transpose(1, 2).flatten(2).flatten(0, 1)
        out_SD: Tensor = self.out(mixed_SD)
        return out_SD


class ImageDiT(DiT):
    """As DiT, called with the cache of `cache_pictures` in place of the text."""

    def __init__(self, config: ImageDiTConfig) -> None:
        super().__init__(config)
        self.image_config = config
        self.head = nn.Linear(config.width, config.out_channels * math.prod(config.patch))
        if config.image_width is not None:
            self.image = ImageEmbedding(config.image_width, config.width, config.image_tokens)
            for block in self._blocks():
                block.text_attention = ImageAttention(config.width, config.heads)

    def forward(
        self,
        latent_BCTHW: Tensor,
        timestep: Tensor,
        text: Tensor | TextCache,
        text_mask_BL: Tensor | None = None,
        fps_B: Tensor | None = None,
    ) -> Tensor:
        """Prediction, shaped like the latent; see `DiT.forward`. Raises InputError without a picture."""
        if not isinstance(text, ImageCache):
            raise InputError("This model makes videos of pictures; give it one, with --image.")
        beside_BCTHW = repeated(text.beside_BCTHW, len(latent_BCTHW)).to(latent_BCTHW)
        return super().forward(torch.cat([latent_BCTHW, beside_BCTHW], 1), timestep, text)

    def cache_pictures(
        self,
        text_BLD: Tensor,
        mask_BL: Tensor | None,
        beside_BCTHW: Tensor,
        image_BLD: Tensor | None = None,
    ) -> ImageCache:
        """Keys and values of all blocks for the texts and the pictures, computed once per request.

        beside_BCTHW: mask and latent of the known frames. image_BLD: CLIP's tokens, of both pictures in turn
        for a model of first and last frames. Both serve several texts each when there are fewer of them.
        """
        if (image_BLD is None) != (self.image_config.image_width is None):
            raise InputError(
                "CLIP's tokens of a picture are for the models of Wan 2.1 only, and needed there."
            )
        cache = self.cache_text(text_BLD, mask_BL)
        if image_BLD is None:
            return ImageCache(cache.keys, cache.values, None, cache.layout, beside_BCTHW)
        image_BLD = self.image(repeated(image_BLD, len(text_BLD)).to(self.embed.weight.dtype))
        attentions = [cast(ImageAttention, block.text_attention) for block in self._blocks()]
        pairs = [attention.image_keys_values(image_BLD.flatten(0, 1)) for attention in attentions]
        keys = tuple(torch.cat([text, pair[0]]) for text, pair in zip(cache.keys, pairs, strict=True))
        values = tuple(torch.cat([text, pair[1]]) for text, pair in zip(cache.values, pairs, strict=True))
        layout = Layout((*cache.layout.groups, tuple(image_BLD.shape[:2])), (*cache.layout.masks, None))
        return ImageCache(keys, values, None, layout, beside_BCTHW)


def repeated(tensor: Tensor, batch: int) -> Tensor:
    """As many rows as the batch has: a request is conditioned alike with its prompt and with its negative one."""
    return tensor.repeat(batch // len(tensor), *[1] * (tensor.ndim - 1))


def _image(preset: str, image_width: int | None, image_tokens: int | None = None) -> ImageDiTConfig:
    shape = DIT_PRESETS[preset]
    return ImageDiTConfig(
        **{name: getattr(shape, name) for name in DiTConfig.__dataclass_fields__} | {"channels": 36},
        image_width=image_width,
        image_tokens=image_tokens,
    )


IMAGE_DIT_PRESETS: dict[str, ImageDiTConfig] = {
    "wan2.1-i2v-14b": _image("wan2.1-t2v-14b", 1280),
    "wan2.1-flf2v-14b": _image("wan2.1-t2v-14b", 1280, 514),
    "wan2.2-i2v-a14b": _image("wan2.1-t2v-14b", None),
}
