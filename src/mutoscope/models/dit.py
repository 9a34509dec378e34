"""The diffusion transformer: from a noisy latent, its timesteps and a text to the prediction of the process.

The shape is Wan's (Wan Team 2025, arXiv 2503.20314): blocks of modulated self-attention, cross-attention to
the text and a modulated MLP; one timestep MLP for all blocks plus a small table per block. Our presets add
adaLN-Zero initialisation, the pooled text in the modulation, absolute coordinates, and positions in seconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mutoscope.errors import InputError
from mutoscope.models.final_convolution import FinalConvolution
from mutoscope.models.layers import (
    EPSILON,
    MLP,
    Attention,
    Layout,
    follow,
    gated_sum,
    join,
    lead,
    led,
    modulated_norm,
    plain_sum,
    rotary_table,
    sinusoid,
    split,
    xavier_init,
    zero_init,
)

Grid = tuple[int, int, int]  # tokens in time, height, width

COORDINATES = 13  # sine and cosine of three octaves for height and for width, and the mark of the first frame
PLACES = 64  # learned positions of an axis; tokens farther out share the last


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT.

    channels: of the latent, in and out. patch: latent frames, rows, columns of one token.
    text_width: D of the text embeddings it is given. frequency_width: of the sinusoid of the timestep.
    positions: "seconds" puts latent frames at their time in seconds x base_fps / frame_stride and centres
        rows and columns; "grid" counts tokens from 0 (Wan); "learned" adds a vector for each time, row and
        column to the tokens and rotates nothing.
    theta: RoPE's longest wavelength over 2 pi, in tokens.
    pooled_text: add the mean of the text to the modulation.
    coordinates: add absolute coordinates to the tokens. gelu: of the MLPs, "none" is the exact form.
    zero_init: adaLN-Zero, every block starts as the identity and the prediction as zero.
    modulation: how timestep and pooled text come in. "gated" is a shift, a scale and a gate of every branch; "plain"
        has no gates (adaLN); "in_context" has none of them: one more token in front of every latent frame (DiT's
        table 4 compares the three).
    final_hidden: channels of the convolution behind the head (final_convolution.py), 0 for none.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    text_width: int
    channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    frequency_width: int = 256
    positions: Literal["seconds", "grid", "learned"] = "seconds"
    theta: float = 100.0
    base_fps: float = 8.0
    frame_stride: int = 4
    pooled_text: bool = True
    coordinates: bool = True
    gelu: Literal["none", "tanh"] = "none"
    zero_init: bool = True
    modulation: Literal["gated", "plain", "in_context"] = "gated"
    final_hidden: int = 0

    def __post_init__(self) -> None:
        heads = self.heads
        if heads < 1 or self.width % heads or (self.width // heads) % 2 or self.width // heads < 6:
            raise InputError(
                f"A DiT of width {self.width} cannot have {self.heads} heads: each head needs an even "
                "width of 6 or more; choose heads = width / 64."
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
        self.mlp = MLP(width, config.mlp_width, width, config.gelu)
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)
        if config.zero_init:
            xavier_init(self)
            nn.init.zeros_(self.table)
            zero_init(self.text_attention.out)  # the one branch without a gate

    def forward(
        self,
        x_SD: Tensor,
        modulation_F6D: Tensor,
        layout: Layout,
        rope: Tensor,
        key_SD: Tensor,
        value_SD: Tensor,
        text_layout: Layout,
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation_F6D + self.table).unbind(1)
        y = modulated_norm(x_SD, shift1, scale1, layout)
        y = self.attention(y, *self.attention.keys_values(y, rope), layout, layout, rope)
        x = gated_sum(x_SD, y, gate1, layout)
        y = self.text_attention(self.text_norm(x), key_SD, value_SD, layout, text_layout)
        x = plain_sum(x, y)
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
        outs = {"gated": 6, "plain": 4, "in_context": 0}[config.modulation]
        self.modulation = nn.Linear(width, outs * width) if outs else None
        self.text = MLP(config.text_width, width, width, config.gelu)
        self.pooled = MLP(config.text_width, width, width, config.gelu) if config.pooled_text else None
        self.fps = nn.Parameter(torch.zeros(width)) if config.positions == "seconds" else None
        self.coordinates = nn.Linear(COORDINATES, width, bias=False) if config.coordinates else None
        learned = config.positions == "learned"
        self.places = nn.Parameter(0.02 * torch.randn(3, PLACES, width)) if learned else None
        self.table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.head = nn.Linear(width, values)
        if config.zero_init:
            self._zero_init()
        hidden = config.final_hidden
        self.final = FinalConvolution(config.channels, hidden, width) if hidden else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))

    def _zero_init(self) -> None:
        """Every gate and the prediction start at zero (adaLN-Zero); `Block` does its own part."""
        xavier_init(self)
        for linear in (self.time_in, self.time_out, self.modulation):
            if linear is not None:
                nn.init.normal_(linear.weight, std=0.02)
        if self.modulation is not None and self.config.modulation == "gated":
            with torch.no_grad():
                self.modulation.weight.view(6, self.config.width, -1)[[2, 5]] = 0.0
        nn.init.zeros_(self.table)
        zero_init(self.head)

    def forward(
        self,
        latent_BCTHW: Tensor,
        timestep: Tensor,
        text: Tensor | TextCache,
        text_mask_BL: Tensor | None = None,
        fps_B: Tensor | None = None,
    ) -> Tensor:
        """Prediction, shaped like the latent.

        timestep: in [0, 1000], per clip (B,) or per latent frame (B, T).
        text: embeddings (B, L, D) with a mask that is true on real tokens, or the cache of them.
        fps_B: frame rate of the video, default `base_fps`.
        Raises InputError when the latent does not fit the patch or the channels.
        """
        batch, grid = len(latent_BCTHW), self._grid(latent_BCTHW)
        if self.modulation is None and timestep.ndim == 1:
            timestep = timestep[:, None].expand(-1, latent_BCTHW.shape[2])  # a token in front of every frame
        tokens, rows = grid[0] * grid[1] * grid[2], grid[0] if timestep.ndim == 2 else 1
        layout = Layout(((batch, tokens),), (None,), ((batch * rows, tokens // rows),))
        cache = text if isinstance(text, TextCache) else self.cache_text(text, text_mask_BL)
        timestep_F = self._per_token(timestep).flatten() if timestep.ndim == 2 else timestep
        clip_F = torch.arange(batch, device=timestep.device).repeat_interleave(rows)
        x_SD = self._embed([latent_BCTHW], [grid])
        rope = self._rope(grid, fps_B, x_SD.device)
        condition_FD = self._condition(timestep_F, clip_F, cache, fps_B)
        patches_SC = self._run(x_SD, condition_FD, layout, rope, cache)
        return self._prediction(patches_SC, latent_BCTHW, condition_FD)

    def forward_packed(
        self,
        latents: Sequence[Tensor],
        timesteps: Sequence[Tensor],
        texts: Sequence[Tensor],
        fps_B: Tensor | None = None,
    ) -> list[Tensor]:
        """Predictions for clips of unequal sizes, each equal to its own `forward`, without padding.

        latents: (C, T, H, W) each. timesteps: (T,) each. texts: (L, D) each, without padding.
        All tokens lie in one row; clips of equal size are neighbours and attend as one batch.
        """
        shapes = sorted({tuple(latent.shape) for latent in latents})
        members = [
            [i for i, latent in enumerate(latents) if tuple(latent.shape) == shape] for shape in shapes
        ]
        order = [i for group in members for i in group]
        stacks = [torch.stack([latents[i] for i in group]) for group in members]
        grids = [self._grid(stack) for stack in stacks]
        sizes = [(len(group), *grid) for group, grid in zip(members, grids, strict=True)]
        layout = Layout(
            groups=tuple((n, t * h * w) for n, t, h, w in sizes),
            masks=(None,) * len(sizes),
            spans=tuple((n * t, h * w) for n, t, h, w in sizes),
        )
        cache = self._cache([[texts[i] for i in group] for group in members])
        timestep_F = torch.cat([self._per_token(timesteps[i][None])[0] for i in order])
        clip_F = _owners([t for n, t, _, _ in sizes for _ in range(n)], timestep_F.device)
        fps_B = None if fps_B is None else fps_B[order]
        ropes = self._ropes([grid for n, *grid in sizes for _ in range(n)], fps_B, latents[0].device)
        x_SD = self._embed(stacks, grids)
        condition_FD = self._condition(timestep_F, clip_F, cache, fps_B)
        patches_SC = self._run(x_SD, condition_FD, layout, torch.cat(ropes), cache)
        clips: list[Tensor] = []
        conditions = torch.split(condition_FD, [rows for rows, _ in layout.spans])
        for part, stack, part_FD in zip(split(patches_SC, layout.groups), stacks, conditions, strict=True):
            clips.extend(self._prediction(part.flatten(0, 1), stack, part_FD))
        return [clips[order.index(i)] for i in range(len(latents))]

    def forward_padded(
        self,
        latents: Sequence[Tensor],
        timesteps: Sequence[Tensor],
        texts: Sequence[Tensor],
        fps_B: Tensor | None = None,
    ) -> list[Tensor]:
        """As `forward_packed`, by padding all clips to the longest and masking: the reference.

        Raises InputError for conditions in context, whose tokens have no place in the padding.
        """
        if self.modulation is None:
            raise InputError('A DiT with modulation "in_context" has no padded form: use "packed".')
        grids = [self._grid(latent[None]) for latent in latents]
        lengths = [t * h * w for t, h, w in grids]
        longest, device = max(lengths), latents[0].device
        real_BS = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
        spans = [((t, h * w), (1, longest - t * h * w)) for t, h, w in grids]  # each clip, then its padding
        layout = Layout(
            groups=((len(latents), longest),),
            masks=(real_BS[:, None, None, :],),
            spans=tuple(span for pair in spans for span in pair),
        )
        cache = self._cache([list(texts)])
        timestep_F = torch.cat([F.pad(self._per_token(each[None])[0], (0, 1)) for each in timesteps])
        clip_F = _owners([t + 1 for t, _, _ in grids], timestep_F.device)
        ropes = self._ropes(grids, fps_B, device)
        rope = pad_sequence(ropes, batch_first=True).flatten(0, 1)
        rows = torch.split(self._embed([latent[None] for latent in latents], grids), lengths)
        x_SD = pad_sequence(list(rows), batch_first=True).flatten(0, 1)
        condition_FD = self._condition(timestep_F, clip_F, cache, fps_B)
        patches_SC = self._run(x_SD, condition_FD, layout, rope, cache)
        conditions = torch.split(condition_FD, [t + 1 for t, _, _ in grids])
        clips = zip(split(patches_SC, layout.groups)[0], lengths, latents, conditions, strict=True)
        return [
            self._prediction(row_SC[:n], latent[None], part_FD[:-1])[0]
            for row_SC, n, latent, part_FD in clips
        ]

    def cache_text(self, text_BLD: Tensor, mask_BL: Tensor | None = None) -> TextCache:
        """Keys and values of all blocks and the pooled text; pass it to `forward` in place of the text."""
        batch, length, _ = text_BLD.shape
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        return self._project(text_BLD.flatten(0, 1), Layout(((batch, length),), (mask,)))

    def _cache(self, groups: Sequence[Sequence[Tensor]]) -> TextCache:
        """The cache of texts (L, D) of unequal lengths, padded within each group only."""
        rows, runs, masks = [], [], []
        for texts in groups:
            lengths = torch.tensor([len(text) for text in texts])
            longest = int(lengths.max())
            rows.append(pad_sequence(list(texts), batch_first=True).flatten(0, 1))
            runs.append((len(texts), longest))
            mask_BL = (torch.arange(longest) < lengths[:, None]).to(texts[0].device)
            masks.append(None if int(lengths.min()) == longest else mask_BL[:, None, None, :])
        return self._project(torch.cat(rows), Layout(tuple(runs), tuple(masks)))

    def _project(self, text_LD: Tensor, layout: Layout) -> TextCache:
        text_SD = self.text(text_LD.to(self.embed.weight.dtype))
        pairs = [block.text_attention.keys_values(text_SD) for block in self._blocks()]
        keys, values = zip(*pairs, strict=True)
        return TextCache(keys, values, self._pool(text_LD, layout), layout)

    def _pool(self, text_LD: Tensor, layout: Layout) -> Tensor | None:
        """Mean of the real text tokens of each clip, through an MLP."""
        if self.pooled is None:
            return None
        means = []
        for part_BLD, mask in zip(split(text_LD, layout.groups), layout.masks, strict=True):
            if mask is None:
                means.append(part_BLD.mean(1))
            else:
                real_BL1 = mask[:, 0, 0, :, None].to(part_BLD.dtype)
                means.append((part_BLD * real_BL1).sum(1) / real_BL1.sum(1))
        pooled_BD: Tensor = self.pooled(torch.cat(means).to(self.embed.weight.dtype))
        return pooled_BD

    def _condition(self, timestep_F: Tensor, clip_F: Tensor, text: TextCache, fps_B: Tensor | None) -> Tensor:
        """What every modulation is computed from: timestep, pooled text, frame rate of each row."""
        wave_FD = sinusoid(timestep_F, self.config.frequency_width).to(self.embed.weight.dtype)
        condition_FD: Tensor = self.time_out(F.silu(self.time_in(wave_FD)))
        if text.pooled_BD is not None:
            condition_FD = condition_FD + text.pooled_BD[clip_F]
        if fps_B is not None and self.fps is not None:
            octaves_F1 = torch.log2(fps_B.float() / self.config.base_fps)[clip_F, None]
            condition_FD = condition_FD + octaves_F1.to(self.fps.dtype) * self.fps
        return condition_FD

    def _run(
        self, x_SD: Tensor, condition_FD: Tensor, layout: Layout, rope: Tensor, text: TextCache
    ) -> Tensor:
        """The blocks and the head, on a row of any layout: (S, values of a patch)."""
        clips = layout
        if self.modulation is None:
            x_SD, rope, layout = in_context(x_SD, condition_FD, rope, layout)
            condition_FD = torch.zeros_like(condition_FD)
        modulation_F6D = self._modulate(condition_FD)
        for block, key_SD, value_SD in zip(self._blocks(), text.keys, text.values, strict=True):
            x_SD = block(x_SD, modulation_F6D, layout, rope, key_SD, value_SD, text.layout)
        shift_FD, scale_FD = (condition_FD[:, None] + self.table).unbind(1)
        x_SD = modulated_norm(x_SD, shift_FD, scale_FD, layout)
        patches_SC: Tensor = self.head(x_SD if self.modulation is not None else follow(x_SD, clips))
        return patches_SC

    def _modulate(self, condition_FD: Tensor) -> Tensor:
        """Shift, scale and gate of both branches of a block; gates are one where the modulation has none."""
        if self.modulation is None:
            told_FD = condition_FD.repeat(1, 4)  # of zeros
        else:
            told_FD = self.modulation(F.silu(condition_FD))
        if self.config.modulation == "gated":
            return told_FD.view(-1, 6, self.config.width)
        first_F2D, second_F2D = told_FD.view(-1, 4, self.config.width).chunk(2, dim=1)
        open_F1D = torch.ones_like(first_F2D[:, :1])
        return torch.cat((first_F2D, open_F1D, second_F2D, open_F1D), dim=1)

    def _blocks(self) -> Iterable[Block]:
        return cast(Iterable[Block], self.blocks)

    def _grid(self, latent_BCTHW: Tensor) -> Grid:
        _, channels, *extent = latent_BCTHW.shape
        (t, h, w), (p, q, r) = extent, self.config.patch
        if channels != self.config.channels or t % p or h % q or w % r:
            raise InputError(
                f"A latent of {channels} x {t} x {h} x {w} does not fit this DiT: it takes "
                f"{self.config.channels} channels and multiples of {self.config.patch} in T, H, W."
            )
        return t // p, h // q, w // r

    def _per_token(self, timestep_BT: Tensor) -> Tensor:
        """A token that spans several latent frames takes the noisiest of their timesteps."""
        return timestep_BT.view(len(timestep_BT), -1, self.config.patch[0]).amax(-1)

    def _embed(self, stacks: Sequence[Tensor], grids: Sequence[Grid]) -> Tensor:
        """Row of embedded patches of batches (B, C, T, H, W) of clips of one size each."""
        p, q, r = self.config.patch
        pattern = "b c (t p) (h q) (w r) -> b (t h w) (c p q r)"
        patches = [rearrange(stack, pattern, p=p, q=q, r=r).to(self.embed.weight.dtype) for stack in stacks]
        x_SD: Tensor = self.embed(join(patches)).to(self.embed.weight.dtype)  # the blocks add up in this type
        if self.coordinates is None and self.places is None:
            return x_SD
        parts = split(x_SD, [(len(part), part.shape[1]) for part in patches])
        for add in (self._coordinates, self._places):
            parts = [add(part, grid) for part, grid in zip(parts, grids, strict=True)]
        return join(parts)

    def _coordinates(self, tokens_BSD: Tensor, grid: Grid) -> Tensor:
        if self.coordinates is None:
            return tokens_BSD
        place_SD: Tensor = self.coordinates(coordinates(grid, tokens_BSD))
        return tokens_BSD + place_SD

    def _places(self, tokens_BSD: Tensor, grid: Grid) -> Tensor:
        if self.places is None:
            return tokens_BSD
        rows = [table[torch.arange(n).clamp_max(PLACES - 1)] for table, n in zip(self.places, grid)]
        place_THWD: Tensor = rows[0][:, None, None] + rows[1][:, None] + rows[2]
        return tokens_BSD + place_THWD.flatten(0, 2).to(tokens_BSD.dtype)

    def _prediction(self, patches_SC: Tensor, latent_BCTHW: Tensor, condition_FD: Tensor) -> Tensor:
        """The prediction for clips of one size from their patches; a row of the condition per clip or token frame."""
        prediction_BCTHW = self._unpatchify(patches_SC, self._grid(latent_BCTHW))
        if self.final is not None:
            if len(condition_FD) > len(latent_BCTHW):
                condition_FD = condition_FD.repeat_interleave(self.config.patch[0], dim=0)
            prediction_BCTHW = self.final(prediction_BCTHW, latent_BCTHW, condition_FD)
        return prediction_BCTHW.to(latent_BCTHW.dtype)

    def _unpatchify(self, patches_SC: Tensor, grid: Grid) -> Tensor:
        (t, h, w), (p, q, r) = grid, self.config.patch
        pattern = "(b t h w) (p q r c) -> b c (t p) (h q) (w r)"
        return rearrange(patches_SC, pattern, t=t, h=h, w=w, p=p, q=q, r=r)

    def _rope(self, grid: Grid, fps_B: Tensor | None, device: torch.device) -> Tensor:
        """Rotary table of one clip (S, 1, K/2, 2), or of each clip in turn when frame rates are given."""
        config = self.config
        t, h, w = (torch.arange(n, device=device, dtype=torch.float32) for n in grid)
        if config.positions == "seconds":
            t = latent_times(grid[0] * config.patch[0], config.frame_stride, device)
            t = t.view(grid[0], -1).mean(-1)
            if fps_B is not None:
                t = t * (config.base_fps / fps_B.float())[:, None]
            h, w = h - (grid[1] - 1) / 2, w - (grid[2] - 1) / 2
        if config.positions == "learned":
            t, h, w = 0 * t, 0 * h, 0 * w
        axes = (t[..., None, None], h[:, None], w)
        table = rotary_table(axes, config.width // config.heads, config.theta).flatten(0, -4)
        return table.clone()  # of a view, compiled blocks would also keep the shape that it was cut from

    def _ropes(
        self, grids: Sequence[Sequence[int]], fps_B: Tensor | None, device: torch.device
    ) -> list[Tensor]:
        """Rotary table of each clip."""
        rates = [None] * len(grids) if fps_B is None else list(fps_B[:, None])
        return [self._rope((t, h, w), fps, device) for (t, h, w), fps in zip(grids, rates, strict=True)]


def _owners(rows: Sequence[int], device: torch.device) -> Tensor:
    """Index of the clip that each row of modulation belongs to."""
    return torch.tensor([clip for clip, count in enumerate(rows) for _ in range(count)], device=device)


def in_context(
    x_SD: Tensor, condition_FD: Tensor, rope: Tensor, layout: Layout
) -> tuple[Tensor, Tensor, Layout]:
    """Tokens, rotary table and layout with the conditions in front of their frames, each where its first token is."""
    turns_SR = rope.repeat(len(x_SD) // len(rope), 1, 1, 1).flatten(1)
    corners_FR = torch.cat([part[:, 0] for part in split(turns_SR, layout.spans)])
    longer = lead(turns_SR, corners_FR, layout).view(-1, *rope.shape[1:])
    return lead(x_SD, condition_FD, layout), longer, led(layout)


def latent_times(frames: int, stride: int, device: torch.device) -> Tensor:
    """Middle of each latent frame, in units of `stride` video frames; the first holds one frame."""
    index = torch.arange(frames, device=device, dtype=torch.float32)
    return (index - (stride - 1) / (2 * stride)).clamp_min(0.0)


def coordinates(grid: Grid, like: Tensor) -> Tensor:
    """Where each token is within its frame, (S, COORDINATES); the edges have equal values at every size.

    RoPE shows tokens their distances only; these show where the frame ends and which latent frame is first.
    """
    octaves = torch.tensor([0.5, 1.0, 2.0], device=like.device) * torch.pi
    waves = []
    for n in grid[1:]:
        place = (torch.arange(n, device=like.device) + 0.5) * (2 / n) - 1
        angle = place[:, None] * octaves
        waves.append(torch.cat((angle.sin(), angle.cos()), dim=-1))
    t, h, w = grid
    first = (torch.arange(t, device=like.device) == 0).float()
    parts = (
        waves[0].view(1, h, 1, -1).expand(t, h, w, -1),
        waves[1].view(1, 1, w, -1).expand(t, h, w, -1),
        first.view(t, 1, 1, 1).expand(t, h, w, 1),
    )
    return torch.cat(parts, dim=-1).flatten(0, 2).to(like.dtype)


def _wan(width: int, depth: int, heads: int, mlp_width: int, channels: int = 16) -> DiTConfig:
    return DiTConfig(
        width=width,
        depth=depth,
        heads=heads,
        mlp_width=mlp_width,
        text_width=4096,
        channels=channels,
        positions="grid",
        theta=1e4,
        pooled_text=False,
        coordinates=False,
        gelu="tanh",
        zero_init=False,
    )


DIT_PRESETS: dict[str, DiTConfig] = {
    "tiny": DiTConfig(width=256, depth=8, heads=4, mlp_width=1024, text_width=192),
    "small": DiTConfig(width=384, depth=12, heads=6, mlp_width=1536, text_width=256),
    "base": DiTConfig(width=768, depth=16, heads=12, mlp_width=3072, text_width=512, theta=1000.0),
    "wan2.1-t2v-1.3b": _wan(width=1536, depth=30, heads=12, mlp_width=8960),
    "wan2.2-ti2v-5b": _wan(width=3072, depth=30, heads=24, mlp_width=14336, channels=48),
    "wan2.1-t2v-14b": _wan(width=5120, depth=40, heads=40, mlp_width=13824),
}
