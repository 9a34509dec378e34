"""What the transformers share: a row of tokens and how it falls into clips, rotary positions, attention, modulation.

All tokens of a batch lie in one row, whatever clips they belong to. Linear layers and norms see the row; a `Layout`
says which runs of it attend to each other and which share a row of modulation. Dense, packed and padded batches
differ in their layout only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6


@dataclass(frozen=True)
class Layout:
    """How a row of tokens falls into clips.

    groups: (clips, tokens per clip) of each run of clips of equal length; tokens attend within their clip.
    masks: one per group, (clips, 1, 1, tokens) and true where a token is real, or None where all of them are.
    spans: (rows, tokens per row) of each run of rows of modulation; all rows of all spans in order are the F axis.
    """

    groups: tuple[tuple[int, int], ...]
    masks: tuple[Tensor | None, ...]
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def tokens(self) -> int:
        return sum(clips * tokens for clips, tokens in self.groups)


def split(row_SD: Tensor, runs: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Cut a row into its runs, each (count, tokens, D); a view when there is one run."""
    parts = [row_SD] if len(runs) == 1 else row_SD.split([count * tokens for count, tokens in runs])
    return [part.view(count, tokens, -1) for part, (count, tokens) in zip(parts, runs, strict=True)]


def join(parts: Sequence[Tensor]) -> Tensor:
    """The inverse of `split`: (count, tokens, D) each, to one row (S, D)."""
    rows = [part.flatten(0, 1) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


# Rotary positions (Su et al. 2021, RoFormer), one part of each head per axis.


def rotary_split(head_width: int, axes: int) -> tuple[int, ...]:
    """Complex pairs of a head for each axis; the first axis (time) gets the remainder, as in Wan."""
    pairs = head_width // 2
    other = pairs // axes
    return (pairs - (axes - 1) * other, *[other] * (axes - 1))


def rotary_table(positions: Sequence[Tensor], head_width: int, theta: float) -> Tensor:
    """Unit complex numbers (..., 1, K/2) that rotate the pairs of a head; 1 stands for the heads.

    positions: one tensor per axis (time, height, width), real, in any unit, broadcastable against each other.
    theta: the longest wavelength is about 2 pi theta positions.
    """
    shape = torch.broadcast_shapes(*[position.shape for position in positions])
    angles = []
    for position, pairs in zip(positions, rotary_split(head_width, len(positions)), strict=True):
        rates = theta ** -(torch.arange(pairs, device=position.device, dtype=torch.float32) / pairs)
        angles.append((position[..., None] * rates).expand(*shape, pairs))
    angle = torch.cat(angles, dim=-1).unsqueeze(-2)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(row_SD: Tensor, rope_S1K: Tensor, heads: int) -> Tensor:
    """Rotate neighbouring pairs of every head. A table shorter than the row repeats for each clip."""
    pairs = row_SD.float().view(-1, rope_S1K.shape[0], heads, rope_S1K.shape[-1], 2)
    if torch.compiler.is_compiling():  # complex numbers do not fuse
        (x, y), (c, s) = pairs.unbind(-1), (rope_S1K.real, rope_S1K.imag)
        turned = torch.stack((x * c - y * s, x * s + y * c), dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * rope_S1K)
    return turned.view(row_SD.shape).to(row_SD.dtype)


class Attention(nn.Module):
    """Multi-head attention with RMS-normed queries and keys over the full width (Wan 2.1; Henry et al. 2020).

    Self-attention: `attention(x, *attention.keys_values(x, rope), layout, layout, rope)`; for cross-attention keys
    and values come from another row whose layout has the same clips in the same groups.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.query_norm = nn.RMSNorm(width, eps=EPSILON)
        self.key_norm = nn.RMSNorm(width, eps=EPSILON)

    def keys_values(self, row_SD: Tensor, rope_S1K: Tensor | None = None) -> tuple[Tensor, Tensor]:
        key_SD = self.key_norm(self.key(row_SD))
        if rope_S1K is not None:
            key_SD = rotate(key_SD, rope_S1K, self.heads)
        return key_SD, self.value(row_SD)

    def forward(
        self,
        row_SD: Tensor,
        key_SD: Tensor,
        value_SD: Tensor,
        layout: Layout,
        key_layout: Layout,
        rope_S1K: Tensor | None = None,
    ) -> Tensor:
        query_SD = self.query_norm(self.query(row_SD))
        if rope_S1K is not None:
            query_SD = rotate(query_SD, rope_S1K, self.heads)
        queries, keys, values = (
            [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in split(row, runs)]
            for row, runs in (
                (query_SD, layout.groups),
                (key_SD, key_layout.groups),
                (value_SD, key_layout.groups),
            )
        )
        mixed = [
            F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
            for query, key, value, mask in zip(queries, keys, values, key_layout.masks, strict=True)
        ]
        return self.out(join(mixed))


class MLP(nn.Module):
    """Two linear layers around a GELU (tanh form, as in Wan and DiT)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, out)

    def forward(self, row_SD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(row_SD), approximate="tanh"))


# Modulation (Perez et al. 2018, FiLM; Peebles and Xie 2022, adaLN-Zero): a shift, a scale, a gate per clip or frame.


def modulated_norm(row_SD: Tensor, shift_FD: Tensor, scale_FD: Tensor, layout: Layout) -> Tensor:
    """norm(x) (1 + scale) + shift, where each row of the modulation serves its span of tokens."""
    normed = split(F.layer_norm(row_SD, row_SD.shape[-1:], eps=EPSILON), layout.spans)
    counts = [rows for rows, _ in layout.spans]
    shifts, scales = shift_FD.unsqueeze(1).split(counts), (1 + scale_FD).unsqueeze(1).split(counts)
    return join([torch.addcmul(b, x, a) for x, a, b in zip(normed, scales, shifts, strict=True)])


def gated_sum(row_SD: Tensor, branch_SD: Tensor, gate_FD: Tensor, layout: Layout) -> Tensor:
    """x + gate branch, where each row of the gate serves its span of tokens."""
    gates = gate_FD.unsqueeze(1).split([rows for rows, _ in layout.spans])
    pairs = zip(split(row_SD, layout.spans), split(branch_SD, layout.spans), gates, strict=True)
    return join([torch.addcmul(x, y, gate) for x, y, gate in pairs])


def sinusoid(timestep_F: Tensor, width: int) -> Tensor:
    """Cosines, then sines of the timestep at `width / 2` rates from 1 down to 1e-4 (Vaswani et al. 2017)."""
    half = width // 2
    rates = 1e4 ** -(torch.arange(half, device=timestep_F.device, dtype=torch.float32) / half)
    angle = timestep_F.float()[:, None] * rates
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def init_linears(modules: Iterable[nn.Module], how: Literal["xavier", "zero"]) -> None:
    """Xavier-uniform or zero weights for every linear layer inside `modules`; biases are zero."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                if how == "zero":
                    nn.init.zeros_(layer.weight)
                else:
                    nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
