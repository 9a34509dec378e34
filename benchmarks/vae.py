"""Speed of the video VAE on this machine: the forms of its convolution, its presets, its streams.

    python benchmarks/vae.py [--threads N] [--rounds N]

Times are the least of several rounds in which the sides of a comparison run in turn. FLOP are torch's count.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mutoscope.models.causal import SLOW_CONV3D_SIZE, CausalConv3d
from mutoscope.models.vae import VAE, VAE_PRESETS

# batch, channels, frames, side: streams of one latent frame, then clips, then a training batch
SIZES = [(1, 64, 1, 16), (1, 96, 1, 32), (1, 96, 5, 16), (1, 192, 5, 32), (8, 96, 5, 16)]
KERNELS = [(1, 3, 3), (3, 1, 1), (3, 3, 3)]
CLIPS = [(17, 64, 64), (17, 128, 128)]


def least_seconds(works: list[Callable[[], object]], rounds: int) -> list[float]:
    """The least time of each, all run in turn, after one unmeasured round."""
    best = [float("inf")] * len(works)
    for number in range(rounds + 1):
        for i, work in enumerate(works):
            start = time.perf_counter()
            work()
            if number:
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def flop_of(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def forced(conv: CausalConv3d, input_BTHWC: Tensor, conv3d: bool) -> Callable[[], Tensor]:
    """The convolution of one clip in one form."""

    def run() -> Tensor:
        padded_BTHWC = conv.prepend_past(input_BTHWC, None)
        if not conv3d:
            return conv.joined_taps(padded_BTHWC)
        frames_BCTHW = padded_BTHWC.permute(0, 4, 1, 2, 3)
        return torch.conv3d(frames_BCTHW, conv.weight, conv.bias, padding=(0, *conv.padding))

    return run


def compare_forms(rounds: int) -> None:
    """conv3d against the two-dimensional form, and which one CausalConv3d takes."""
    print(f"\nforms of the convolution, GFLOP/s (conv3d is slow up to N*C*T*H = {SLOW_CONV3D_SIZE})")
    print(f"{'kernel':>10} {'N,C,T,H=W':>16} {'N*C*T*H':>9} {'conv3d':>8} {'joined':>8}  taken")
    for kernel in KERNELS:
        for batch, channels, frames, side in SIZES:
            conv = CausalConv3d(channels, channels, kernel)
            input_BTHWC = torch.randn(batch, frames, side, side, channels)
            works: list[Callable[[], object]] = [forced(conv, input_BTHWC, form) for form in (True, False)]
            flop = flop_of(works[1])
            rates = [flop / seconds / 1e9 for seconds in least_seconds(works, rounds)]
            padded_BTHWC = conv.prepend_past(input_BTHWC, None)
            taken = "conv3d" if conv.conv3d_is_fast(padded_BTHWC) else "joined"
            size = f"{batch},{channels},{frames},{side}"
            volume = batch * channels * padded_BTHWC.shape[1] * side
            print(
                f"{'x'.join(map(str, kernel)):>10} {size:>16} {volume:>9} {rates[0]:8.0f} {rates[1]:8.0f}  {taken}"
            )


def measure_presets(rounds: int) -> None:
    """Encode, decode whole, and decode one latent frame at a time."""
    print(
        f"\n{'preset':>7} {'clip':>11} {'MFLOP/pixel':>12} {'enc ms':>8} {'dec ms':>8} {'stream ms':>9} {'GFLOP/s':>8}"
    )
    for size, config in VAE_PRESETS.items():
        vae = VAE(config).eval()
        for frames, height, width in CLIPS:
            video = torch.rand(1, 3, frames, height, width) * 2 - 1
            latent = vae.encode(video)
            works: list[Callable[[], object]] = [
                lambda vae=vae, video=video: vae.encode(video),
                lambda vae=vae, latent=latent: vae.decode(latent),
                lambda vae=vae, latent=latent: list(vae.decode_stream(latent.split(1, dim=2))),
            ]
            flop = flop_of(works[1])
            encode, decode, stream = least_seconds(works, rounds)
            print(
                f"{size:>7} {f'{width}x{height}x{frames}':>11} {flop / (frames * height * width) / 1e6:12.3f} "
                f"{encode * 1e3:8.1f} {decode * 1e3:8.1f} {stream * 1e3:9.1f} {flop / decode / 1e9:8.0f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, fp32")
    with torch.inference_mode():
        compare_forms(options.rounds)
        measure_presets(options.rounds)


if __name__ == "__main__":
    main()
