"""What the options of sampling gain in time and cost in likeness, against the exact result, in one run.

    python benchmarks/options.py [--models tiny wan] [--steps N] [--rounds N] [--width N] [--depth N] [--tokens N]
        [--compile] [--facts N] [--threads N]

Guidance interval, step cache, both, and (told to) torch.compile of the blocks, for the built-in model and for a
transformer of Wan's shape with random weights. Every option runs in turn with the exact way, so that other work on the
machine disturbs both alike: the gain is the median over the rounds of exact time by its time. The PSNR is that of the
latents. Random weights show what an option gains in time; what it costs in likeness only trained ones can show. With
--facts the built-in model also answers N prompts with each option and each kind of guidance, and the oracle says how
many of their facts hold.
"""

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import mutoscope
from mutoscope.diffusion.fixed_shift import FixedShift
from mutoscope.diffusion.guidance import Guidance, guide
from mutoscope.diffusion.process import Process
from mutoscope.diffusion.sampler import SAMPLERS
from mutoscope.diffusion.step_cache import StepCache
from mutoscope.evaluation.examinee import Frames, request_of
from mutoscope.evaluation.exams import Question
from mutoscope.evaluation.suite import chosen, examine
from mutoscope.generation.conditions import Condition
from mutoscope.generation.generate import generate_many
from mutoscope.generation.sampling import Branches, Embedded
from mutoscope.models.dit import DIT_PRESETS, DiT
from mutoscope.models.umt5 import MAX_TOKENS
from mutoscope.world.stage import View

PROMPTS = [
    "a red ball rolls to the right",
    "a blue star floats up at night",
    "a green box slides to the left",
]
REAL = 24  # text tokens of a prompt for Wan


@dataclass(frozen=True)
class Subject:
    """A transformer with its texts (prompts, then negative ones), and how it is sampled."""

    name: str
    dit: DiT
    process: Process
    text: Embedded
    noise_BCTHW: Tensor
    sampler: str
    scale: float
    fps: float


@dataclass(frozen=True)
class Option:
    """A way to sample. The exact one has no cache and guidance everywhere."""

    name: str
    interval: tuple[float, float] = (0.0, 1.0)
    threshold: float = 0.0


OPTIONS = [
    Option("interval 0.1-1", (0.1, 1.0)),
    Option("interval 0.3-1", (0.3, 1.0)),
    Option("interval 0.3-0.9", (0.3, 0.9)),
    Option("step cache 0.02", threshold=0.02),
    Option("step cache 0.05", threshold=0.05),
    Option("step cache 0.1", threshold=0.1),
    Option("step cache 0.2", threshold=0.2),
    Option("step cache 0.05, interval 0.3-1", (0.3, 1.0), 0.05),
]


def built_in() -> Subject:
    model = mutoscope.load("tiny")
    own = model.card.defaults
    text = Embedded(*model.text(PROMPTS + [own.negative] * len(PROMPTS)))
    frames = 1 + (own.frames - 1) // model.vae.strides[0]
    noise_BCTHW = drawn(len(PROMPTS), model.vae.latent_channels, frames, own.height // 8, own.width // 8)
    return Subject("tiny", model.dit, model.process, text, noise_BCTHW, own.sampler, own.guidance, own.fps)


def wan(width: int, depth: int, tokens: int) -> Subject:
    """Wan's shape, `width` a multiple of 128, for about so many tokens: five latent frames of a square."""
    full = DIT_PRESETS["wan2.1-t2v-1.3b"]
    config = replace(
        full, width=width, depth=depth, heads=width // 128, mlp_width=width * full.mlp_width // full.width
    )
    torch.manual_seed(0)
    dit = DiT(config).eval()
    bias_BL = torch.zeros(2, REAL + 1)
    bias_BL[:, REAL] = math.log(MAX_TOKENS - REAL)
    text_BLD = drawn(2, REAL + 1, config.text_width)
    text_BLD[:, REAL] = 0
    side = 2 * max(1, round(math.sqrt(tokens / 5)))
    noise_BCTHW = drawn(1, config.channels, 5, side, side)
    process = FixedShift(constant=5.0)
    return Subject("wan", dit, process, Embedded(text_BLD, bias_BL), noise_BCTHW, "unipc", 5.0, 16.0)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def sampled(subject: Subject, option: Option, steps: int) -> tuple[Tensor, int]:
    """Latents, and how many times clips passed the transformer."""
    model: Any = SimpleNamespace(dit=subject.dit, process=subject.process)
    noise_BCTHW, passed = subject.noise_BCTHW, 0
    frames = torch.zeros(len(noise_BCTHW), noise_BCTHW.shape[2], dtype=torch.bool)
    condition = Condition(torch.zeros_like(noise_BCTHW), frames)
    branches = Branches(model, subject.text, condition, subject.fps, noise_BCTHW)

    def counted(latent_BCTHW: Tensor, sigma: Tensor, both: bool, /) -> Tensor:
        nonlocal passed
        passed += 2 if both else 1
        return branches(latent_BCTHW, sigma, both)

    asked = StepCache(counted, subject.process, option.threshold) if option.threshold else counted
    denoise = guide(asked, Guidance(subject.scale, interval=option.interval), subject.process)
    tokens = noise_BCTHW[0, 0].numel() // math.prod(subject.dit.config.patch)
    sigmas = subject.process.sigmas(steps, tokens)
    return SAMPLERS[subject.sampler](denoise, noise_BCTHW, sigmas, subject.process), passed


def timed(subject: Subject, option: Option, steps: int) -> tuple[Tensor, int, float]:
    start = time.perf_counter()
    latent_BCTHW, passed = sampled(subject, option, steps)
    return latent_BCTHW, passed, time.perf_counter() - start


def psnr(found: Tensor, expected: Tensor) -> float:
    peak = float(expected.max() - expected.min())
    error = float((found - expected).square().mean())
    return 10 * math.log10(peak**2 / error) if error else math.inf


def report(subject: Subject, steps: int, rounds: int, compiled: bool) -> None:
    exact = Option("exact")
    expected, passed, took = timed(subject, exact, steps)
    print(
        f"\n{subject.name}: width {subject.dit.config.width}, depth {subject.dit.config.depth}, {steps} steps of "
        f"{subject.sampler}, guidance {subject.scale:g}, latents {'x'.join(map(str, subject.noise_BCTHW.shape))}"
    )
    print(f"{'option':>32} {'passes':>7} {'s':>7} {'gain':>6} {'PSNR dB':>8}")
    print(f"{'exact':>32} {passed:>7} {took:>7.2f} {1:>6.2f} {'':>8}")
    for option in OPTIONS:
        tell(subject, option, expected, [in_turn(subject, option, steps) for _ in range(rounds)])
    if compiled:
        before = [timed(subject, exact, steps)[2] for _ in range(rounds)]
        for block in subject.dit.blocks:
            block.compile()
        sampled(subject, exact, 2)  # compiles
        after = [timed(subject, exact, steps) for _ in range(rounds)]
        turns = [(*made, was / made[2]) for made, was in zip(after, before, strict=True)]
        tell(subject, Option("compiled blocks"), expected, turns)


def in_turn(subject: Subject, option: Option, steps: int) -> tuple[Tensor, int, float, float]:
    took = timed(subject, Option("exact"), steps)[2]
    made = timed(subject, option, steps)
    return *made, took / made[2]


def tell(
    subject: Subject, option: Option, expected: Tensor, turns: list[tuple[Tensor, int, float, float]]
) -> None:
    seconds, gain = (statistics.median(turn[place] for turn in turns) for place in (2, 3))
    near = psnr(turns[0][0], expected)
    print(f"{option.name:>32} {turns[0][1]:>7} {seconds:>7.2f} {gain:>6.2f} {near:>8.1f}", flush=True)


ANSWERS: dict[str, dict[str, Any]] = {
    "exact": {},
    "interval 0.3-1": {"guidance_interval": (0.3, 1.0)},
    "interval 0.3-0.9": {"guidance_interval": (0.3, 0.9)},
    "rescale 0.7": {"guidance_rescale": 0.7},
    "zero-star": {"guidance_kind": "zero-star"},
    "apg": {"guidance_kind": "apg"},
    "apg, guidance 8": {"guidance_kind": "apg", "guidance": 8.0},
    "step cache 0.05": {"step_cache": 0.05},
    "step cache 0.1": {"step_cache": 0.1},
    "step cache 0.2": {"step_cache": 0.2},
}


def answered(count: int) -> None:
    """Shares of prompts whose facts all hold, and of the facts of each kind that hold, for the built-in model."""
    model = mutoscope.load("tiny")
    own = model.card.defaults
    view = View(own.width, own.height, own.frames, own.fps)
    kinds = ("all", "colour", "shape", "direction")
    print(
        f"\nfacts of {count} prompts that hold\n{'option':>32} " + " ".join(f"{kind:>10}" for kind in kinds)
    )
    for name, changes in ANSWERS.items():

        def answer(asked: Sequence[Question], changes: dict[str, Any] = changes) -> list[Frames]:
            requests = [replace(request_of(question), **changes) for question in asked]
            return [video.frames_THWC for video in generate_many(model, requests)]

        scores = examine(answer, view, chosen("quick", ["P0"], count), seed=0)[0]["P0"]
        print(f"{name:>32} " + " ".join(f"{scores[kind]:>10.2f}" for kind in kinds), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", choices=["tiny", "wan"], default=["tiny", "wan"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=384, help="of Wan's shape, a multiple of 128")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=320)
    parser.add_argument(
        "--compile", action="store_true", help="also with compiled blocks; needs a C++ compiler"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--facts", type=int, default=0, help="prompts that the built-in model answers, up to 48"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, fp32")
    with torch.inference_mode():
        for name in options.models:
            subject = built_in() if name == "tiny" else wan(options.width, options.depth, options.tokens)
            report(subject, options.steps, options.rounds, options.compile)
    if options.facts:
        answered(options.facts)


if __name__ == "__main__":
    main()
