"""Wan on this machine against diffusers' classes with the same random weights: sampling, decoding, options.

    python benchmarks/wan_speed.py [--depth N] [--width N] [--tokens 320 1280 4096] [--steps 20] [--rounds N]
        [--frames 17 33 65 129] [--side 64] [--vae-width N] [--threads N] [--options]

fp32, no compilation, both sides in turn in one run, so that other work on the machine disturbs both alike; a ratio is
the median over the rounds of diffusers' time by ours. Sampling: guided steps of UniPC with 512 text tokens of which 24
are real, by a transformer of Wan's shape. At a --width of 1536, Wan2.1's 1.3B, linear layers that both must run are a
larger part of the time, and at --depth below 6 the ratio at 320 tokens flatters us, as diffusers projects the text anew
at every step. Decoding (no --frames: none): time, and peak memory beyond the weights, each side alone in a process
of its own. --options: their gain and PSNR against the exact result. diffusers is needed for this only.
"""

import argparse
import ctypes
import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from torch import Tensor

from mutoscope.diffusion.fixed_shift import FixedShift
from mutoscope.diffusion.guidance import Guidance, guide
from mutoscope.diffusion.sampler import SAMPLERS
from mutoscope.generation.conditions import Condition
from mutoscope.generation.sampling import Branches, Embedded
from mutoscope.models.compilation import compile_blocks, uncompiled
from mutoscope.models.dit import DIT_PRESETS, DiT
from mutoscope.models.umt5 import MAX_TOKENS
from mutoscope.models.wan_vae import WAN_VAE_PRESETS, WanVAE
from mutoscope.weights.convert import their_dit_config, their_vae_config
from mutoscope.weights.wan_layouts import dit_table, to_ours, vae_table

REAL = 24  # text tokens
SCALE, SHIFT = 5.0, 3.0
INTERVALS = [(0.3, 1.0), (0.6, 1.0)]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(
    theirs: Callable[[], object], ours: Callable[[], object], rounds: int
) -> tuple[float, float, float]:
    """Median seconds of both and median ratio; which goes first changes from round to round."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            mine, other = seconds(ours), seconds(theirs)
        else:
            other, mine = seconds(theirs), seconds(ours)
        pairs.append((other, mine))
    return (
        statistics.median(other for other, _ in pairs),
        statistics.median(mine for _, mine in pairs),
        statistics.median(other / mine for other, mine in pairs),
    )


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the expected range."""
    return float((found - expected).abs().max() / expected.abs().max())


def psnr(found: Tensor, expected: Tensor) -> float:
    peak = float(expected.max() - expected.min())
    return float(10 * torch.log10(peak**2 / (found - expected).square().mean()))


def transformers(options: argparse.Namespace) -> tuple[Any, DiT]:
    """diffusers' transformer and ours, of the same random weights."""
    heads = options.width // 128
    full = DIT_PRESETS["wan2.1-t2v-1.3b"]
    mlp = options.width * full.mlp_width // full.width
    config = replace(full, width=options.width, depth=options.depth, heads=heads, mlp_width=mlp)
    told = {key: value for key, value in their_dit_config(config).items() if key != "_class_name"}
    torch.manual_seed(0)
    theirs = diffusers.WanTransformer3DModel(**told).eval()
    with torch.device("meta"):
        ours = DiT(config)
    ours.load_state_dict(to_ours(theirs.state_dict(), dit_table(config, "diffusers")), assign=True)
    return theirs, ours.eval()


def grid_of(tokens: int) -> tuple[int, int, int]:
    """Latent frames, rows and columns that make about so many tokens of 2 x 2: five frames of a square."""
    side = max(1, round(math.sqrt(tokens / 5)))
    return 5, 2 * side, 2 * max(1, round(tokens / 5 / side))


def their_sampling(dit: Any, text_BLD: Tensor, noise_BCTHW: Tensor, steps: int) -> Tensor:
    """The loop of diffusers' WanPipeline: both branches in turn, all 512 text tokens."""
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=SHIFT
    )
    scheduler.set_timesteps(steps)
    latent_BCTHW = noise_BCTHW
    for timestep in scheduler.timesteps:
        branches = [
            dit(
                latent_BCTHW, timestep.expand(1), encoder_hidden_states=text_BLD[i : i + 1], return_dict=False
            )[0]
            for i in range(2)
        ]
        prediction = branches[1] + SCALE * (branches[0] - branches[1])
        latent_BCTHW = scheduler.step(prediction, timestep, latent_BCTHW, return_dict=False)[0]
    return latent_BCTHW


def our_sampling(
    dit: DiT, text_BLD: Tensor, noise_BCTHW: Tensor, steps: int, interval: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """As `generation.sampling` runs it; the padding of the text is one token (see `models.umt5`)."""
    process = FixedShift(constant=SHIFT, known_frames=False)
    bias_BL = torch.zeros(2, REAL + 1)
    bias_BL[:, REAL] = math.log(MAX_TOKENS - REAL)
    model: Any = SimpleNamespace(dit=dit, process=process)
    unknown = torch.zeros(1, noise_BCTHW.shape[2], dtype=torch.bool)
    condition = Condition(torch.zeros_like(noise_BCTHW), unknown)
    pair, single = (
        Branches(model, Embedded(text_BLD[:many, : REAL + 1], bias_BL[:many]), condition, 16.0, noise_BCTHW)
        for many in (2, 1)
    )

    def branches(latent_BCTHW: Tensor, sigma: Tensor, both: bool, /) -> Tensor:
        return (pair if both else single)(latent_BCTHW, sigma, both)

    denoise = guide(branches, Guidance(SCALE, interval=interval), process, condition.unknown)
    tokens = noise_BCTHW[0, 0].numel() // 4
    return SAMPLERS["unipc"](denoise, noise_BCTHW, process.sigmas(steps, tokens), process, lambda _: None)


def sampling(options: argparse.Namespace) -> None:
    theirs, ours = transformers(options)
    text_BLD = torch.randn(2, MAX_TOKENS, ours.config.text_width)
    text_BLD[:, REAL:] = 0
    print(f"\n{options.steps} guided steps, width {options.width}, depth {options.depth}")
    print(f"{'tokens':>7} {'diffusers s':>12} {'ours s':>8} {'ratio':>6} {'difference':>11}")
    for tokens in options.tokens:
        frames, rows, columns = grid_of(tokens)
        noise_BCTHW = torch.randn(1, ours.config.channels, frames, rows, columns)
        results: dict[str, Tensor] = {}

        def run(name: str, work: Callable[[], Tensor], into: dict[str, Tensor] = results) -> None:
            into[name] = work()

        def theirs_once(noise_BCTHW: Tensor = noise_BCTHW) -> None:
            run("theirs", lambda: their_sampling(theirs, text_BLD, noise_BCTHW, options.steps))

        def ours_once(noise_BCTHW: Tensor = noise_BCTHW, name: str = "ours", low: float = 0.0) -> None:
            run(name, lambda: our_sampling(ours, text_BLD, noise_BCTHW, options.steps, (low, 1.0)))

        other, mine, ratio = in_turns(theirs_once, ours_once, options.rounds)
        print(
            f"{frames * rows * columns // 4:>7} {other:12.2f} {mine:8.2f} {ratio:6.2f} "
            f"{difference(results['ours'], results['theirs']):11.1e}"
        )
        if not options.options:
            continue
        tell_compiled(ours, ours_once, options.rounds, results)
        for low, high in INTERVALS:
            name = f"guidance from sigma {high:g} down to {low:g}"
            _, fast, gain = in_turns(
                ours_once, lambda name=name, low=low: ours_once(name=name, low=low), options.rounds
            )
            print(
                f"{'':>7} {name}: {fast:.2f} s, gain {gain:.2f}, PSNR {psnr(results[name], results['ours']):.1f} dB"
            )


def tell_compiled(dit: DiT, once: Callable[..., None], rounds: int, results: dict[str, Tensor]) -> None:
    """Compiled blocks against those as written, in turns; the seconds of the first use apart."""
    torch.compiler.set_stance("default")
    compile_blocks([dit])
    first = seconds(lambda: once(name="compiled"))

    def plain() -> None:
        with uncompiled(compiled=True):
            once()

    _, fast, gain = in_turns(plain, lambda: once(name="compiled"), rounds)
    apart = psnr(results["compiled"], results["ours"])
    print(f"{'':>7} compiled: {fast:.2f} s, gain {gain:.2f}, PSNR {apart:.1f} dB, first use {first:.0f} s")
    torch.compiler.set_stance("force_eager")  # for all that follows


def peak_of(work: Callable[[], object]) -> float:
    """MiB that the process takes at most beyond what it holds before."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work has freed must be taken again
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return (status("VmHWM") - before) / 1024


def status(row: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(row)).split()[1])


def autoencoders(options: argparse.Namespace) -> tuple[Any, WanVAE]:
    """diffusers' autoencoder and ours, of the same random weights."""
    config = replace(WAN_VAE_PRESETS["wan2.1-vae"], width=options.vae_width, decoder_width=options.vae_width)
    told = {key: value for key, value in their_vae_config(config).items() if key != "_class_name"}
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKLWan(**told).eval()
    with torch.device("meta"):
        vae = WanVAE(config)
    vae.load_state_dict(to_ours(theirs.state_dict(), vae_table(config, "diffusers")), assign=True)
    return theirs, vae.eval()


def latent_of(frames: int, side: int) -> Tensor:
    return torch.randn(1, 16, 1 + (frames - 1) // 4, side // 8, side // 8)


def decoded_whole(theirs: Any, vae: WanVAE, latent_BCTHW: Tensor) -> Tensor:
    """As it comes from diffusers."""
    mean, std = (values.view(1, -1, 1, 1, 1) for values in (vae.latent_mean, vae.latent_std))
    return theirs.decode(latent_BCTHW * std + mean, return_dict=False)[0]


def decoded_in_pieces(vae: WanVAE, latent_BCTHW: Tensor) -> None:
    """As a clip is written."""
    for _ in vae.decode_stream([latent_BCTHW]):
        pass


def peak_alone(options: argparse.Namespace, frames: int, ours: bool) -> float:
    """`peak_of` one decoding, for a process that has done nothing else."""
    torch.set_num_threads(options.threads)
    theirs, vae = autoencoders(options)
    latent_BCTHW = latent_of(frames, options.side)
    with torch.inference_mode():
        if ours:
            return peak_of(lambda: decoded_in_pieces(vae, latent_BCTHW))
        return peak_of(lambda: decoded_whole(theirs, vae, latent_BCTHW))


def decoding(options: argparse.Namespace) -> None:
    """Ours frame by frame, as a clip is written; theirs as it comes, whole."""
    theirs, vae = autoencoders(options)
    print(f"\ndecoding {options.side}x{options.side}, width {options.vae_width}")
    heads = ("frames", "diffusers s", "ours s", "ratio", "diffusers MiB", "ours MiB", "difference")
    print(" ".join(f"{head:>13}" for head in heads))
    for frames in options.frames:
        latent_BCTHW = latent_of(frames, options.side)

        def whole(latent_BCTHW: Tensor = latent_BCTHW) -> Tensor:
            return decoded_whole(theirs, vae, latent_BCTHW)

        def streamed(latent_BCTHW: Tensor = latent_BCTHW) -> None:
            decoded_in_pieces(vae, latent_BCTHW)

        apart = difference(vae.decode(latent_BCTHW), whole())
        other, mine, ratio = in_turns(whole, streamed, options.rounds)
        peaks = []
        for is_ours in (False, True):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                peaks.append(fresh.submit(peak_alone, options, frames, is_ours).result())
        row = (frames, other, mine, ratio, *peaks, apart)
        print("".join(f"{row[0]:>13d}") + "".join(f" {value:13.3g}" for value in row[1:]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--width", type=int, default=384, help="a multiple of 128")
    parser.add_argument("--tokens", type=int, nargs="+", default=[320, 1280, 4096])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, nargs="*", default=[17, 33, 65, 129])
    parser.add_argument("--side", type=int, default=64, help="pixels, a multiple of 16")
    parser.add_argument("--vae-width", type=int, default=96)
    parser.add_argument("--options", action="store_true", help="guidance intervals and compiled blocks too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, {options.threads} threads, fp32")
    with torch.inference_mode():
        sampling(options)
        decoding(options)


if __name__ == "__main__":
    main()
