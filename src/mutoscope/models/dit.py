"""The diffusion transformer: from a noisy latent, its timesteps and a text to the prediction of the process.

The shape is Wan's (Wan Team 2025, arXiv 2503.20314): blocks of modulated self-attention, cross-attention to the text
and a modulated MLP; one timestep MLP for all blocks plus a small table per block. Our own presets add adaLN-Zero
initialisation, the pooled text in the modulation, absolute coordinates, and positions in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models.layers import (
    EPSILON,
    MLP,
    Attention,
    Layout,
    gated_sum,
    init_linears,
    modulated_norm,
    rotary_table,
    sinusoid,
)

COORDINATES = 13  # three octaves of sine and cosine for height and for width, and the mark of the first frame


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT.

    channels: of the latent, in and out. patch: latent frames, rows, columns of one token.
    text_width: D of the text embeddings it is given. frequency_width: of the sinusoid of the timestep.
    positions: "seconds" puts latent frames at their time in seconds x base_fps / frame_stride and centres rows and
        columns; "grid" counts tokens from 0 (Wan). theta: RoPE's longest wavelength over 2 pi, in tokens.
    pooled_text: add the mean of the text to the modulation. coordinates: add absolute coordinates to the tokens.
    zero_init: adaLN-Zero, every block starts as the identity and the prediction as zero.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    text_width: int
    channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    frequency_width: int = 256
    positions: Literal["seconds", "grid"] = "seconds"
    theta: float = 100.0
    base_fps: float = 8.0
    frame_stride: int = 4
    pooled_text: bool = True
    coordinates: bool = True
    zero_init: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2 or self.width // self.heads < 6:
            raise InputError(
                f"A DiT of width {self.width} cannot have {self.heads} heads: each head needs an even width of 6 or "
                "more; choose heads = width / 64."
            )


@dataclass(frozen=True)
class TextCache:
    """What the blocks need of a text: computed once per request by `DiT.cache_text`, used at every step.

    keys, values: one row of text tokens per block. pooled_BD: what the text adds to the modulation.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    pooled_BD: Tensor | None
    layout: Layout


class Block(nn.Module):
    """Self-attention and MLP, both modulated and gated, with cross-attention to the text between them."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.attention = Attention(width, config.heads)
        self.text_norm = nn.LayerNorm(width, eps=EPSILON)
        self.text_attention = Attention(width, config.heads)
        self.mlp = MLP(width, config.mlp_width, width)
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(
        self, x_SD: Tensor, modulation_F6D: Tensor, layout: Layout, rope: Tensor, text: TextCache, index: int
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation_F6D + self.table).unbind(1)
        y = modulated_norm(x_SD, shift1, scale1, layout)
        y = self.attention(y, *self.attention.keys_values(y, rope), layout, layout, rope)
        x = gated_sum(x_SD, y, gate1, layout)
        x = x + self.text_attention(
            self.text_norm(x), text.keys[index], text.values[index], layout, text.layout
        )
        y = self.mlp(modulated_norm(x, shift2, scale2, layout))
        return gated_sum(x, y, gate2, layout)


class DiT(nn.Module):
    """Predicts velocity, epsilon, x0 or v, whichever the process trains it for. See `forward`."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width, values = config.width, config.channels * config.patch[0] * config.patch[1] * config.patch[2]
        self.embed = nn.Linear(values, width)
        self.time_in = nn.Linear(config.frequency_width, width)
        self.time_out = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.text = MLP(config.text_width, width, width)
        self.pooled = MLP(config.text_width, width, width) if config.pooled_text else None
        self.fps = nn.Parameter(torch.zeros(width)) if config.positions == "seconds" else None
        self.coordinates = nn.Linear(COORDINATES, width, bias=False) if config.coordinates else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.head = nn.Linear(width, values)
        if config.zero_init:
            self._zero_init()

    def _zero_init(self) -> None:
        """Every gate, the text branch of every block and the prediction start at zero (adaLN-Zero)."""
        init_linears([self], "xavier")
        for linear in (self.time_in, self.time_out, self.modulation):
            nn.init.normal_(linear.weight, std=0.02)
        gates = self.modulation.weight.unflatten(0, (6, -1))
        nn.init.zeros_(self.table)
        with torch.no_grad():
            gates[[2, 5]] = 0.0
            for block in self.blocks:
                block.table.zero_()
        init_linears([block.text_attention.out for block in self.blocks], "zero")
        init_linears([self.head], "zero")

    def forward(
        self,
        latent_BCTHW: Tensor,
        timestep: Tensor,
        text: Tensor | TextCache,
        text_mask_BL: Tensor | None = None,
        fps_B: Tensor | None = None,
    ) -> Tensor:
        """Prediction, shaped like the latent.

        timestep: in [0, 1000], per clip (B,) or per latent frame (B, T). text: embeddings (B, L, D) with a mask that
        is true on real tokens, or the cache of them. fps_B: frame rate of the video, default `base_fps`.
        Raises InputError when the latent does not fit the patch or the channels.
        """
        batch = latent_BCTHW.shape[0]
        grid = self._grid(latent_BCTHW.shape[1:])
        cache = text if isinstance(text, TextCache) else self.cache_text(text, text_mask_BL)
        tokens = grid[0] * grid[1] * grid[2]
        per_clip = timestep.ndim == 1
        rows = 1 if per_clip else grid[0]
        layout = Layout(((batch, tokens),), (None,), ((batch * rows, tokens // rows),))
        timestep_F = timestep if per_clip else self._per_token_frame(timestep).flatten()
        condition_FD = self._condition(timestep_F, torch.arange(batch).repeat_interleave(rows), cache, fps_B)
        x_SD = self._embed(latent_BCTHW, grid)
        rope = self._rope(grid, fps_B, latent_BCTHW.device)
        patches = self._run(x_SD, condition_FD, layout, rope, cache)
        return self._unpatchify(patches, grid).to(latent_BCTHW.dtype)

    def cache_text(self, text_BLD: Tensor, mask_BL: Tensor | None = None) -> TextCache:
        """Keys and values of all blocks and the pooled text, to be passed to `forward` in place of the text."""
        batch, length, _ = text_BLD.shape
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        return self._cache(text_BLD.flatten(0, 1), Layout(((batch, length),), (mask,)))

    def _cache(self, text_LD: Tensor, layout: Layout) -> TextCache:
        text_SD = self.text(text_LD)
        pairs = [block.text_attention.keys_values(text_SD) for block in self.blocks]
        keys, values = zip(*pairs, strict=True)
        return TextCache(keys, values, self._pool(text_LD, layout), layout)

    def _pool(self, text_LD: Tensor, layout: Layout) -> Tensor | None:
        """Mean of the real text tokens of each clip, through an MLP."""
        if self.pooled is None:
            return None
        means = []
        parts = text_LD.split([clips * tokens for clips, tokens in layout.groups])
        for part, (clips, tokens), mask in zip(parts, layout.groups, layout.masks, strict=True):
            part_BLD = part.view(clips, tokens, -1)
            if mask is None:
                means.append(part_BLD.mean(1))
            else:
                mask_BL1 = mask.view(clips, tokens, 1).to(part.dtype)
                means.append((part_BLD * mask_BL1).sum(1) / mask_BL1.sum(1))
        return self.pooled(torch.cat(means))

    def _condition(self, timestep_F: Tensor, clip_F: Tensor, text: TextCache, fps_B: Tensor | None) -> Tensor:
        """What every modulation is computed from, one row per span row: timestep, pooled text, frame rate."""
        wave = sinusoid(timestep_F, self.config.frequency_width).to(self.time_in.weight.dtype)
        condition_FD = self.time_out(F.silu(self.time_in(wave)))
        if text.pooled_BD is not None:
            condition_FD = condition_FD + text.pooled_BD[clip_F]
        if fps_B is not None and self.fps is not None:
            octaves_F1 = torch.log2(fps_B / self.config.base_fps)[clip_F, None]
            condition_FD = condition_FD + octaves_F1.to(self.fps.dtype) * self.fps
        return condition_FD

    def _run(
        self, x_SD: Tensor, condition_FD: Tensor, layout: Layout, rope: Tensor, text: TextCache
    ) -> Tensor:
        modulation_F6D = self.modulation(F.silu(condition_FD)).unflatten(-1, (6, -1))
        for index, block in enumerate(self.blocks):
            x_SD = block(x_SD, modulation_F6D, layout, rope, text, index)
        shift, scale = (condition_FD[:, None] + self.table).unbind(1)
        return self.head(modulated_norm(x_SD, shift, scale, layout))

    def _grid(self, shape: torch.Size) -> tuple[int, int, int]:
        """Tokens in time, height, width of a latent (C, T, H, W)."""
        channels, *extent = shape
        if channels != self.config.channels or any(
            n % p for n, p in zip(extent, self.config.patch, strict=True)
        ):
            raise InputError(
                f"A latent of {channels} x {' x '.join(map(str, extent))} does not fit this DiT: it takes "
                f"{self.config.channels} channels and multiples of {self.config.patch} in time, height, width."
            )
        (t, h, w), (pt, ph, pw) = extent, self.config.patch
        return t // pt, h // ph, w // pw

    def _per_token_frame(self, timestep_BT: Tensor) -> Tensor:
        """A token that spans several latent frames takes the noisiest of their timesteps."""
        return timestep_BT.unflatten(1, (-1, self.config.patch[0])).amax(-1)

    def _embed(self, latent_BCTHW: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Row of embedded patches, clip after clip."""
        p, q, r = self.config.patch
        patches = rearrange(latent_BCTHW, "b c (t p) (h q) (w r) -> b (t h w) (c p q r)", p=p, q=q, r=r)
        x_BSD = self.embed(patches.to(self.embed.weight.dtype))
        if self.coordinates is not None:
            x_BSD = x_BSD + self.coordinates(coordinates(grid, x_BSD))
        return x_BSD.flatten(0, 1)

    def _unpatchify(self, patches_SC: Tensor, grid: tuple[int, int, int]) -> Tensor:
        (t, h, w), (p, q, r) = grid, self.config.patch
        pattern = "(b t h w) (p q r c) -> b c (t p) (h q) (w r)"
        return rearrange(patches_SC, pattern, t=t, h=h, w=w, p=p, q=q, r=r)

    def _rope(self, grid: tuple[int, int, int], fps_B: Tensor | None, device: torch.device) -> Tensor:
        """Rotary table of one clip (S, 1, K/2), or of each clip in turn when they differ in frame rate."""
        config = self.config
        t, h, w = (torch.arange(n, device=device, dtype=torch.float32) for n in grid)
        if config.positions == "seconds":
            t = latent_times(grid[0] * config.patch[0], config.frame_stride, device)
            t = t.unflatten(0, (-1, config.patch[0])).mean(-1)
            if fps_B is not None:
                t = t * (config.base_fps / fps_B.float())[:, None]
            h, w = h - (grid[1] - 1) / 2, w - (grid[2] - 1) / 2
        axes = (t[..., None, None], h[:, None], w)
        return rotary_table(axes, config.width // config.heads, config.theta).flatten(0, -3)


def latent_times(frames: int, stride: int, device: torch.device) -> Tensor:
    """Middle of each latent frame in video frames over `stride`: the first holds one frame, the others `stride`."""
    index = torch.arange(frames, device=device, dtype=torch.float32)
    return (index - (stride - 1) / (2 * stride)).clamp_min(0.0)


def coordinates(grid: tuple[int, int, int], like: Tensor) -> Tensor:
    """Where each token of a clip is within its frame, (S, COORDINATES); the same for every size of the frame.

    RoPE shows tokens only their distances; these show where the frame ends and which latent frame is the first.
    """
    octaves = torch.tensor([0.5, 1.0, 2.0], device=like.device) * torch.pi
    waves = []
    for n in grid[1:]:
        place = (torch.arange(n, device=like.device) + 0.5) * (2 / n) - 1
        angle = place[:, None] * octaves
        waves.append(torch.cat((angle.sin(), angle.cos()), dim=-1))
    t, h, w = grid
    first = (torch.arange(t, device=like.device) == 0).to(like.dtype)
    parts = (
        waves[0].view(1, h, 1, -1).expand(t, h, w, -1),
        waves[1].view(1, 1, w, -1).expand(t, h, w, -1),
        first.view(t, 1, 1, 1).expand(t, h, w, 1),
    )
    return torch.cat(parts, dim=-1).flatten(0, 2).to(like.dtype)


# fmt: off
DIT_PRESETS: dict[str, DiTConfig] = {
    "tiny": DiTConfig(width=256, depth=8, heads=4, mlp_width=1024, text_width=192),
    "small": DiTConfig(width=384, depth=12, heads=6, mlp_width=1536, text_width=256),
    "base": DiTConfig(width=768, depth=16, heads=12, mlp_width=3072, text_width=512, theta=1000.0),
    "wan2.1-t2v-1.3b": DiTConfig(width=1536, depth=30, heads=12, mlp_width=8960, text_width=4096, positions="grid",
                                 theta=1e4, pooled_text=False, coordinates=False, zero_init=False),
    "wan2.2-ti2v-5b": DiTConfig(width=3072, depth=30, heads=24, mlp_width=14336, text_width=4096, channels=48,
                                positions="grid", theta=1e4, pooled_text=False, coordinates=False, zero_init=False),
    "wan2.1-t2v-14b": DiTConfig(width=5120, depth=40, heads=40, mlp_width=13824, text_width=4096, positions="grid",
                                theta=1e4, pooled_text=False, coordinates=False, zero_init=False),
}
# fmt: on
