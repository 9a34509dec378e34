"""Rows, rotary positions, norms: against independent formulas."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mutoscope.models import layers
from mutoscope.models.layers import (
    EPSILON,
    MLP,
    Attention,
    Layout,
    RMSNorm,
    gated_sum,
    join,
    modulated_norm,
    rotary_split,
    rotary_table,
    rotate,
    sinusoid,
    split,
)


def grid_table(t: Tensor, h: Tensor, w: Tensor, head: int = 24) -> Tensor:
    return rotary_table((t[:, None, None], h[:, None], w), head, 100.0).flatten(0, 2)


def test_split_and_join_are_inverse() -> None:
    row = torch.randn(2 * 3 + 4 * 5, 7)
    runs = ((2, 3), (4, 5))
    parts = split(row, runs)
    assert [tuple(part.shape) for part in parts] == [(2, 3, 7), (4, 5, 7)]
    assert torch.equal(join(parts), row)


def test_rotary_split_is_wans() -> None:
    assert [2 * pairs for pairs in rotary_split(128, 3)] == [44, 42, 42]
    assert sum(rotary_split(64, 3)) == 32


def test_rotation_keeps_lengths_and_depends_on_distances_only() -> None:
    t, h, w = torch.arange(3.0), torch.arange(4.0), torch.arange(5.0)
    query, key = torch.randn(60, 48), torch.randn(60, 48)
    here, there = grid_table(t, h, w), grid_table(t + 2.5, h - 1.25, w + 7)
    scores = [rotate(query, rope, 2) @ rotate(key, rope, 2).T for rope in (here, there)]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rotate(query, there, 2).norm(dim=1), query.norm(dim=1))
    assert not torch.allclose(scores[0], query @ key.T, atol=0.1)


def test_axes_rotate_their_own_pairs_only() -> None:
    pairs = rotary_split(24, 3)
    zero, one = torch.zeros(1), torch.ones(1)
    for axis in range(3):
        positions = [one if i == axis else zero for i in range(3)]
        turned = (rotary_table(positions, 24, 100.0)[..., 1].flatten() != 0).split(pairs)
        assert [bool(part.any()) for part in turned] == [i == axis for i in range(3)]
        assert turned[axis].all()


def test_rotation_equals_its_real_form() -> None:
    row, rope = torch.randn(6, 16), grid_table(torch.arange(3.0), torch.zeros(1), torch.arange(2.0), 8)
    x, y = row.view(6, 2, 4, 2).unbind(-1)
    cos, sin = rope.unbind(-1)
    expected = torch.stack((x * cos - y * sin, x * sin + y * cos), dim=-1)
    torch.testing.assert_close(rotate(row, rope, 2), expected.view(6, 16))


@pytest.mark.parametrize("tokens", [1, 700])
def test_rms_norm_and_its_gradients_equal_torchs(tokens: int) -> None:
    norm = RMSNorm(256)
    with torch.no_grad():
        norm.weight.normal_()
    weight = norm.weight.detach().clone().requires_grad_()
    x, grad = torch.randn(tokens, 256), torch.randn(tokens, 256)
    ours, torchs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = norm(ours), F.rms_norm(torchs, (256,), weight, EPSILON)
    y.backward(grad)
    expected.backward(grad)
    assert ours.grad is not None
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(ours.grad, torchs.grad)
    torch.testing.assert_close(norm.weight.grad, weight.grad, rtol=1e-4, atol=1e-4)


def test_rms_norm_in_half_precision_follows_fp32() -> None:
    norm, x = RMSNorm(64), torch.randn(9, 64)
    torch.testing.assert_close(norm.bfloat16()(x.bfloat16()), RMSNorm(64)(x), rtol=2e-2, atol=2e-2)


def test_modulation_serves_each_row_its_span() -> None:
    layout = Layout(((1, 10),), (None,), ((2, 3), (1, 4)))
    x, branch, (shift, scale, gate) = torch.randn(10, 8), torch.randn(10, 8), torch.randn(3, 3, 8)
    row = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    expected = F.layer_norm(x, (8,), eps=EPSILON) * (1 + scale[row]) + shift[row]
    torch.testing.assert_close(modulated_norm(x, shift, scale, layout), expected)
    torch.testing.assert_close(gated_sum(x, branch, gate, layout), x + branch * gate[row])


@pytest.mark.parametrize("gelu", ["none", "tanh"])
@pytest.mark.parametrize("held", [100, 1 << 23])
def test_memory_is_reused_without_gradients_and_all_is_the_same(
    gelu: Literal["none", "tanh"], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "HIDDEN", held)
    layout = Layout(((2, 70),), (None,), ((2, 70),))  # more tokens than a piece
    attention, mlp = Attention(16, 2), MLP(16, 40, 16, gelu)
    x, modulation = torch.randn(140, 16), torch.randn(3, 2, 16)
    rope = rotary_table((torch.arange(70.0),), 8, 1e4)

    def block(x: Tensor) -> Tensor:
        y = modulated_norm(x, modulation[0], modulation[1], layout)
        y = attention(y, *attention.keys_values(y, rope), layout, layout, rope)
        x = gated_sum(x, y, modulation[2], layout)
        return gated_sum(x, mlp(x), modulation[1], layout)

    expected, before = block(x), x.clone()
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, before)


def test_attention_stays_inside_clips_and_ignores_masked_keys() -> None:
    attention = Attention(16, 2)
    masks = (torch.tensor([[True, True, False], [True, True, True]])[:, None, None, :], None)
    layout = Layout(((2, 3), (1, 2)), masks)
    row = torch.randn(8, 16)
    with torch.no_grad():
        whole = attention(row, *attention.keys_values(row), layout, layout)
        for tokens in ([0, 1], [3, 4, 5], [6, 7]):
            clip, alone = row[tokens], Layout(((1, len(tokens)),), (None,))
            torch.testing.assert_close(
                attention(clip, *attention.keys_values(clip), alone, alone), whole[tokens]
            )


def test_sinusoid_tells_timesteps_apart() -> None:
    wave = sinusoid(torch.tensor([0.0, 1.0, 500.0, 1000.0]), 256)
    torch.testing.assert_close(wave[0], torch.cat((torch.ones(128), torch.zeros(128))))
    assert torch.cdist(wave, wave).add(torch.eye(4) * 9).min() > 1
