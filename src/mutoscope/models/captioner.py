"""The captioner: video latents of any size and length to a short, a medium or a detailed caption.

A spacetime encoder reads patches of the latent with rotary positions in time, height and width; a causal decoder
writes the caption with cross-attention to them, one token at a time over a cache of keys and values. The kind of
caption is its first token. (The plan is that of Vaswani et al. 2017, with the attention of our DiT.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from einops import rearrange
from tokenizers import Tokenizer
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models.layers import EPSILON, MLP, Attention, Layout, rotary_table, xavier_init
from mutoscope.models.text import PAD, TextBlock, TextConfig

Length = Literal["short", "medium", "detailed"]
LENGTHS: tuple[Length, ...] = get_args(Length)

COORDINATES = (
    11  # height and width, a sine and a cosine of two octaves of each, and the mark of the first frame
)
PENALTY = 0.7  # beams are compared by log-probability / tokens ** PENALTY (Wu et al. 2016, without their 5)


@dataclass(frozen=True)
class WriterConfig:
    """Sizes of what reads something and writes a caption.

    vocab: of the tokenizer; the kinds and the end of a caption have rows of their own. max_tokens: a caption ends
    there. theta: as in the DiT.
    """

    width: int = 144
    heads: int = 4
    encoder_depth: int = 3
    decoder_depth: int = 3
    vocab: int = 1024
    max_tokens: int = 192
    theta: float = 100.0


@dataclass(frozen=True)
class CaptionerConfig(WriterConfig):
    """Sizes of a captioner. channels: of the latent. patch: latent frames, rows, columns of one token."""

    channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)


@dataclass(frozen=True)
class Seen:
    """What the decoder knows of B clips: keys and values (B S, D) for each of its blocks, and their layout."""

    keys_values: tuple[tuple[Tensor, Tensor], ...]
    layout: Layout


@dataclass
class Past:
    """Keys and values (rows, tokens so far, D) of each block of the decoder."""

    keys_values: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def extended(self, block: int, key_SD: Tensor, value_SD: Tensor) -> tuple[Tensor, Tensor]:
        """Take in the newest token of each row; returns all of them as one row each, (rows tokens, D)."""
        new = (key_SD[:, None], value_SD[:, None])
        if block == len(self.keys_values):
            self.keys_values.append(new)
        else:
            key, value = self.keys_values[block]
            self.keys_values[block] = torch.cat((key, new[0]), 1), torch.cat((value, new[1]), 1)
        key, value = self.keys_values[block]
        return key.flatten(0, 1), value.flatten(0, 1)

    def follow(self, parents: Tensor) -> None:
        """Let row i go on from what row `parents[i]` was."""
        self.keys_values = [(key[parents], value[parents]) for key, value in self.keys_values]


class DecoderBlock(nn.Module):
    """Pre-norm causal attention, cross-attention to the video, MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.attention = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width, eps=EPSILON)
        self.cross = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = MLP(width, 4 * width, width)

    def attend(self, x_SD: Tensor, rope: Tensor, layout: Layout) -> Tensor:
        """Whole captions, whose layout holds the causal mask."""
        y = self.norm(x_SD)
        out_SD: Tensor = x_SD + self.attention(y, *self.attention.keys_values(y, rope), layout, layout, rope)
        return out_SD

    def attend_to_past(self, x_SD: Tensor, rope: Tensor, past: Past, block: int) -> Tensor:
        """The newest token of each row; the past takes it in."""
        y = self.norm(x_SD)
        key_SD, value_SD = past.extended(block, *self.attention.keys_values(y, rope))
        rows = len(x_SD)
        layout, key_layout = Layout(((rows, 1),), (None,)), Layout(((rows, len(key_SD) // rows),), (None,))
        out_SD: Tensor = x_SD + self.attention(y, key_SD, value_SD, layout, key_layout, rope)
        return out_SD

    def look(self, x_SD: Tensor, seen: Seen, block: int) -> Tensor:
        """What follows attention; every clip of `seen` has as many rows."""
        clips = seen.layout.groups[0][0]
        layout = Layout(((clips, len(x_SD) // clips),), (None,))
        x = x_SD + self.cross(self.cross_norm(x_SD), *seen.keys_values[block], layout, seen.layout)
        out_SD: Tensor = x + self.mlp(self.mlp_norm(x))
        return out_SD


class Writer(nn.Module):
    """A causal decoder of captions. Ids from `vocab` on: the three kinds, then the end of a caption.

    Whoever inherits it makes the modules and says with `see` what is read. (They are made there, because the order in
    which modules are made decides their first weights.)
    """

    config: WriterConfig
    embed: nn.Embedding  # also what logits are made with
    decoder: nn.ModuleList
    norm: nn.LayerNorm

    @property
    def end(self) -> int:
        """The id that ends a caption."""
        return self.config.vocab + len(LENGTHS)

    def start(self, kind: Length) -> int:
        """The id that begins a caption of a kind."""
        return self.config.vocab + LENGTHS.index(kind)

    def see(self, source: Tensor) -> Seen:
        """Read what the captions are to be of."""
        raise NotImplementedError

    def forward(self, source: Tensor, ids_BL: Tensor) -> Tensor:
        """Logits (B, L, ids) of the token after each of `ids_BL`, whose first is a kind. Padding goes last."""
        seen, (batch, length) = self.see(source), ids_BL.shape
        causal = torch.ones(length, length, dtype=torch.bool, device=ids_BL.device).tril()[None, None]
        layout = Layout(((batch, length),), (causal,))
        rope = self._rope([torch.arange(length, device=ids_BL.device)])
        x_SD = self.embed(ids_BL).flatten(0, 1)
        for i, block in enumerate(self._blocks):
            x_SD = block.look(block.attend(x_SD, rope, layout), seen, i)
        return self._logits(x_SD).view(batch, length, -1)

    def next(self, ids_R: Tensor, position: int, past: Past, seen: Seen) -> Tensor:
        """Logits (R, ids) after one more token for each of R rows; R is a multiple of the clips seen."""
        rope = self._rope([torch.arange(position, position + 1, device=ids_R.device)])
        x_RD = self.embed(ids_R)
        for i, block in enumerate(self._blocks):
            x_RD = block.look(block.attend_to_past(x_RD, rope, past, i), seen, i)
        return self._logits(x_RD)

    @property
    def _blocks(self) -> list[DecoderBlock]:
        return [block for block in self.decoder if isinstance(block, DecoderBlock)]

    def _rope(self, positions: Sequence[Tensor]) -> Tensor:
        """Rotary table (tokens, 1, K/2, 2) of a grid with one tensor of positions per axis."""
        grid = torch.meshgrid(*(axis.float() for axis in positions), indexing="ij")
        table = rotary_table(grid, self.config.width // self.config.heads, self.config.theta)
        return table.flatten(0, len(positions) - 1)

    def _logits(self, x_SD: Tensor) -> Tensor:
        return nn.functional.linear(self.norm(x_SD), self.embed.weight)


class Captioner(Writer):
    """Latents to the logits of captions."""

    config: CaptionerConfig

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        width, values = config.width, config.channels * math.prod(config.patch)
        block = TextConfig(width=width, heads=config.heads)
        self.look_in = nn.Linear(values + COORDINATES, width)
        self.encoder = nn.ModuleList(TextBlock(block) for _ in range(config.encoder_depth))
        self.seen_norm = nn.LayerNorm(width, eps=EPSILON)
        self.embed = nn.Embedding(config.vocab + len(LENGTHS) + 1, width)
        self.decoder = nn.ModuleList(DecoderBlock(width, config.heads) for _ in range(config.decoder_depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        xavier_init(self)
        nn.init.normal_(self.embed.weight, std=width**-0.5)

    def see(self, source: Tensor) -> Seen:
        """Read the latents (B, C, T, H, W) of clips of one size.

        Raises InputError when they do not fit the patch or the channels.
        """
        p, q, r = self.config.patch
        batch, channels, *extent = source.shape
        if channels != self.config.channels or any(n % m for n, m in zip(extent, self.config.patch)):
            raise InputError(
                f"A latent of {tuple(source.shape)} does not fit this captioner: it takes "
                f"{self.config.channels} channels and multiples of {self.config.patch} in T, H, W."
            )
        pattern = "b c (t p) (h q) (w r) -> b t h w (p q r c)"
        patches = rearrange(source.to(self.look_in.weight.dtype), pattern, p=p, q=q, r=r)
        grid = patches.shape[1:4]
        where = coordinates(grid, patches.device).to(patches.dtype).expand(batch, -1, -1, -1, -1)
        x_SD = self.look_in(torch.cat((patches, where), -1)).flatten(0, 3)
        layout = Layout(((batch, math.prod(grid)),), (None,))
        rope = self._rope([axis - (len(axis) - 1) / 2 for axis in axes(grid, patches.device)])
        for block in self.encoder:
            x_SD = block(x_SD, layout, rope)
        y_SD = self.seen_norm(x_SD)
        return Seen(tuple(block.cross.keys_values(y_SD) for block in self._blocks), layout)


def axes(grid: Sequence[int], device: torch.device) -> list[Tensor]:
    """The indices along each axis of a grid."""
    return [torch.arange(count, device=device, dtype=torch.float32) for count in grid]


def coordinates(grid: Sequence[int], device: torch.device) -> Tensor:
    """Where each token lies, (T, H, W, COORDINATES): rotary positions tell only where tokens lie to each other.

    Height and width run from -1 to 1 along the shorter side, as the stage does.
    """
    t, *sides = torch.meshgrid(*axes(grid, device), indexing="ij")
    shorter = min(grid[1:])
    rows = [(t == 0).float()]
    for side, count in zip(sides, grid[1:]):
        place = (2 * side + 1 - count) / shorter
        angles = (place * math.pi / 2, place * math.pi)
        rows += [place, *(angle.sin() for angle in angles), *(angle.cos() for angle in angles)]
    return torch.stack(rows, -1)


@dataclass(frozen=True)
class Narrator:
    """Latents to captions in words."""

    tokenizer: Tokenizer
    captioner: Captioner

    def __post_init__(self) -> None:
        self.tokenizer.encode_special_tokens = True
        if self.tokenizer.get_vocab_size() > self.captioner.config.vocab:
            raise InputError(
                f"A tokenizer of {self.tokenizer.get_vocab_size()} tokens needs a captioner that knows as "
                f"many, this one knows {self.captioner.config.vocab}; take both from the same model."
            )

    def __call__(
        self,
        latent_BCTHW: Tensor,
        kind: Length = "detailed",
        beams: int = 1,
        seeds: Sequence[int] | None = None,
        temperature: float = 0.7,
    ) -> list[str]:
        """One caption per clip; see `write` for the ways to search."""
        written = write(self.captioner, latent_BCTHW, kind, beams, seeds, temperature)
        texts = [str(self.tokenizer.decode(ids)).strip() for ids in written]
        return [text if kind == "short" else sentences(text) for text in texts]

    @torch.inference_mode()
    def agreement(self, latent_BCTHW: Tensor, texts: Sequence[str]) -> Tensor:
        """How well each clip shows what its text says, (B,): the log-probability that the text is its caption, in nats.

        To be compared between clips of one text. The kind of caption is unknown: all are as likely.
        """
        likely_KB = torch.stack([self._likely(latent_BCTHW, texts, kind) for kind in LENGTHS])
        return likely_KB.logsumexp(0) - math.log(len(LENGTHS))

    def _likely(self, latent_BCTHW: Tensor, texts: Sequence[str], kind: Length) -> Tensor:
        """Log-probability (B,) of each text among the captions of its kind."""
        ids_BL = self.tokens(texts, [kind] * len(texts)).to(latent_BCTHW.device)
        logits_BLV = self.captioner(latent_BCTHW, ids_BL[:, :-1])
        chance_BLV, next_BL = logits_BLV.float().log_softmax(-1), ids_BL[:, 1:]
        chance_BL = chance_BLV.gather(-1, next_BL[..., None])[..., 0]
        likely_B: Tensor = chance_BL.masked_fill(next_BL == PAD, 0.0).sum(1)
        return likely_B

    def tokens(self, captions: Sequence[str], kinds: Sequence[Length]) -> Tensor:
        """Ids (B, L) of captions with their kind before and the end behind them, PAD after that."""
        return token_rows(self.tokenizer, self.captioner, captions, kinds)


def token_rows(
    tokenizer: Tokenizer, writer: Writer, captions: Sequence[str], kinds: Sequence[Length]
) -> Tensor:
    """Ids (B, L) of captions with their kind before and the end behind them, PAD after that."""
    encoded = tokenizer.encode_batch(list(captions), add_special_tokens=False)
    room, end = writer.config.max_tokens, writer.end
    rows = [
        [writer.start(kind), *encoding.ids[:room], *([end] if len(encoding.ids) < room else [])]
        for kind, encoding in zip(kinds, encoded, strict=True)
    ]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def sentences(text: str) -> str:
    """The text with a capital at the start of every sentence; our tokenizer knows small letters only."""
    return ". ".join(part[:1].upper() + part[1:] for part in text.split(". "))


@torch.inference_mode()
def write(
    writer: Writer,
    source: Tensor,
    kind: Length = "detailed",
    beams: int = 1,
    seeds: Sequence[int] | None = None,
    temperature: float = 0.7,
) -> list[list[int]]:
    """Ids of one caption per clip (or of whatever the writer reads), without kind and end.

    beams: 1 takes the likeliest token each time, more keep as many candidates (beam search). seeds: one per clip; then
    tokens are drawn at `temperature` instead, so that wording and order vary; a clip's draw does not depend on the
    others. Raises InputError for beams below 1 and for beams together with seeds.
    """
    if beams < 1 or (seeds is not None and beams > 1):
        raise InputError(f"beams is {beams}: give 1 or more, and 1 when captions are drawn with seeds.")
    clips, device = len(source), source.device
    seen, past = writer.see(source), Past()
    draws = [torch.Generator().manual_seed(seed) for seed in seeds or ()]
    ids_R = torch.full((clips * beams,), writer.start(kind), device=device)
    texts_RL = ids_R.new_empty(clips * beams, 0)
    score_BK = torch.full((clips, beams), -torch.inf, device=device)
    score_BK[:, 0] = 0  # the first step chooses among the continuations of one candidate
    done_R = torch.zeros(clips * beams, dtype=torch.bool, device=device)
    first_B1 = torch.arange(clips, device=device)[:, None] * beams
    for position in range(writer.config.max_tokens):
        chance_RV = _chances(writer, writer.next(ids_R, position, past, seen), done_R)
        if draws:
            chance_RV = chance_RV / temperature + _gumbel(draws, chance_RV.shape[1]).to(device)
        total_BKV = score_BK[..., None] * (not draws) + chance_RV.view(clips, beams, -1)
        score_BK, pick_BK = total_BKV.flatten(1).topk(beams)
        parent_R = (first_B1 + pick_BK // chance_RV.shape[1]).flatten()
        ids_R = (pick_BK % chance_RV.shape[1]).flatten()
        if beams > 1:
            past.follow(parent_R)
        texts_RL = torch.cat((texts_RL[parent_R], ids_R[:, None]), 1)
        done_R = done_R[parent_R] | (ids_R == writer.end)
        if done_R.all():
            break
    length_BK = (texts_RL != writer.end).sum(1).view(clips, beams) + 1
    best_B1 = first_B1 + (score_BK / length_BK**PENALTY).argmax(1, keepdim=True)
    return [[i for i in row if i != writer.end] for row in texts_RL[best_B1.flatten()].tolist()]


def _chances(writer: Writer, logits_RV: Tensor, done_R: Tensor) -> Tensor:
    """Log-probabilities of the next token; nothing but the end follows an end, and no kind or padding ever comes."""
    logits_RV = logits_RV.float()
    logits_RV[:, [PAD, *map(writer.start, LENGTHS)]] = -torch.inf
    chance_RV = logits_RV.log_softmax(-1)
    chance_RV[done_R] = -torch.inf
    chance_RV[done_R, writer.end] = 0
    return chance_RV


def _gumbel(draws: Sequence[torch.Generator], count: int) -> Tensor:
    """Noise that turns the largest log-probability into a draw, one row per generator."""
    uniform = torch.stack([torch.rand(count, generator=draw) for draw in draws])
    return -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log()


CAPTIONER_PRESETS: dict[str, CaptionerConfig] = {
    "tiny": CaptionerConfig(),
    "small": CaptionerConfig(width=256, encoder_depth=4, decoder_depth=4, vocab=2048),
    "base": CaptionerConfig(width=512, heads=8, encoder_depth=6, decoder_depth=6, vocab=4096, max_tokens=256),
}
