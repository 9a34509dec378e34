"""The causal convolution: both of its forms are torch's convolution, chunks equal the whole, time flows one way."""

import pytest
import torch
from torch.nn import functional

from mutoscope.models.causal import SLOW_CONV3D_SIZE, Cache, CausalConv3d

KERNELS = [
    ((3, 3, 3), (1, 1, 1)),
    ((3, 1, 1), (1, 1, 1)),
    ((1, 3, 3), (1, 1, 1)),
    ((1, 1, 1), (1, 1, 1)),
    ((3, 1, 1), (2, 1, 1)),
    ((2, 3, 3), (2, 2, 2)),
]


def layer(kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> CausalConv3d:
    torch.manual_seed(0)
    conv = CausalConv3d(5, 7, kernel, stride)
    torch.nn.init.normal_(conv.bias)
    return conv


@pytest.mark.parametrize(("kernel", "stride"), KERNELS)
@pytest.mark.parametrize("form", ["conv3d", "taps"])
@torch.no_grad()
def test_both_forms_are_conv3d_behind_zeros(kernel, stride, form, monkeypatch):
    conv = layer(kernel, stride)
    monkeypatch.setattr(conv, "conv3d_is_fast", lambda _: form == "conv3d")
    clip = torch.randn(2, 5, 8, 6, 4)
    padded = functional.pad(clip, (0, 0, 0, 0, kernel[0] - stride[0], 0))
    padding = (0, kernel[1] // 2, kernel[2] // 2)
    expected = functional.conv3d(padded, conv.weight, conv.bias, stride, padding)
    assert conv(clip).shape == expected.shape
    assert (conv(clip) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("kernel", "stride"), KERNELS)
@pytest.mark.parametrize("lengths", [[8], [1, 1, 6], [2, 4, 2], [1, 2, 2, 1, 1, 1], [7, 1]])
@torch.no_grad()
def test_chunks_equal_the_whole(kernel, stride, lengths):
    conv, clip = layer(kernel, stride), torch.randn(2, 5, 8 * stride[0], 6, 4)
    cache: Cache = {}
    chunks = clip.split([length * stride[0] for length in lengths], dim=2)
    joined = torch.cat([conv(chunk, cache) for chunk in chunks], dim=2)
    assert (joined - conv(clip)).abs().max() < 1e-5


@pytest.mark.parametrize(("kernel", "stride"), KERNELS)
def test_no_output_depends_on_a_later_frame(kernel, stride):
    conv = layer(kernel, stride)
    clip = torch.randn(1, 5, 8, 6, 4, requires_grad=True)
    out = conv(clip)
    for frame in range(out.shape[2]):
        (gradient,) = torch.autograd.grad(out[:, :, frame].sum(), clip, retain_graph=True)
        last = (frame + 1) * stride[0] - 1
        assert gradient[:, :, : last + 1].any()
        assert not gradient[:, :, last + 1 :].any()


def test_the_cache_holds_only_the_frames_that_the_next_chunk_needs():
    conv, cache = layer((3, 3, 3), (1, 1, 1)), {}
    conv(torch.randn(1, 5, 64, 6, 4), cache)
    assert cache[conv].untyped_storage().nbytes() == 4 * 5 * 2 * 6 * 4


def test_conv3d_is_left_alone_where_torch_is_slow():
    conv = CausalConv3d(32, 32, (3, 3, 3))
    frames = SLOW_CONV3D_SIZE // (32 * 64)
    assert not conv.conv3d_is_fast(torch.empty(1, frames, 64, 64, 32))
    assert conv.conv3d_is_fast(torch.empty(1, frames + 1, 64, 64, 32))
    assert conv.conv3d_is_fast(torch.empty(1, 3, 64, 64, 32, device="meta"))


def test_gradients_reach_the_weights_through_the_cache():
    """A clip trained in chunks gets the gradient of the whole clip."""
    conv, clip, cache = layer((3, 3, 3), (1, 1, 1)), torch.randn(1, 5, 6, 6, 4), {}
    (whole,) = torch.autograd.grad(conv(clip).square().sum(), conv.weight)
    parts = [conv(chunk, cache).square().sum() for chunk in clip.split(2, dim=2)]
    (chunked,) = torch.autograd.grad(sum(parts), conv.weight)
    assert torch.allclose(whole, chunked, rtol=1e-4, atol=1e-4)


def test_a_kernel_shorter_than_its_stride_is_refused():
    with pytest.raises(ValueError, match="shorter in time"):
        CausalConv3d(5, 7, (1, 3, 3), (2, 1, 1))
