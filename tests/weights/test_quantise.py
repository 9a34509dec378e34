"""8-bit weights stay within their promise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.weights.quantise import RUN, dequantise, quantise, scale_shape


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
