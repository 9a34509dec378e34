"""The video VAE: 1 + 4k frames of H x W pixels to 1 + k latent frames of H/8 x W/8 and back, strictly causal.

What decides its speed is operations per pixel, so nothing is computed at full resolution: the video is folded
4 x 4 x 4 at the door (the first frame repeated, so that it stands alone), blocks of factorised convolutions
(1x3x3 then 3x1x1) work at 1/4 and 1/8 of the resolution, and the pixels come out of a linear head. A linear
shortcut, set to the principal components of real clips before training, runs beside both halves; the rest
learns only what the shortcut misses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from mutoscope.errors import InputError
from mutoscope.models.causal import Cache, CausalConv3d

FOLD = 4  # frames, rows and columns of one folded position
MOTION_COST = 0.01  # share of the square error (0.04 dB) that motion may cost
CHUNK_POSITIONS = 16384  # latent positions (T*H*W) that encode and decode hold at a time


@dataclass(frozen=True)
class VAEConfig:
    """Widths and depths. "Quarter" and "eighth" are the two resolutions at which blocks work."""

    latent_channels: int = 16
    quarter_width: int = 64
    eighth_width: int = 128
    encoder_blocks: tuple[int, int] = (2, 2)  # at a quarter, at an eighth
    decoder_blocks: tuple[int, int] = (3, 3)  # at an eighth, at a quarter


class Block(nn.Module):
    """Residual block: RMS norm per position, SiLU, 1x3x3, SiLU, 3x1x1; the last one starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.space = CausalConv3d(width, width, (1, 3, 3))
        self.time = CausalConv3d(width, width, (3, 1, 1))
        nn.init.zeros_(self.time.weight)

    def forward(self, hidden_BCTHW: Tensor, cache: Cache | None) -> Tensor:
        inner_BCTHW = functional.silu(normed(self.norm, hidden_BCTHW))
        inner_BCTHW = functional.silu(self.space(inner_BCTHW))
        residual_BCTHW: Tensor = self.time(inner_BCTHW, cache)
        return hidden_BCTHW + residual_BCTHW


def normed(norm: nn.RMSNorm, hidden_BCTHW: Tensor) -> Tensor:
    """RMS norm over the channels of each position: no statistics cross time, which keeps streaming exact."""
    normed_BTHWC: Tensor = norm(hidden_BCTHW.permute(0, 2, 3, 4, 1))
    return normed_BTHWC.permute(0, 4, 1, 2, 3)


def pointwise(in_channels: int, out_channels: int) -> CausalConv3d:
    """A linear map of the channels at each position."""
    return CausalConv3d(in_channels, out_channels, (1, 1, 1))


def fold(input_BCTHW: Tensor, time: int, space: int) -> Tensor:
    """Space (and time) to depth: blocks of time x space x space positions become channels."""
    pattern = "b c (t p) (h q) (w r) -> b t h w (c p q r)"
    return rearrange(input_BCTHW, pattern, p=time, q=space, r=space).permute(0, 4, 1, 2, 3)


def unfold(input_BCTHW: Tensor, time: int, space: int) -> Tensor:
    """Depth to space (and time), the inverse of `fold`."""
    pattern = "b (c p q r) t h w -> b (t p) (h q) (w r) c"
    return rearrange(input_BCTHW, pattern, p=time, q=space, r=space).permute(0, 4, 1, 2, 3)


class Encoder(nn.Module):
    """Folded video (B 192 T H/4 W/4) -> mean and logvar of the latent, joined (B 2*latent T H/8 W/8)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        quarter, eighth = config.quarter_width, config.eighth_width
        self.stem = pointwise(3 * FOLD**3, quarter)
        self.quarter = nn.ModuleList(Block(quarter) for _ in range(config.encoder_blocks[0]))
        self.down = pointwise(4 * quarter, eighth)
        self.eighth = nn.ModuleList(Block(eighth) for _ in range(config.encoder_blocks[1]))
        self.norm = nn.RMSNorm(eighth, eps=1e-6)
        self.head = pointwise(eighth, 2 * config.latent_channels)
        nn.init.zeros_(self.head.weight)

    def forward(self, folded_BCTHW: Tensor, cache: Cache | None) -> Tensor:
        hidden_BCTHW = self.stem(folded_BCTHW)
        for block in self.quarter:
            hidden_BCTHW = block(hidden_BCTHW, cache)
        hidden_BCTHW = self.down(fold(hidden_BCTHW, 1, 2))
        for block in self.eighth:
            hidden_BCTHW = block(hidden_BCTHW, cache)
        moments_BCTHW: Tensor = self.head(normed(self.norm, hidden_BCTHW))
        return moments_BCTHW


class Decoder(nn.Module):
    """Latent (B latent T H/8 W/8) -> folded video (B 192 T H/4 W/4)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        quarter, eighth = config.quarter_width, config.eighth_width
        self.stem = CausalConv3d(config.latent_channels, eighth, (3, 3, 3))
        self.eighth = nn.ModuleList(Block(eighth) for _ in range(config.decoder_blocks[0]))
        self.up = pointwise(eighth, 4 * quarter)
        self.quarter = nn.ModuleList(Block(quarter) for _ in range(config.decoder_blocks[1]))
        self.norm = nn.RMSNorm(quarter, eps=1e-6)
        self.head = pointwise(quarter, 3 * FOLD**3)
        nn.init.zeros_(self.head.weight)

    def forward(self, latent_BCTHW: Tensor, cache: Cache | None) -> Tensor:
        hidden_BCTHW = self.stem(latent_BCTHW, cache)
        for block in self.eighth:
            hidden_BCTHW = block(hidden_BCTHW, cache)
        hidden_BCTHW = unfold(self.up(hidden_BCTHW), 1, 2)
        for block in self.quarter:
            hidden_BCTHW = block(hidden_BCTHW, cache)
        folded_BCTHW: Tensor = self.head(functional.silu(normed(self.norm, hidden_BCTHW)))
        return folded_BCTHW


class VAE(nn.Module):
    """Causal video VAE, 4 x 8 x 8.

    `latent_mean` and `latent_std` (C,) are statistics of the posterior mean over real clips, set after
    training; `encode` and `decode` use them, so that latents outside have mean 0, variance 1 per channel.
    """

    strides = (4, 8, 8)

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.latent_channels
        block = 3 * self.strides[0] * self.strides[1] * self.strides[2]
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.shortcut_in = pointwise(block, config.latent_channels)
        self.shortcut_out = pointwise(config.latent_channels, block)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Video in [-1, 1], 1 + 4k frames, sides multiples of 8 -> mode of the latent, normalised.

        Works through the clip in chunks, so that the working memory does not grow with its length.
        Raises InputError on other shapes.
        """
        check_video(video_BCTHW, self.strides)
        frames = 4 * latent_frames_per_chunk(video_BCTHW.shape[-2] // 8, video_BCTHW.shape[-1] // 8)
        return torch.cat(list(self.encode_stream(torch.split(video_BCTHW, frames, dim=2))), dim=2)

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """Normalised latent, 1 + k frames -> video near [-1, 1] (not clamped), 1 + 4k frames; in chunks."""
        frames = latent_frames_per_chunk(*latent_BCTHW.shape[-2:])
        return torch.cat(list(self.decode_stream(torch.split(latent_BCTHW, frames, dim=2))), dim=2)

    def posterior(self, video_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(latent | video), not normalised: the form that training uses."""
        check_video(video_BCTHW, self.strides)
        return self.moments(torch.cat([first_frame_repeated(video_BCTHW), video_BCTHW], dim=2), None)

    def reconstruct(self, latent_BCTHW: Tensor) -> Tensor:
        """Video from a latent that is not normalised, the counterpart of `posterior`."""
        return self.pixels(latent_BCTHW, None)[:, :, self.strides[0] - 1 :]

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Video in chunks of any number of frames -> normalised latents as soon as their frames are there.

        Raises InputError when the frames in all are not 1 + 4k.
        """
        cache: Cache = {}
        waiting_BCTHW: Tensor | None = None
        for chunk_BCTHW in chunks:
            if chunk_BCTHW.shape[2] == 0:
                continue
            if waiting_BCTHW is None:
                waiting_BCTHW = first_frame_repeated(chunk_BCTHW)
            waiting_BCTHW = torch.cat([waiting_BCTHW, chunk_BCTHW], dim=2)
            whole = waiting_BCTHW.shape[2] // self.strides[0] * self.strides[0]
            if whole:
                mean_BCTHW, _ = self.moments(waiting_BCTHW[:, :, :whole], cache)
                waiting_BCTHW = waiting_BCTHW[:, :, whole:].clone()
                yield (mean_BCTHW - per_channel(self.latent_mean)) / per_channel(self.latent_std)
        if waiting_BCTHW is not None and waiting_BCTHW.shape[2]:
            raise InputError(
                f"The stream ended {waiting_BCTHW.shape[2]} frames after a latent border; "
                "a clip has 1 + 4k frames: drop those or pad the last one."
            )

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Normalised latents in chunks of any length -> their video, 1 frame for the first, then 4 each."""
        cache: Cache = {}
        first = True
        for latent_BCTHW in latents:
            if latent_BCTHW.shape[2] == 0:
                continue
            scaled_BCTHW = latent_BCTHW * per_channel(self.latent_std) + per_channel(self.latent_mean)
            video_BCTHW = self.pixels(scaled_BCTHW, cache)
            yield video_BCTHW[:, :, self.strides[0] - 1 :] if first else video_BCTHW
            first = False

    def moments(self, video_BCTHW: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance for 4k frames, the first three of a clip being copies of its first."""
        moments_BCTHW = self.encoder(fold(video_BCTHW, FOLD, FOLD), cache)
        mean_BCTHW, logvar_BCTHW = moments_BCTHW.chunk(2, dim=1)
        shortcut_BCTHW = self.shortcut_in(fold(video_BCTHW, self.strides[0], self.strides[1]))
        return mean_BCTHW + shortcut_BCTHW, logvar_BCTHW.clamp(-20, 4)

    def pixels(self, latent_BCTHW: Tensor, cache: Cache | None) -> Tensor:
        """Four frames of video for each latent frame."""
        detail_BCTHW = unfold(self.decoder(latent_BCTHW, cache), FOLD, FOLD)
        shortcut_BCTHW = self.shortcut_out(latent_BCTHW)
        return detail_BCTHW + unfold(shortcut_BCTHW, self.strides[0], self.strides[1])

    @torch.no_grad()
    def fit_shortcut(self, video_BCTHW: Tensor, logvar: float = -6.0) -> None:
        """Set the shortcut to the principal components of the clips' 4 x 8 x 8 blocks, scaled to variance 1.

        The log-variance starts at `logvar` everywhere. With the convolutions' last layers at zero, the VAE is
        then the best linear codec of its size.
        """
        whole_BCTHW = torch.cat([first_frame_repeated(video_BCTHW), video_BCTHW], dim=2)
        blocks_SC = (
            fold(whole_BCTHW, self.strides[0], self.strides[1]).permute(0, 2, 3, 4, 1).flatten(0, 3).double()
        )
        mean_C = blocks_SC.mean(dim=0)
        covariance_CC = (blocks_SC - mean_C).T @ (blocks_SC - mean_C) / len(blocks_SC)
        variance_C, vectors_CC = torch.linalg.eigh(covariance_CC)
        scale_C = variance_C[-self.latent_channels :].clamp_min(1e-6).sqrt()
        vectors_CD = vectors_CC[:, -self.latent_channels :]
        project_DC = (vectors_CD / scale_C).T
        set_linear(self.shortcut_in, project_DC, -project_DC @ mean_C)
        set_linear(self.shortcut_out, vectors_CD * scale_C, mean_C)
        bias_C = torch.zeros(2 * self.latent_channels)
        bias_C[self.latent_channels :] = logvar
        set_linear(self.encoder.head, torch.zeros_like(self.encoder.head.weight).flatten(1), bias_C)

    @torch.no_grad()
    def match_motion(self, video_BCTHW: Tensor) -> float:
        """Let decoded clips change within latent frames as much as the given ones do; returns the factor, 1 or more.

        A decoder that learned from pixel errors shows the mean of what may have been: within the four frames of a
        latent frame things move too slowly, and then jump to the next. The factor gives back the energy of what
        changes, or as much of it as costs MOTION_COST of the square error. Of clips without motion it is 1.
        """
        decoded_BCTHW = self.reconstruct(self.posterior(video_BCTHW)[0])
        true, made = changes(video_BCTHW), changes(decoded_BCTHW)
        if not true.any() or not made.any():
            return 1.0
        energy = float(made.square().sum())
        whole = math.sqrt(float(true.square().sum()) / energy)
        best = (
            float((true * made).sum()) / energy
        )  # has the least square error, from which it rises as a parabola
        spent = MOTION_COST * float((decoded_BCTHW - video_BCTHW)[:, :, 1:].square().sum()) / energy
        gain = max(1.0, min(whole, best + math.sqrt((1 - best) ** 2 + spent)))
        self.scale_motion(gain)
        return gain

    @torch.no_grad()
    def scale_motion(self, gain: float) -> None:
        """Scale how far decoded frames differ from the mean of their four, in the last layers, which are linear."""
        for linear, side in ((self.decoder.head, FOLD), (self.shortcut_out, self.strides[1])):
            for values in (linear.weight, linear.bias):
                assert values is not None
                frames_CTSI = values.view(3, FOLD, side * side, -1)
                mean_CTSI = frames_CTSI.mean(1, keepdim=True)
                frames_CTSI.copy_(mean_CTSI + gain * (frames_CTSI - mean_CTSI))


def changes(video_BCTHW: Tensor) -> Tensor:
    """How far each frame is from the mean of its latent frame; the first frame, alone in its own, is left out."""
    frames_BCTPHW = rearrange(video_BCTHW[:, :, 1:].float(), "b c (t p) h w -> b c t p h w", p=FOLD)
    return frames_BCTPHW - frames_BCTPHW.mean(3, keepdim=True)


def set_linear(linear: CausalConv3d, weight_OI: Tensor, bias_O: Tensor) -> None:
    """Overwrite a pointwise convolution."""
    assert linear.bias is not None
    linear.weight.copy_(weight_OI[..., None, None, None])
    linear.bias.copy_(bias_O)


def per_channel(values_C: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1, 1), to broadcast over BCTHW."""
    return values_C[:, None, None, None]


def first_frame_repeated(video_BCTHW: Tensor) -> Tensor:
    """Three copies of the first frame, to go in front: the first frame then fills one latent frame."""
    return repeat(video_BCTHW[:, :, 0], "b c h w -> b c t h w", t=FOLD - 1)


def latent_frames_per_chunk(latent_height: int, latent_width: int) -> int:
    return max(1, CHUNK_POSITIONS // (latent_height * latent_width))


def check_video(video_BCTHW: Tensor, strides: tuple[int, int, int]) -> None:
    """Raise InputError unless the video has 1 + 4k frames and sides that are multiples of 8."""
    if video_BCTHW.ndim != 5 or video_BCTHW.shape[1] != 3:
        raise InputError(
            f"A video tensor is (batch, 3, frames, height, width); got {tuple(video_BCTHW.shape)}."
        )
    frames, height, width = video_BCTHW.shape[2:]
    if frames % strides[0] != 1:
        raise InputError(f"{frames} frames is not 1 + 4k; the nearest lengths are {frames_near(frames)}.")
    if height % strides[1] or width % strides[2] or not height or not width:
        raise InputError(f"{width}x{height} pixels is not a size of the VAE; sides must be multiples of 8.")


def frames_near(frames: int) -> str:
    """The lengths 1 + 4k around a number of frames, as words."""
    below = max(1, (frames - 1) // 4 * 4 + 1)
    return f"{below} and {below + 4}"


VAE_PRESETS = {
    "tiny": VAEConfig(),
    "small": VAEConfig(quarter_width=96, eighth_width=192),
    "base": VAEConfig(quarter_width=128, eighth_width=256, encoder_blocks=(3, 3), decoder_blocks=(4, 4)),
}
