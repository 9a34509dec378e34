"""8-bit weights stay within their promise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from mutoscope.weights import quantise as quantising
from mutoscope.weights.quantise import (
    RUN,
    QuantisedLinear,
    bytes_in_8_bits,
    dequantise,
    quantise,
    scale_shape,
)


@settings(deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(1, 1), (3, 5), (4, 16), (2, 40), (6, 3, 1, 3, 3)]),
    st.floats(-30, 30),
)
def test_no_value_is_off_by_more_than_its_share(seed: int, shape: tuple[int, ...], decades: float) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 10.0**decades
    codes, scale = quantise(weight)
    assert codes.dtype == torch.int8
    assert (codes.shape, tuple(scale.shape)) == (weight.shape, scale_shape(weight.shape))
    error = (dequantise(codes, scale) - weight).abs().reshape(shape[0], -1)
    for start in range(0, error.shape[1], RUN):
        largest = weight.reshape(shape[0], -1)[:, start : start + RUN].abs().amax(1)
        assert bool((error[:, start : start + RUN].amax(1) <= 0.004 * largest).all())


def test_the_error_of_normal_weights_is_half_a_percent() -> None:
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))
    error = dequantise(*quantise(weight)) - weight
    assert float(error.norm() / weight.norm()) <= 0.005


@pytest.mark.parametrize("value", [0.0, 1.0, -3e38, 1e-38])
def test_constant_rows_come_back(value: float) -> None:
    weight = torch.full((2, 20), value)
    torch.testing.assert_close(dequantise(*quantise(weight)), weight, rtol=0.004, atol=1e-38)


def test_what_was_in_8_bits_stays() -> None:
    once = dequantise(*quantise(torch.randn(8, 48, generator=torch.Generator().manual_seed(1))))
    torch.testing.assert_close(dequantise(*quantise(once)), once, rtol=0, atol=float(once.abs().max()) / 254)


def test_a_weight_in_pieces_is_the_same_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(7, 40, generator=torch.Generator().manual_seed(2))
    whole = quantise(weight)
    monkeypatch.setattr(quantising, "PIECE", 100)
    for one, other in zip(whole, quantise(weight), strict=True):
        assert torch.equal(one, other)


def test_runs_of_int8_are_nearer_than_fp8_of_the_same_size() -> None:
    """The choice of docs/decisions/0005-int8-weights.md."""
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))

    def error(found: torch.Tensor) -> float:
        return float((found - weight).norm() / weight.norm())

    scale = weight.abs().amax(1, keepdim=True) / 448
    in_fp8 = (weight / scale).to(torch.float8_e4m3fn).float() * scale
    assert error(in_fp8) > 5 * error(dequantise(*quantise(weight)))


def blank_linear(width: int, out: int, bias: bool) -> tuple[nn.Linear, QuantisedLinear]:
    torch.manual_seed(3)
    exact = nn.Linear(width, out, bias)
    with torch.device("meta"):
        like = nn.Linear(width, out, bias)
    return exact, QuantisedLinear(like, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "bias"), [(48, True), (37, False)])
def test_a_layer_multiplies_with_what_was_kept(dtype: torch.dtype, width: int, bias: bool) -> None:
    exact, layer = blank_linear(width, 24, bias)
    exact = exact.to(dtype)
    layer.load_state_dict(exact.state_dict(), assign=True)
    assert (layer.codes.dtype, layer.scale.dtype) == (torch.int8, torch.bfloat16)
    kept = dequantise(*quantise(exact.weight)).to(dtype)
    row = torch.randn(5, width, generator=torch.Generator().manual_seed(4)).to(dtype)
    with torch.no_grad():
        found = layer(row)
        assert torch.equal(found, functional.linear(row, kept, exact.bias))
        rms = (found - exact(row)).norm() / exact(row).norm()
    assert 0 < rms < (0.008 if dtype == torch.float32 else 0.01)
    if width % RUN == 0:
        assert layer.codes.nbytes + layer.scale.nbytes == bytes_in_8_bits(exact.weight.numel())


def test_a_layer_is_written_and_read_as_it_is() -> None:
    exact, layer = blank_linear(32, 8, True)
    layer.load_state_dict(exact.state_dict(), assign=True)
    again = blank_linear(32, 8, True)[1]
    again.load_state_dict(layer.state_dict(), assign=True)
    assert torch.equal(again.codes, layer.codes)
    with pytest.raises(RuntimeError, match="codes"):
        again.load_state_dict({"bias": exact.bias}, assign=True)
