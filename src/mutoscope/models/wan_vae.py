"""Wan's video VAEs on our causal convolution: 4 x 8 x 8 with 16 channels (2.1), 4 x 16 x 16 with 48 (2.2).

The architecture is that of Wan 2.1 (Wan Team 2025, arXiv 2503.20314) and of Wan 2.2's residual VAE. Both treat
the first frame alone: layers that change the frame rate pass it by, and zeros lie before it. Chunks of any
length therefore give the output of the whole clip, and the published code, which works one latent frame at a
time, is the special case of the shortest chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from mutoscope.errors import InputError
from mutoscope.models.causal import Cache, CausalConv3d
from mutoscope.models.layers import in_place, plain_sum
from mutoscope.models.vae import per_channel

CHUNK_POSITIONS = 256  # latent positions (T*H*W) that encode and decode hold at a time
ENLARGED_POSITIONS = 64  # of them, those whose frames the decoder enlarges at a time


@dataclass(frozen=True)
class WanVAEConfig:
    """Sizes of a Wan VAE.

    width, decoder_width: channels at the highest resolution. multipliers: of them, one per resolution.
    halves_time: for each halving of the resolution in the encoder, whether time is halved too.
    blocks: residual blocks per resolution of the encoder; the decoder has one more.
    patch: pixels per side folded into channels at the door. residual: average shortcuts around each
    resolution (Wan 2.2). latent_mean, latent_std: per latent channel, over real clips.
    """

    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]
    width: int = 96
    decoder_width: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    halves_time: tuple[bool, ...] = (False, True, True)
    blocks: int = 2
    patch: int = 1
    residual: bool = False

    def __post_init__(self) -> None:
        if len(self.latent_mean) != len(self.latent_std):
            raise InputError(
                f"A VAE with {len(self.latent_mean)} means and {len(self.latent_std)} deviations of latent "
                "channels is not one; give one of each per channel."
            )
        if len(self.halves_time) != len(self.multipliers) - 1:
            raise InputError(
                f"{len(self.multipliers)} resolutions have {len(self.multipliers) - 1} halvings between them, "
                f"not {len(self.halves_time)}; give halves_time one value for each."
            )

    @property
    def strides(self) -> tuple[int, int, int]:
        """Frames, rows and columns of one latent position."""
        space = self.patch * 2 ** len(self.halves_time)
        return 2 ** sum(self.halves_time), space, space


class ChannelNorm(nn.Module):
    """Each position's channels scaled to root mean square 1, times a learned weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, hidden_BCTHW: Tensor) -> Tensor:
        unit_BCTHW = functional.normalize(hidden_BCTHW.float(), dim=1).to(hidden_BCTHW.dtype)
        scale_C111 = per_channel(self.weight * len(self.weight) ** 0.5)
        return unit_BCTHW.mul_(scale_C111) if in_place(unit_BCTHW, scale_C111) else unit_BCTHW * scale_C111


def activated(norm: ChannelNorm, hidden_BCTHW: Tensor) -> Tensor:
    """SiLU of the norm."""
    normed_BCTHW = norm(hidden_BCTHW)
    return functional.silu(normed_BCTHW, inplace=in_place(normed_BCTHW))


class Block(nn.Module):
    """Residual block: twice norm, SiLU, 3x3x3; a linear map on the shortcut where the width changes."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(in_width)
        self.conv1 = CausalConv3d(in_width, out_width, (3, 3, 3))
        self.norm2 = ChannelNorm(out_width)
        self.conv2 = CausalConv3d(out_width, out_width, (3, 3, 3))
        self.shortcut = CausalConv3d(in_width, out_width, (1, 1, 1)) if in_width != out_width else None

    def forward(self, hidden_BCTHW: Tensor, cache: Cache) -> Tensor:
        out_BCTHW: Tensor = self.conv1(activated(self.norm1, hidden_BCTHW), cache)
        out_BCTHW = self.conv2(activated(self.norm2, out_BCTHW), cache)
        kept_BCTHW: Tensor = hidden_BCTHW if self.shortcut is None else self.shortcut(hidden_BCTHW)
        return plain_sum(kept_BCTHW, out_BCTHW)


class FrameAttention(nn.Module):
    """Self-attention with one head among the positions of each frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, hidden_BCTHW: Tensor) -> Tensor:
        frames, height = hidden_BCTHW.shape[2:4]
        folded_FCHW = frames_folded(self.norm(hidden_BCTHW))
        query, key, value = rearrange(self.qkv(folded_FCHW), "f c h w -> f (h w) c").chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed_FCHW: Tensor = self.out(rearrange(mixed, "f (h w) c -> f c h w", h=height))
        return hidden_BCTHW + rearrange(mixed_FCHW, "(b t) c h w -> b c t h w", t=frames)


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Block(width, width)
        self.attention = FrameAttention(width)
        self.second = Block(width, width)

    def forward(self, hidden_BCTHW: Tensor, cache: Cache) -> Tensor:
        hidden_BCTHW = self.attention(self.first(hidden_BCTHW, cache))
        out_BCTHW: Tensor = self.second(hidden_BCTHW, cache)
        return out_BCTHW


class Halve(nn.Module):
    """Half the rows and columns; with `time`, 1 + 2k frames give 1 + k, the first of the clip passing by."""

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, 3, stride=2)
        self.time = CausalConv3d(width, width, (3, 1, 1), (2, 1, 1)) if time else None

    def forward(self, hidden_BCTHW: Tensor, cache: Cache) -> Tensor:
        padded_FCHW = functional.pad(frames_folded(hidden_BCTHW), (0, 1, 0, 1))
        half_FCHW: Tensor = self.space(padded_FCHW)
        half_BCTHW = rearrange(half_FCHW, "(b t) c h w -> b c t h w", t=hidden_BCTHW.shape[2])
        if self.time is None:
            return half_BCTHW
        if self.time in cache:
            later_BCTHW: Tensor = self.time(half_BCTHW, cache)
            return later_BCTHW
        first_BCTHW, rest_BCTHW = half_BCTHW[:, :, :1], half_BCTHW[:, :, 1:]
        cache[self.time] = first_BCTHW.permute(0, 2, 3, 4, 1).clone()
        if rest_BCTHW.shape[2] == 0:
            return first_BCTHW
        return torch.cat([first_BCTHW, self.time(rest_BCTHW, cache)], dim=2)


class Double(nn.Module):
    """Twice the rows and columns; with `time`, 1 + k frames give 1 + 2k, the first of the clip passing by.

    The convolution over time does not see that first frame: zeros lie before the second one.
    """

    def __init__(self, width: int, out_width: int, time: bool) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, out_width, 3, padding=1)
        self.time = CausalConv3d(width, 2 * width, (3, 1, 1)) if time else None

    def forward(self, hidden_BCTHW: Tensor, cache: Cache) -> Tensor:
        if self.time is not None:
            hidden_BCTHW = self.doubled_frames(self.time, hidden_BCTHW, cache)
        large_FCHW = doubled_convolution(frames_folded(hidden_BCTHW), self.space)
        return rearrange(large_FCHW, "(b t) c h w -> b c t h w", t=hidden_BCTHW.shape[2])

    @staticmethod
    def doubled_frames(time: CausalConv3d, hidden_BCTHW: Tensor, cache: Cache) -> Tensor:
        parts = []
        if time not in cache:
            first_BTHWC = hidden_BCTHW[:, :, :1].permute(0, 2, 3, 4, 1)
            cache[time] = torch.zeros_like(first_BTHWC).repeat(1, time.past, 1, 1, 1)
            parts, hidden_BCTHW = [hidden_BCTHW[:, :, :1]], hidden_BCTHW[:, :, 1:]
        if hidden_BCTHW.shape[2]:
            pairs_BCTHW = time(hidden_BCTHW, cache)
            parts.append(rearrange(pairs_BCTHW, "b (p c) t h w -> b c (t p) h w", p=2))
        return torch.cat(parts, dim=2)


def doubled_convolution(frames_FCHW: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Each pixel repeated 2 x 2, then the 3 x 3 convolution, without making the large frames.

    Pixels of one place in the 2 x 2 see only 2 x 2 different ones, through sums of weights: four small
    convolutions (run as one) with 4/9 of the multiplications.
    """
    top, middle, bottom = convolution.weight.unbind(2)
    rows = [torch.stack(pair, 2) for pair in ((top, middle + bottom), (top + middle, bottom))]
    weights = []
    for row_OI2K in rows:
        left, middle, right = row_OI2K.unbind(3)
        weights += [torch.stack(pair, 3) for pair in ((left, middle + right), (left + middle, right))]
    bias = None if convolution.bias is None else convolution.bias.repeat(4)
    places_FCHW = functional.conv2d(frames_FCHW, torch.cat(weights), bias, padding=1)
    frames, _, height, width = frames_FCHW.shape
    large_FHQWRC = frames_FCHW.new_empty(frames, height, 2, width, 2, convolution.out_channels)
    for place_FCHW, (y, x) in zip(places_FCHW.chunk(4, 1), ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        seen_FCHW = place_FCHW[:, :, y : y + height, x : x + width]
        large_FHQWRC[:, :, y, :, x] = seen_FCHW.permute(0, 2, 3, 1)
    return large_FHQWRC.view(frames, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


class DownStage(nn.Module):
    """The blocks of one resolution, then half of it; `residual` adds averages of the input."""

    def __init__(
        self, in_width: int, out_width: int, blocks: int, halve: Halve | None, residual: bool
    ) -> None:
        super().__init__()
        widths = [in_width] + [out_width] * blocks
        self.blocks = nn.ModuleList(Block(*pair) for pair in pairwise(widths))
        self.resample = halve
        self.residual = residual

    def forward(self, hidden_BCTHW: Tensor, cache: Cache) -> Tensor:
        inner_BCTHW: Tensor = hidden_BCTHW
        for block in self.blocks:
            inner_BCTHW = block(inner_BCTHW, cache)
        if self.resample is not None:
            inner_BCTHW = self.resample(inner_BCTHW, cache)
        if not self.residual:
            return inner_BCTHW
        factors = stage_factors(self.resample)
        return inner_BCTHW + averaged(hidden_BCTHW, inner_BCTHW.shape[1], *factors)


class UpStage(nn.Module):
    """The blocks of one resolution, then twice of it; `residual` adds copies of the input."""

    def __init__(
        self, in_width: int, out_width: int, blocks: int, double: Double | None, residual: bool
    ) -> None:
        super().__init__()
        widths = [in_width] + [out_width] * blocks
        self.blocks = nn.ModuleList(Block(*pair) for pair in pairwise(widths))
        self.resample = double
        self.residual = residual

    def forward(self, hidden_BCTHW: Tensor, cache: Cache) -> Tensor:
        inner_BCTHW: Tensor = hidden_BCTHW
        for block in self.blocks:
            inner_BCTHW = block(inner_BCTHW, cache)
        if self.resample is None:
            return inner_BCTHW
        starts = self.resample.time is not None and self.resample.time not in cache
        inner_BCTHW = self.resample(inner_BCTHW, cache)
        if not self.residual:
            return inner_BCTHW
        copies_BCTHW = copied(hidden_BCTHW, inner_BCTHW.shape[1], *stage_factors(self.resample))
        return inner_BCTHW + (copies_BCTHW[:, :, 1:] if starts else copies_BCTHW)


def stage_factors(resample: Halve | Double | None) -> tuple[int, int]:
    """By what a stage changes frames, and rows and columns."""
    if resample is None:
        return 1, 1
    return (1 if resample.time is None else 2), 2


def averaged(input_BCTHW: Tensor, width: int, time: int, space: int) -> Tensor:
    """Space and time to depth, then means of neighbouring channels; zeros go before an odd first frame."""
    lacking = -input_BCTHW.shape[2] % time
    input_BCTHW = functional.pad(input_BCTHW, (0, 0, 0, 0, lacking, 0))
    pattern = "b c (t p) (h q) (w r) -> b (c p q r) t h w"
    deep_BCTHW = rearrange(input_BCTHW, pattern, p=time, q=space, r=space)
    return reduce(deep_BCTHW, "b (c g) t h w -> b c t h w", "mean", c=width)


def copied(input_BCTHW: Tensor, width: int, time: int, space: int) -> Tensor:
    """Copies of each channel, then depth to space and time."""
    copies = width * time * space * space // input_BCTHW.shape[1]
    pattern = "b (c p q r) t h w -> b c (t p) (h q) (w r)"
    return rearrange(input_BCTHW.repeat_interleave(copies, dim=1), pattern, p=time, q=space, r=space)


def frames_folded(hidden_BCTHW: Tensor) -> Tensor:
    """Frames as members of the batch."""
    return rearrange(hidden_BCTHW, "b c t h w -> (b t) c h w")


class Encoder(nn.Module):
    """Video, folded by the patch -> mean and log-variance of the latent, joined."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = [config.width * factor for factor in (1, *config.multipliers)]
        halvings = [Halve(width, time) for width, time in zip(widths[1:], config.halves_time, strict=False)]
        self.stem = CausalConv3d(3 * config.patch**2, widths[0], (3, 3, 3))
        self.stages = nn.ModuleList(
            DownStage(*pair, config.blocks, halve, config.residual)
            for pair, halve in zip(pairwise(widths), [*halvings, None], strict=True)
        )
        self.middle = Middle(widths[-1])
        self.norm = ChannelNorm(widths[-1])
        self.head = CausalConv3d(widths[-1], 2 * len(config.latent_mean), (3, 3, 3))

    def forward(self, video_BCTHW: Tensor, cache: Cache) -> Tensor:
        hidden_BCTHW = self.stem(video_BCTHW, cache)
        for stage in self.stages:
            hidden_BCTHW = stage(hidden_BCTHW, cache)
        hidden_BCTHW = self.middle(hidden_BCTHW, cache)
        moments_BCTHW: Tensor = self.head(activated(self.norm, hidden_BCTHW), cache)
        return moments_BCTHW


class Decoder(nn.Module):
    """Latent -> video, folded by the patch."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = [config.decoder_width * factor for factor in reversed(config.multipliers)]
        self.stem = CausalConv3d(len(config.latent_mean), widths[0], (3, 3, 3))
        self.middle = Middle(widths[0])
        stages, in_width = [], widths[0]
        for width, time in zip(widths, [*reversed(config.halves_time), None], strict=True):
            out_width = width if config.residual else width // 2
            double = None if time is None else Double(width, out_width, time)
            stages.append(UpStage(in_width, width, config.blocks + 1, double, config.residual))
            in_width = out_width
        self.stages = nn.ModuleList(stages)
        doubles = [place for place, time in enumerate(reversed(config.halves_time)) if time]
        self.at_full_rate = doubles[-1] + 1 if doubles else 0  # the first stage that sees every frame
        self.time = config.strides[0]
        self.norm = ChannelNorm(widths[-1])
        self.head = CausalConv3d(widths[-1], 3 * config.patch**2, (3, 3, 3))

    def forward(self, latent_BCTHW: Tensor, cache: Cache) -> Tensor:
        hidden_BCTHW, stages = self.middle(self.stem(latent_BCTHW, cache), cache), list(self.stages)
        for stage in stages[: self.at_full_rate]:
            hidden_BCTHW = stage(hidden_BCTHW, cache)
        height, width = latent_BCTHW.shape[3:]
        parts = torch.split(hidden_BCTHW, frames_at_once(height, width, self.time), dim=2)
        return torch.cat([self.enlarged(part_BCTHW, cache) for part_BCTHW in parts], dim=2)

    def enlarged(self, hidden_BCTHW: Tensor, cache: Cache) -> Tensor:
        """The last stages, in which the number of frames stays and most of the memory goes: a few frames at a time."""
        for stage in list(self.stages)[self.at_full_rate :]:
            hidden_BCTHW = stage(hidden_BCTHW, cache)
        video_BCTHW: Tensor = self.head(activated(self.norm, hidden_BCTHW), cache)
        return video_BCTHW


class WanVAE(nn.Module):
    """Wan's causal video VAE, with the calls of our own (`models/vae.py`)."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.strides = config.strides
        self.latent_channels = len(config.latent_mean)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant = CausalConv3d(2 * self.latent_channels, 2 * self.latent_channels, (1, 1, 1))
        self.post_quant = CausalConv3d(self.latent_channels, self.latent_channels, (1, 1, 1))

    @property
    def latent_mean(self) -> Tensor:
        """Per latent channel, on the device and in the type of the weights."""
        return self.post_quant.weight.new_tensor(self.config.latent_mean)

    @property
    def latent_std(self) -> Tensor:
        """As `latent_mean`."""
        return self.post_quant.weight.new_tensor(self.config.latent_std)

    def shortcut_out(self, latent_BCTHW: Tensor) -> Tensor:
        """A rough look for previews: three channels of a latent that is not normalised as the colours of its blocks.

        (B, 3 x frames x rows x columns of a latent position, T, H, W), near [-1, 1].
        """
        normal_BCTHW = (latent_BCTHW - per_channel(self.latent_mean)) / per_channel(self.latent_std)
        time, rows, columns = self.strides
        return (normal_BCTHW[:, :3] / 2).repeat_interleave(time * rows * columns, dim=1)

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Video in [-1, 1], 1 + 4k frames, sides multiples of the strides -> mode of the latent, normalised.

        Works through the clip in chunks, so that the working memory does not grow with its length.
        Raises InputError on other shapes.
        """
        check_video(video_BCTHW, self.strides)
        time, space, _ = self.strides
        frames = time * frames_per_chunk(video_BCTHW.shape[3] // space, video_BCTHW.shape[4] // space)
        return torch.cat(list(self.encode_stream(torch.split(video_BCTHW, frames, dim=2))), dim=2)

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """Normalised latent, 1 + k frames -> video clamped to [-1, 1], 1 + 4k frames; in chunks."""
        frames = frames_per_chunk(*latent_BCTHW.shape[3:])
        return torch.cat(list(self.decode_stream(torch.split(latent_BCTHW, frames, dim=2))), dim=2)

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Video in chunks of any number of frames -> normalised latents as soon as their frames are there.

        Raises InputError when the frames in all are not 1 + 4k.
        """
        cache: Cache = {}
        time, lead = self.strides[0], 1  # the first latent frame takes one frame, the others four
        waiting: list[Tensor] = []
        for chunk_BCTHW in chunks:
            if chunk_BCTHW.shape[2]:
                waiting.append(chunk_BCTHW)
            frames = sum(part.shape[2] for part in waiting)
            whole = lead + (frames - lead) // time * time
            if whole > 0:
                joined_BCTHW = torch.cat(waiting, dim=2)
                waiting = [joined_BCTHW[:, :, whole:].clone()] if frames > whole else []
                yield self._latent(joined_BCTHW[:, :, :whole], cache)
                lead = 0
        if waiting:
            rest = sum(part.shape[2] for part in waiting)
            raise InputError(
                f"The stream ended {rest} frames after a latent border; a clip has 1 + {time}k frames: "
                "drop those or pad the last one."
            )

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Normalised latents in chunks of any length -> their video in pieces, 1 frame for the first, then 4 each."""
        cache: Cache = {}
        for latent_BCTHW in pieces(latents):
            mean_C111, std_C111 = self._statistics(latent_BCTHW)
            raw_BCTHW = self.post_quant(latent_BCTHW * std_C111 + mean_C111)
            folded_BCTHW = self.decoder(raw_BCTHW, cache)
            pattern, patch = "b (c r q) t h w -> b c t (h q) (w r)", self.config.patch
            yield rearrange(folded_BCTHW, pattern, q=patch, r=patch).clamp(-1.0, 1.0)

    def _latent(self, video_BCTHW: Tensor, cache: Cache) -> Tensor:
        pattern, patch = "b c t (h q) (w r) -> b (c r q) t h w", self.config.patch
        folded_BCTHW = rearrange(video_BCTHW, pattern, q=patch, r=patch)
        moments_BCTHW: Tensor = self.quant(self.encoder(folded_BCTHW, cache))
        mode_BCTHW, _ = moments_BCTHW.chunk(2, dim=1)
        mean_C111, std_C111 = self._statistics(mode_BCTHW)
        return (mode_BCTHW - mean_C111) / std_C111

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent, to broadcast over BCTHW."""
        mean_C, std_C = (
            like.new_tensor(values) for values in (self.config.latent_mean, self.config.latent_std)
        )
        return per_channel(mean_C), per_channel(std_C)


def pieces(latents: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same stream in chunks that are not empty and not too large to be decoded at a time."""
    for latent_BCTHW in latents:
        if latent_BCTHW.shape[2]:
            yield from torch.split(latent_BCTHW, frames_per_chunk(*latent_BCTHW.shape[3:]), dim=2)


def frames_per_chunk(latent_height: int, latent_width: int) -> int:
    return max(1, CHUNK_POSITIONS // (latent_height * latent_width))


def frames_at_once(latent_height: int, latent_width: int, time: int) -> int:
    """Frames of which the decoder holds the large features at a time."""
    return max(1, time * ENLARGED_POSITIONS // (latent_height * latent_width))


def check_video(video_BCTHW: Tensor, strides: tuple[int, int, int]) -> None:
    """Raise InputError unless the video is (B, 3, 1 + k time, multiples of the strides in space)."""
    if video_BCTHW.ndim != 5 or video_BCTHW.shape[1] != 3:
        raise InputError(
            f"A video tensor is (batch, 3, frames, height, width); got {tuple(video_BCTHW.shape)}."
        )
    (frames, height, width), (time, space, _) = video_BCTHW.shape[2:], strides
    if frames < 1 or (frames - 1) % time:
        raise InputError(f"{frames} frames is not 1 + {time}k; drop or add some.")
    if height % space or width % space or not height or not width:
        raise InputError(
            f"{width}x{height} pixels is not a size of this VAE; sides must be multiples of {space}."
        )


# fmt: off
WAN_VAE_PRESETS = {
    "wan2.1-vae": WanVAEConfig(
        latent_mean=(
            -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
            0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
        ),
        latent_std=(
            2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
            3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
        ),
    ),
    "wan2.2-vae": WanVAEConfig(
        latent_mean=(
            -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
            -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
            -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
            -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
            -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
            0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
        ),
        latent_std=(
            0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
            0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
            0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
            0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
            0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
            0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
        ),
        width=160,
        decoder_width=256,
        patch=2,
        residual=True,
    ),
}
# fmt: on
