"""What the transformers share: rows of tokens, rotary positions, norms, attention, modulation.

All tokens of a batch lie in one row, whatever clips they belong to. Linear layers and norms see the row; a
`Layout` says which runs of it attend to each other and which share a row of modulation. Dense, packed and
padded batches differ in their layout only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6
LONG_ROW = 512  # keys above which the fused attention kernel wins in every type
HIDDEN = 7 << 20  # values of a hidden layer held at a time; glibc would map 8 << 20 anew each time
FUSES = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # oneDNN: a GELU in a linear layer


@dataclass(frozen=True)
class Layout:
    """How a row of tokens falls into clips.

    groups: (clips, tokens per clip) of each run of clips of equal length; tokens attend within their clip.
    masks: one per group, (clips, 1, 1, tokens) and true where a token is real, or None where all of them are.
    spans: (rows, tokens per row) of each run of rows of modulation; the rows of all spans are the F axis.
    """

    groups: tuple[tuple[int, int], ...]
    masks: tuple[Tensor | None, ...]
    spans: tuple[tuple[int, int], ...] = ()


def split(row_SD: Tensor, runs: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Cut a row into its runs, each (count, tokens, D)."""
    # one split, not many slices: the gradient of each slice would be a whole row of zeros
    parts = torch.split(row_SD, [count * tokens for count, tokens in runs]) if len(runs) > 1 else [row_SD]
    return [
        part.view(count, tokens, part.shape[-1]) for part, (count, tokens) in zip(parts, runs, strict=True)
    ]


def join(parts: Sequence[Tensor]) -> Tensor:
    """The inverse of `split`: (count, tokens, D) each, to one row (S, D)."""
    rows = [part.flatten(0, 1) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def lead(row_SD: Tensor, first_FD: Tensor, layout: Layout) -> Tensor:
    """Put each row of F in front of the tokens of its span; the result has the layout `led(layout)`."""
    parts = zip(_rows(first_FD, layout), split(row_SD, layout.spans), strict=True)
    return join([torch.cat(pair, dim=1) for pair in parts])


def follow(row_SD: Tensor, layout: Layout) -> Tensor:
    """The inverse of `lead`: the tokens of each span of `led(layout)` without the first."""
    return join([part[:, 1:] for part in split(row_SD, led(layout).spans)])


def led(layout: Layout) -> Layout:
    """The layout with one more token in every span. Groups and spans must be the same runs, and none masked."""
    runs = zip(layout.groups, layout.spans, strict=True)
    return Layout(
        tuple((clips, tokens + rows // clips) for (clips, tokens), (rows, _) in runs),
        layout.masks,
        tuple((rows, tokens + 1) for rows, tokens in layout.spans),
    )


def in_place(row: Tensor, *others: Tensor) -> bool:
    """Whether a row that nobody else holds may be overwritten by what is computed from it and others of its type.

    Only where nothing is learned and nothing compiled. Fresh memory is dear on a CPU: the system clears every page of
    it at the first touch, which took a fifth of the time at 320 tokens (docs/log.md).
    """
    same = all(other.dtype == row.dtype for other in others)
    return same and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def plain_sum(row: Tensor, branch: Tensor) -> Tensor:
    """x + branch, in the branch's memory if it can be."""
    return torch.add(row, branch, out=branch) if in_place(branch, row) else row + branch


# Rotary positions (Su et al. 2021, RoFormer), one part of each head per axis.


def rotary_split(head_width: int, axes: int) -> tuple[int, ...]:
    """Complex pairs of a head for each axis; the first axis (time) gets the remainder, as in Wan."""
    pairs = head_width // 2
    other = pairs // axes
    return (pairs - (axes - 1) * other, *[other] * (axes - 1))


def rotary_table(positions: Sequence[Tensor], head_width: int, theta: float) -> Tensor:
    """Cosines and sines (..., 1, K/2, 2) that rotate the pairs of a head; the 1 stands for the heads.

    positions: one tensor per axis (time, height, width), real, in any unit, broadcastable against each other.
    theta: the longest wavelength is about 2 pi theta positions.
    """
    angles = []
    grids = torch.broadcast_tensors(*positions)  # type: ignore[no-untyped-call]
    for position, pairs in zip(grids, rotary_split(head_width, len(positions)), strict=True):
        rates = theta ** -(torch.arange(pairs, device=position.device, dtype=torch.float32) / pairs)
        angles.append(position[..., None] * rates)
    angle = torch.cat(angles, dim=-1).unsqueeze(-2)
    return torch.stack((angle.cos(), angle.sin()), dim=-1)


def rotate(row_SD: Tensor, rope_S1K2: Tensor, heads: int) -> Tensor:
    """Rotate neighbouring pairs of every head of an fp32 row, in place where nothing is learned from it.

    A table shorter than the row repeats for each clip.
    """
    pairs = row_SD.view(-1, rope_S1K2.shape[0], heads, *rope_S1K2.shape[2:])
    if torch.compiler.is_compiling():  # complex numbers do not fuse
        (x, y), (c, s) = pairs.unbind(-1), rope_S1K2.unbind(-1)
        return torch.stack((x * c - y * s, x * s + y * c), dim=-1).view(row_SD.shape)
    turns_S1K = torch.view_as_complex(rope_S1K2)
    if in_place(row_SD):
        torch.view_as_complex(pairs).mul_(turns_S1K)
        return row_SD
    return torch.view_as_real(torch.view_as_complex(pairs) * turns_S1K).view(row_SD.shape)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2)) times a learned weight (Zhang and Sennrich 2019) over the last axis of (S, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, row_SD: Tensor, scale: float = 1.0) -> Tensor:
        """In fp32 and times `scale`, whatever the type of the row; in the memory of an fp32 row if it can be."""
        row_SD, weight_D = row_SD.float(), self.weight.float() * scale
        if row_SD.device.type != "cpu" or torch.compiler.is_compiling():
            return F.rms_norm(row_SD, weight_D.shape, weight_D, EPSILON)
        if in_place(row_SD):
            _CPURMSNorm.normed(row_SD, weight_D, row_SD)
            return row_SD
        out_SD: Tensor = _CPURMSNorm.apply(row_SD, weight_D)  # type: ignore[no-untyped-call]
        return out_SD


class _CPURMSNorm(torch.autograd.Function):
    """On a CPU torch's own is a chain of passes over all of x; in pieces that fit the cache it takes half."""

    PIECE = 1 << 18  # elements

    @staticmethod
    def forward(ctx: Any, x_SD: Tensor, weight_D: Tensor) -> Tensor:
        out_SD = torch.empty_like(x_SD)
        ctx.save_for_backward(x_SD, weight_D, _CPURMSNorm.normed(x_SD, weight_D, out_SD))
        return out_SD

    @staticmethod
    def normed(x_SD: Tensor, weight_D: Tensor, out_SD: Tensor) -> Tensor:
        """Writes the norm of x to `out`; returns what each row was multiplied by."""
        inverses = []
        for x, out in _CPURMSNorm.pieces(x_SD, out_SD):
            square_S1 = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
            inverses.append(square_S1.div_(x.shape[-1]).add_(EPSILON).rsqrt_())
            torch.mul(x, inverses[-1], out=out).mul_(weight_D)
        return torch.cat(inverses)

    @staticmethod
    def backward(ctx: Any, grad_SD: Tensor) -> tuple[Tensor, Tensor]:
        x_SD, weight_D, inverse_S1 = ctx.saved_tensors
        grad_x_SD, grad_weight_D = torch.empty_like(x_SD), torch.zeros_like(weight_D)
        for x, inverse, grad, grad_x in _CPURMSNorm.pieces(x_SD, inverse_S1, grad_SD, grad_x_SD):
            torch.mul(grad, x, out=grad_x)
            grad_weight_D += inverse[:, 0] @ grad_x
            along = (grad_x @ weight_D).div_(-len(weight_D)).unsqueeze(-1).mul_(inverse).mul_(inverse)
            torch.mul(grad, weight_D, out=grad_x).addcmul_(x, along).mul_(inverse)
        return grad_x_SD, grad_weight_D

    @staticmethod
    def pieces(*rows_SD: Tensor) -> Iterable[tuple[Tensor, ...]]:
        step = max(1, _CPURMSNorm.PIECE // rows_SD[0].shape[-1])
        return zip(*(torch.split(row, step) for row in rows_SD), strict=True)


class Attention(nn.Module):
    """Multi-head attention with RMS-normed queries and keys over the full width (Wan 2.1; Henry et al. 2020).

    Self-attention: `attention(x, *attention.keys_values(x, rope), layout, layout, rope)`. In cross-attention
    keys and values come from another row whose layout has the same clips in the same groups.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.query_norm = RMSNorm(width)
        self.key_norm = RMSNorm(width)
        self.scale = (width // heads) ** -0.5  # of the scores; taken into the norm of the queries

    def keys_values(self, row_SD: Tensor, rope_S1K2: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value_SD: Tensor = self.value(row_SD)
        key_SD = self.key_norm(self.key(row_SD))
        if rope_S1K2 is not None:
            key_SD = rotate(key_SD, rope_S1K2, self.heads)
        return key_SD.to(value_SD.dtype), value_SD

    def forward(
        self,
        row_SD: Tensor,
        key_SD: Tensor,
        value_SD: Tensor,
        layout: Layout,
        key_layout: Layout,
        rope_S1K2: Tensor | None = None,
    ) -> Tensor:
        query_SD = self.query_norm(self.query(row_SD), self.scale)
        if rope_S1K2 is not None:
            query_SD = rotate(query_SD, rope_S1K2, self.heads)
        queries = self._heads(query_SD.to(value_SD.dtype), layout)
        keys, values = self._heads(key_SD, key_layout), self._heads(value_SD, key_layout)
        mixed = [
            attend(query, key, value, mask).transpose(1, 2).flatten(2)
            for query, key, value, mask in zip(queries, keys, values, key_layout.masks, strict=True)
        ]
        out_SD: Tensor = self.out(join(mixed))
        return out_SD

    def _heads(self, row_SD: Tensor, layout: Layout) -> list[Tensor]:
        """(clips, N, tokens, K) of each group."""
        parts = split(row_SD, layout.groups)
        return [part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in parts]


def attend(query_BNSK: Tensor, key_BNLK: Tensor, value_BNLK: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k) v, with scaled queries; mask is true where a key may be seen.

    torch's fused kernel everywhere but in bfloat16 training on a CPU: there its backward pass takes five times as
    long as matrix products do up to some hundred keys (44 against 9 ms at 64 clips x 4 heads x 80 tokens, AMX).
    """
    training = torch.is_grad_enabled() and query_BNSK.dtype == torch.bfloat16
    if not training or query_BNSK.device.type != "cpu" or key_BNLK.shape[2] > LONG_ROW:
        return F.scaled_dot_product_attention(query_BNSK, key_BNLK, value_BNLK, attn_mask=mask, scale=1.0)
    with torch.autocast("cpu", enabled=False):
        score_BNSL = query_BNSK @ key_BNLK.transpose(-1, -2)
        if mask is not None:
            score_BNSL = score_BNSL.masked_fill(~mask, -torch.inf)
        out_BNSK: Tensor = score_BNSL.softmax(-1) @ value_BNLK
        return out_BNSK


class MLP(nn.Module):
    """Two linear layers around a GELU, exact or in the tanh form of Wan.

    The two differ by less than 5e-4; on a CPU torch's tanh form takes five times as long.
    """

    def __init__(self, width: int, hidden: int, out: int, gelu: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, out)
        self.gelu = gelu

    def forward(self, row_SD: Tensor) -> Tensor:
        if FUSES and in_place(row_SD) and self._plain(row_SD):
            return self._in_pieces(row_SD)
        out_SD: Tensor = self.down(F.gelu(self.up(row_SD), approximate=self.gelu))
        return out_SD

    def _plain(self, row_SD: Tensor) -> bool:
        """Whether all is in fp32 on the CPU; the weights may lie in 8 bits."""
        linear = isinstance(self.up, nn.Linear) and isinstance(self.down, nn.Linear)
        fp32 = row_SD.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return linear and fp32 and row_SD.device.type == "cpu"

    def _in_pieces(self, row_SD: Tensor) -> Tensor:
        """A piece of the row after the other, each in the memory of the last; oneDNN takes GELU in its stride."""
        up, up_bias, down, down_bias = (
            one.to(row_SD) for one in (self.up.weight, self.up.bias, self.down.weight, self.down.bias)
        )  # from the type of their file, where they stay in it
        out_SD = row_SD.new_empty(*row_SD.shape[:-1], len(down))
        tokens = max(1, HIDDEN // len(up) // 64) * 64  # oneDNN loses a tenth at odd numbers
        parts = (torch.split(row.flatten(0, -2), tokens) for row in (row_SD, out_SD))
        for row, out in zip(*parts, strict=True):
            hidden_SD = torch.ops.mkldnn._linear_pointwise(row, up, up_bias, "gelu", [], self.gelu)
            torch.addmm(down_bias, hidden_SD, down.t(), out=out)
        return out_SD


# Modulation (Perez et al. 2018, FiLM; Peebles and Xie 2022, adaLN): shift, scale, gate per clip or frame.


def modulated_norm(row_SD: Tensor, shift_FD: Tensor, scale_FD: Tensor, layout: Layout) -> Tensor:
    """norm(x) (1 + scale) + shift, where each row of the modulation serves its span of tokens.

    In the type that linear layers will take it in, so that it is converted once for all of them.
    """
    normed_SD = F.layer_norm(row_SD, row_SD.shape[-1:], eps=EPSILON)
    shifts, scales = _rows(shift_FD, layout), _rows(1 + scale_FD, layout)
    parts = zip(shifts, split(normed_SD, layout.spans), scales, strict=True)
    dtype, device = row_SD.dtype, row_SD.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if in_place(normed_SD, shift_FD, scale_FD) and dtype == normed_SD.dtype:
        for shift, x, scale in parts:
            torch.addcmul(shift, x, scale, out=x)
        return normed_SD
    return join([torch.addcmul(shift, x, scale) for shift, x, scale in parts]).to(dtype)


def gated_sum(row_SD: Tensor, branch_SD: Tensor, gate_FD: Tensor, layout: Layout) -> Tensor:
    """x + gate branch, where each row of the gate serves its span of tokens; in the branch's memory if it can be."""
    parts = zip(
        split(row_SD, layout.spans), split(branch_SD, layout.spans), _rows(gate_FD, layout), strict=True
    )
    if in_place(branch_SD, row_SD, gate_FD):
        for x, branch, gate in parts:
            torch.addcmul(x, branch, gate, out=branch)
        return branch_SD
    return join([torch.addcmul(x, branch, gate) for x, branch, gate in parts])


def _rows(modulation_FD: Tensor, layout: Layout) -> Sequence[Tensor]:
    """(rows, 1, D) of each span."""
    return torch.split(modulation_FD.unsqueeze(1), [rows for rows, _ in layout.spans])


def sinusoid(timestep_F: Tensor, width: int) -> Tensor:
    """Cosines, then sines of the timestep at `width / 2` rates from 1 down to 1e-4 (Vaswani et al. 2017)."""
    half = width // 2
    rates = 1e4 ** -(torch.arange(half, device=timestep_F.device, dtype=torch.float32) / half)
    angle = timestep_F.float()[:, None] * rates
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def xavier_init(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear layer inside."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def zero_init(layer: nn.Linear | nn.Conv2d | nn.Conv3d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
