"""A 3-D U-Net behind the calls of the DiT: what diffusion over videos was before transformers, for comparison.

The family is Imagen Video's (Ho et al. 2022, arXiv 2210.02303; Video Diffusion Models, arXiv 2204.03458): residual
blocks of a convolution in space and one in time, attention in space, in time and to the text where pictures are small,
and FiLM by timestep and pooled text. It predicts on whole clips of one size; what packs and pads is the DiT.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models.dit import COORDINATES, TextCache, coordinates, latent_times
from mutoscope.models.layers import (
    EPSILON,
    MLP,
    Attention,
    Layout,
    rotary_table,
    sinusoid,
    xavier_init,
    zero_init,
)

GROUPS = 8  # of the group norms


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a U-Net.

    widths: channels of each level, from the latent's size down; every level halves height and width.
    blocks: residual blocks of a level on the way down, one more on the way up. attention: levels from this one on
        attend, 0 being the latent's size. heads, text_width, channels, frequency_width, theta, base_fps,
        frame_stride: as of the DiT.
    """

    widths: tuple[int, ...]
    blocks: int
    heads: int
    text_width: int
    channels: int = 16
    attention: int = 1
    frequency_width: int = 256
    theta: float = 100.0
    base_fps: float = 8.0
    frame_stride: int = 4

    def __post_init__(self) -> None:
        bad = [
            width for width in self.widths if width % GROUPS or width % self.heads or width // self.heads % 2
        ]
        if bad or not self.widths or min(width // self.heads for width in self.widths) < 6:
            raise InputError(
                f"A U-Net cannot have levels of widths {list(self.widths)} with {self.heads} heads: take multiples of "
                f"{GROUPS} and of twice the heads, 6 or more a head."
            )

    @property
    def patch(self) -> tuple[int, int, int]:
        """Rows and columns come in twos, as for a DiT with this patch: both take the same clips."""
        return 1, 2, 2

    # Of a transformer of about the same memory and operations: plans count with them.

    @property
    def width(self) -> int:
        return max(4 * self.widths[0], self.widths[-1])  # four pixels of the latent are a token

    @property
    def depth(self) -> int:
        return len(self.widths) * (2 * self.blocks + 1) + 2

    @property
    def mlp_width(self) -> int:
        return 0


class Residual(nn.Module):
    """Convolution in space, FiLM, convolution in time, and a way past them."""

    def __init__(self, inner: int, outer: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, inner, eps=EPSILON)
        self.space = nn.Conv2d(inner, outer, 3, padding=1)
        self.film = nn.Linear(condition, 2 * outer)
        self.time_norm = nn.GroupNorm(GROUPS, outer, eps=EPSILON)
        self.time = nn.Conv2d(outer, outer, (3, 1), padding=(1, 0))
        self.past = nn.Conv2d(inner, outer, 1) if inner != outer else None
        zero_init(self.film)
        zero_init(self.time)

    def forward(self, x_FCHW: Tensor, condition_FD: Tensor, frames: int) -> Tensor:
        shift, scale = self.film(F.silu(condition_FD))[..., None, None].chunk(2, dim=1)
        y = self.space(F.silu(self.norm(x_FCHW)))
        y = F.silu(torch.addcmul(shift, self.time_norm(y), 1 + scale))
        h, w = y.shape[-2:]
        y = self.time(rearrange(y, "(b t) c h w -> b c t (h w)", t=frames))
        y_FCHW: Tensor = rearrange(y, "b c t (h w) -> (b t) c h w", h=h, w=w)
        past: Tensor = x_FCHW if self.past is None else self.past(x_FCHW)
        return past + y_FCHW


class Attentions(nn.Module):
    """Every frame attends to itself, every place to its past and future, every token to the text."""

    def __init__(self, width: int, config: UNetConfig) -> None:
        super().__init__()
        self.theta, self.stride = config.theta, config.frame_stride
        self.head_width = width // config.heads
        self.space, self.time, self.text_attention = (Attention(width, config.heads) for _ in range(3))
        self.space_norm, self.time_norm, self.text_norm = (nn.LayerNorm(width, eps=EPSILON) for _ in range(3))
        xavier_init(self)
        for attention in (self.space, self.time, self.text_attention):
            zero_init(attention.out)

    def forward(
        self, x_FCHW: Tensor, frames: int, slow_B: Tensor, key_SD: Tensor, value_SD: Tensor, text: Layout
    ) -> Tensor:
        """slow_B: how much longer than at the base rate a frame lasts."""
        count, _, h, w = x_FCHW.shape
        clips, device = count // frames, x_FCHW.device
        places = (torch.arange(n, device=device) - (n - 1) / 2 for n in (h, w))
        y, x = torch.meshgrid(*places, indexing="ij")
        rope = rotary_table((y, x), self.head_width, self.theta).flatten(0, 1)
        row = rearrange(x_FCHW, "f c h w -> (f h w) c")
        frame = Layout(((count, h * w),), (None,))
        row = row + attended(self.space, self.space_norm(row), frame, rope)
        seconds_BT = latent_times(frames, self.stride, device) * slow_B[:, None]
        rope = rotary_table((seconds_BT.repeat_interleave(h * w, dim=0),), self.head_width, self.theta)
        row = rearrange(row, "(b t s) c -> (b s t) c", b=clips, t=frames)
        place = Layout(((clips * h * w, frames),), (None,))
        row = row + attended(self.time, self.time_norm(row), place, rope.flatten(0, 1))
        clip = Layout(((clips, frames * h * w),), (None,))
        row = row + self.text_attention(self.text_norm(row), key_SD, value_SD, clip, text)
        out_FCHW: Tensor = rearrange(row, "(b h w t) c -> (b t) c h w", b=clips, h=h, w=w)
        return out_FCHW


def attended(attention: Attention, row_SD: Tensor, layout: Layout, rope: Tensor) -> Tensor:
    out_SD: Tensor = attention(row_SD, *attention.keys_values(row_SD, rope), layout, layout, rope)
    return out_SD


class Stage(nn.Module):
    """A residual block, and attention where the level has it."""

    def __init__(self, inner: int, level: int, config: UNetConfig) -> None:
        super().__init__()
        width = config.widths[level]
        self.residual = Residual(inner, width, config.widths[-1])
        self.attentions = Attentions(width, config) if level >= config.attention else None


class UNet(nn.Module):
    """Called as the DiT; see `DiT.forward`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, condition = config.widths, config.widths[-1]
        self.embed = nn.Conv2d(config.channels + COORDINATES, widths[0], 3, padding=1)
        self.time_in = nn.Linear(config.frequency_width, condition)
        self.time_out = nn.Linear(condition, condition)
        self.text = MLP(config.text_width, condition, condition)
        self.pooled = MLP(config.text_width, condition, condition)
        self.fps = nn.Parameter(torch.zeros(condition))
        down, up, kept = [], [], [widths[0]]
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                down.append(Stage(kept[-1], level, config))
                kept.append(width)
            if level + 1 < len(widths):
                kept.append(width)  # after it is halved
        now = widths[-1]
        for level in reversed(range(len(widths))):
            for _ in range(config.blocks + 1):
                up.append(Stage(now + kept.pop(), level, config))
                now = widths[level]
        self.halve = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for width in widths[:-1])
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.middle = nn.ModuleList(Stage(widths[-1], len(widths) - 1, config) for _ in range(2))
        self.grow = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in widths[1:])
        self.text_keys = nn.ModuleList(
            nn.Linear(condition, stage.attentions.text_attention.query.in_features)
            for stage in self._stages()
            if stage.attentions is not None
        )
        self.norm = nn.GroupNorm(GROUPS, widths[0], eps=EPSILON)
        self.head = nn.Conv2d(widths[0], config.channels, 3, padding=1)
        zero_init(self.head)

    def forward(
        self,
        latent_BCTHW: Tensor,
        timestep: Tensor,
        text: Tensor | TextCache,
        text_mask_BL: Tensor | None = None,
        fps_B: Tensor | None = None,
    ) -> Tensor:
        """Prediction, shaped like the latent; all as of `DiT.forward`."""
        batch, channels, frames, height, width = latent_BCTHW.shape
        if channels != self.config.channels or height % 2 or width % 2:
            raise InputError(
                f"A latent of {channels} x {frames} x {height} x {width} does not fit this U-Net: it takes "
                f"{self.config.channels} channels and even heights and widths."
            )
        cache = text if isinstance(text, TextCache) else self.cache_text(text, text_mask_BL)
        timestep_BT = timestep if timestep.ndim == 2 else timestep[:, None].expand(-1, frames)
        slow_B = latent_BCTHW.new_ones(batch, dtype=torch.float32)
        if fps_B is not None:
            slow_B = self.config.base_fps / fps_B.float()
        condition_FD = self._condition(timestep_BT, cache, slow_B)
        pairs = iter(zip(cache.keys, cache.values, strict=True))

        def passed(stage: Stage, x_FCHW: Tensor) -> Tensor:
            x_FCHW = stage.residual(x_FCHW, condition_FD, frames)
            if stage.attentions is None:
                return x_FCHW
            return cast(Tensor, stage.attentions(x_FCHW, frames, slow_B, *next(pairs), cache.layout))

        x = self._embed(latent_BCTHW)
        kept, down, up = [x], iter(self.down), iter(self.up)
        for level in range(len(self.config.widths)):
            for _ in range(self.config.blocks):
                kept.append(x := passed(cast(Stage, next(down)), x))
            if level < len(self.halve):
                kept.append(x := self.halve[level](x))
        for stage in self.middle:
            x = passed(cast(Stage, stage), x)
        for level in reversed(range(len(self.config.widths))):
            for _ in range(self.config.blocks + 1):
                x = passed(cast(Stage, next(up)), torch.cat((x, kept.pop()), dim=1))
            if level:
                x = self.grow[level - 1](F.interpolate(x, size=kept[-1].shape[-2:], mode="nearest"))
        out_FCHW = self.head(F.silu(self.norm(x)))
        out_BCTHW: Tensor = rearrange(out_FCHW, "(b t) c h w -> b c t h w", b=batch)
        return out_BCTHW.to(latent_BCTHW.dtype)

    def cache_text(self, text_BLD: Tensor, mask_BL: Tensor | None = None) -> TextCache:
        """Keys and values of all attention to the text, and the pooled text; see `DiT.cache_text`."""
        batch, length, _ = text_BLD.shape
        real_BL1 = (
            torch.ones_like(text_BLD[..., :1]) if mask_BL is None else mask_BL[..., None].to(text_BLD.dtype)
        )
        dtype = self.embed.weight.dtype
        pooled_BD = self.pooled(((text_BLD * real_BL1).sum(1) / real_BL1.sum(1)).to(dtype))
        text_SD = self.text(text_BLD.flatten(0, 1).to(dtype))
        attend = [stage.attentions.text_attention for stage in self._stages() if stage.attentions is not None]
        pairs = [
            attention.keys_values(into(text_SD))
            for attention, into in zip(attend, self.text_keys, strict=True)
        ]
        keys, values = zip(*pairs, strict=True) if pairs else ((), ())
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        return TextCache(keys, values, pooled_BD, Layout(((batch, length),), (mask,)))

    def _stages(self) -> Iterable[Stage]:
        """In the order of the pass."""
        return cast(Iterable[Stage], (*self.down, *self.middle, *self.up))

    def _condition(self, timestep_BT: Tensor, text: TextCache, slow_B: Tensor) -> Tensor:
        """What FiLM is computed from: timestep of each frame, pooled text, frame rate."""
        frames = timestep_BT.shape[1]
        wave_FD = sinusoid(timestep_BT.flatten(), self.config.frequency_width).to(self.embed.weight.dtype)
        condition_FD: Tensor = self.time_out(F.silu(self.time_in(wave_FD)))
        told_BD = -torch.log2(slow_B)[:, None].to(self.fps.dtype) * self.fps
        if text.pooled_BD is not None:
            told_BD = told_BD + text.pooled_BD
        return condition_FD + told_BD.repeat_interleave(frames, dim=0)

    def _embed(self, latent_BCTHW: Tensor) -> Tensor:
        """Features of every frame, from its latent and from where its pixels are."""
        batch, _, *grid = latent_BCTHW.shape
        x_FCHW = rearrange(latent_BCTHW, "b c t h w -> (b t) c h w").to(self.embed.weight.dtype)
        t, h, w = grid
        where_SC = coordinates((t, h, w), x_FCHW)
        where_FCHW = rearrange(where_SC, "(t h w) c -> t c h w", t=t, h=h).repeat(batch, 1, 1, 1)
        out_FCHW: Tensor = self.embed(torch.cat((x_FCHW, where_FCHW), dim=1))
        return out_FCHW


UNET_PRESETS: dict[str, UNetConfig] = {
    "tiny": UNetConfig(widths=(96, 192, 256), blocks=2, heads=4, text_width=192),
    "small": UNetConfig(widths=(160, 288, 384), blocks=2, heads=4, text_width=256),
    "base": UNetConfig(widths=(320, 640, 768), blocks=2, heads=4, text_width=512),
}
