"""One causal 3-D convolution with an exact streaming cache, shared by every video VAE of the project.

Causal in time: an output frame sees its own frame and earlier ones only. Before the first frame lie zeros. A
clip may therefore be fed in chunks: the convolution keeps the few frames that the next chunk needs, and the
outputs of the chunks, joined, are the output of the whole clip (Wan 2.1's feature cache, arXiv 2503.20314).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

Cache = dict["CausalConv3d", Tensor]
"""What a stream remembers: for each convolution, the last frames of its input (BTHWC)."""

SLOW_CONV3D_SIZE = 20480
"""torch's CPU conv3d takes a slow path (3 to 10 times) when batch is 1 and N*C*T*H is at most this."""


class CausalConv3d(nn.Module):
    """Convolution over (time, height, width), causal in time, `same` in space at stride 1.

    Time is padded by `kernel - stride` frames of zeros in front: T frames give T / stride (T a multiple
    of stride). The weight has the layout of nn.Conv3d, (out, in, kt, kh, kw).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        padding: tuple[int, int] | None = None,
        bias: bool = True,
    ) -> None:
        """`padding` is that of height and width, half the kernel when None."""
        super().__init__()
        if kernel[0] < stride[0]:
            raise ValueError(f"kernel {kernel} is shorter in time than stride {stride}")
        self.kernel, self.stride = kernel, stride
        self.padding = (kernel[1] // 2, kernel[2] // 2) if padding is None else padding
        self.past = kernel[0] - stride[0]
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.normal_(self.weight, std=(in_channels * kernel[0] * kernel[1] * kernel[2]) ** -0.5)

    def forward(self, input_BCTHW: Tensor, cache: Cache | None = None) -> Tensor:
        """The convolved chunk. With a cache the chunk continues the stream that the cache remembers."""
        input_BTHWC = self.prepend_past(input_BCTHW.permute(0, 2, 3, 4, 1), cache)
        if self.conv3d_is_fast(input_BTHWC):
            frames_BCTHW = input_BTHWC.permute(0, 4, 1, 2, 3)
            padding = (0, *self.padding)
            return functional.conv3d(frames_BCTHW, self.weight, self.bias, self.stride, padding)
        return self.joined_taps(input_BTHWC)

    def prepend_past(self, input_BTHWC: Tensor, cache: Cache | None) -> Tensor:
        """Put the remembered frames (zeros at the start of a clip) in front; remember the last ones."""
        if self.past == 0:
            return input_BTHWC
        past_BTHWC = None if cache is None else cache.get(self)
        if past_BTHWC is None:
            batch, _, height, width, channels = input_BTHWC.shape
            past_BTHWC = input_BTHWC.new_zeros(batch, self.past, height, width, channels)
        joined_BTHWC = torch.cat([past_BTHWC, input_BTHWC], dim=1)
        if cache is not None:
            # A copy, because a view would keep the whole chunk alive.
            cache[self] = joined_BTHWC[:, -self.past :].clone()
        return joined_BTHWC

    def conv3d_is_fast(self, input_BTHWC: Tensor) -> bool:
        """Whether to leave the work to conv3d: elsewhere than on the CPU, or for a large dense kernel.

        Factorised kernels (1x3x3 and 3x1x1) run at least as fast in two dimensions: benchmarks/vae.py.
        """
        kt, kh, kw = self.kernel
        if kt == 1 or (kh == kw == 1):
            return False
        batch, frames, height, _, channels = input_BTHWC.shape
        small = batch * channels * frames * height <= SLOW_CONV3D_SIZE
        return input_BTHWC.device.type != "cpu" or not small

    def joined_taps(self, input_BTHWC: Tensor) -> Tensor:
        """The same convolution in two dimensions: taps joined as channels, time folded into the batch."""
        (kt, kh, kw), (st, sh, sw) = self.kernel, self.stride
        frames = (input_BTHWC.shape[1] - kt) // st + 1
        if kt == 1 and st == 1:
            taps_BTHWC = input_BTHWC
        else:
            taps = [input_BTHWC[:, tap : tap + (frames - 1) * st + 1 : st] for tap in range(kt)]
            taps_BTHWC = torch.cat(taps, dim=-1)
        weight = self.weight.permute(0, 2, 1, 3, 4).flatten(1, 2)
        if kh == kw == sh == sw == 1 and self.padding == (0, 0):
            return functional.linear(taps_BTHWC, weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)
        folded_BCHW = taps_BTHWC.flatten(0, 1).permute(0, 3, 1, 2)
        out_BCHW = functional.conv2d(folded_BCHW, weight, self.bias, (sh, sw), self.padding)
        return rearrange(out_BCHW, "(b t) c h w -> b c t h w", t=frames)
