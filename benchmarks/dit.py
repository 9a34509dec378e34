"""Speed of the diffusion transformer on this machine: training, sampling, clips of unequal lengths.

    python benchmarks/dit.py [--threads N] [--rounds N] [--preset tiny] [--precision fp32|bf16] [--compile]
        [--return-memory]

Every figure is a median over rounds in which both sides of a comparison run in turn, so that other work on the
machine disturbs both alike. FLOP include attention; a training step counts as three forwards.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mutoscope.models.dit import DIT_PRESETS, DiT, DiTConfig
from mutoscope.training.machine import keep_memory

MATMUL = 2048
# tokens of 64 to 512, 47 % of what padding to the longest makes of them
MIXED = [(1, 8, 8), (6, 4, 4), (8, 4, 4), (10, 4, 4), (4, 8, 8), (5, 8, 8), (6, 8, 8), (8, 8, 8)]
TEXT = 24


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def forward_flop(config: DiTConfig, tokens: int, text: int, rows: int) -> float:
    """FLOP of one clip: linear layers of blocks, attention, text, modulation of `rows` rows, patches."""
    d, t = config.width, config.text_width
    patch = config.channels * config.patch[0] * config.patch[1] * config.patch[2]
    linear = tokens * (12 * d * d + 4 * d * config.mlp_width) + text * 4 * d * d
    attention = 4 * tokens * d * (tokens + text)
    ends = 4 * tokens * patch * d + 2 * (text + 1) * (t * d + d * d)
    condition = 2 * rows * (config.frequency_width * d + 7 * d * d)
    return config.depth * (linear + attention) + ends + condition


def trainable(preset: str) -> DiT:
    """A DiT with random gates, since zeros would leave nothing to compute in some backward passes."""
    torch.manual_seed(0)
    dit = DiT(DIT_PRESETS[preset])
    for parameter in dit.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    return dit


def step(dit: DiT, loss: Callable[[], Tensor]) -> float:
    dit.zero_grad(set_to_none=True)
    value = loss()
    value.backward()
    return value.item()


def training(dit: DiT, rounds: int, dtype: torch.dtype, batch: int = 64) -> None:
    """A training step on 64x64x17 clips (80 tokens), without the optimizer, against a matrix product."""
    config = dit.config
    latent, timestep = torch.randn(batch, config.channels, 5, 8, 8), torch.rand(batch, 5) * 1000
    text = torch.randn(batch, TEXT, config.text_width)
    mask = torch.arange(TEXT) < torch.randint(TEXT // 2, TEXT + 1, (batch, 1))
    square = torch.randn(MATMUL, MATMUL, dtype=dtype)
    flop = 3 * batch * forward_flop(config, 80, TEXT, rows=5)

    def loss() -> Tensor:
        return (dit(latent, timestep, text, mask) - latent).square().mean()

    step(dit, loss)
    rates, matmuls = [], []
    for _ in range(rounds):
        before = seconds(lambda: square @ square)
        rates.append(flop / seconds(lambda: step(dit, loss)))
        matmuls.append(2 * MATMUL**3 / statistics.mean([before, seconds(lambda: square @ square)]))
    shares = [rate / matmul for rate, matmul in zip(rates, matmuls, strict=True)]
    print(
        f"training step, {batch} clips of 80 tokens: {statistics.median(rates) / 1e9:.0f} GFLOP/s, "
        f"matmul {statistics.median(matmuls) / 1e9:.0f} GFLOP/s, share {statistics.median(shares):.1%} "
        f"(best {max(shares):.1%}), {batch * statistics.median(rates) / flop:.1f} clips/s"
    )


@torch.no_grad()
def sampling(dit: DiT, rounds: int, steps: int = 30) -> None:
    """The DiT's part of a 64x64x17 clip with guidance, both branches in one call; with and without cache."""
    config = dit.config
    latent, text = torch.randn(2, config.channels, 5, 8, 8), torch.randn(2, TEXT, config.text_width)
    mask = torch.arange(TEXT) < torch.tensor([[TEXT], [1]])

    def cached() -> None:
        cache = dit.cache_text(text, mask)
        for i in range(steps):
            dit(latent, torch.full((2, 5), 1000.0 - i), cache)

    def plain() -> None:
        for i in range(steps):
            dit(latent, torch.full((2, 5), 1000.0 - i), text, mask)

    cached()
    times = [(seconds(cached), seconds(plain)) for _ in range(rounds)]
    gain = statistics.median(b / a for a, b in times)
    print(
        f"sampling 64x64x17, {steps} steps with guidance: {statistics.median(a for a, _ in times):.2f} s "
        f"(best {min(a for a, _ in times):.2f}); the text cache saves {1 - 1 / gain:.0%}"
    )


def mixed_lengths(dit: DiT, rounds: int) -> None:
    """A training step on clips of 64 to 512 tokens: packed against padded, and clip by clip."""
    config = dit.config
    lengths = [t * h * w for t, h, w in MIXED]
    latents = [torch.randn(config.channels, t, 2 * h, 2 * w) for t, h, w in MIXED]
    timesteps = [torch.full((t,), 500.0) for t, _, _ in MIXED]
    texts = [torch.randn(8 + 2 * i, config.text_width) for i in range(len(MIXED))]

    def packed() -> Tensor:
        return mean_loss(dit.forward_packed(latents, timesteps, texts))

    def padded() -> Tensor:
        return mean_loss(dit.forward_padded(latents, timesteps, texts))

    def alone() -> Tensor:
        clips = zip(latents, timesteps, texts, strict=True)
        return mean_loss([dit(latent[None], t[None], text[None])[0] for latent, t, text in clips])

    def mean_loss(predictions: list[Tensor]) -> Tensor:
        pairs = zip(predictions, latents, strict=True)
        return torch.stack([(out - latent).square().mean() for out, latent in pairs]).mean()

    losses = {work.__name__: step(dit, work) for work in (packed, padded, alone)}
    times = {work: [] for work in (packed, padded, alone)}
    for _ in range(rounds):
        for work, taken in times.items():
            taken.append(seconds(lambda work=work: step(dit, work)))
    gain = statistics.median(b / a for a, b in zip(times[packed], times[padded], strict=True))
    useful = sum(lengths) / (len(lengths) * max(lengths))
    rates = {work.__name__: sum(lengths) / statistics.median(taken) for work, taken in times.items()}
    spread = max(losses.values()) / min(losses.values()) - 1
    print(
        f"unequal lengths ({min(lengths)} to {max(lengths)} tokens, {useful:.0%} useful when padded): "
        + ", ".join(f"{name} {rate:.0f} tokens/s" for name, rate in rates.items())
        + f"; packed is {gain:.2f}x padded, losses equal to {spread:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--preset", choices=sorted(DIT_PRESETS), default="tiny")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--compile", action="store_true", help="compile the blocks (needs a C++ compiler)")
    parser.add_argument(
        "--return-memory", action="store_true", help="let the C library give back freed memory"
    )
    options = parser.parse_args()
    if not options.return_memory:
        keep_memory()  # as training does
    torch.set_num_threads(options.threads)
    dit = trainable(options.preset)
    millions = sum(parameter.numel() for parameter in dit.parameters()) / 1e6
    print(
        f"{options.preset}: {millions:.1f} M parameters, {options.threads} threads, torch {torch.__version__}"
    )
    if options.compile:
        for block in dit.blocks:
            block.compile()
    with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
        training(dit, options.rounds, torch.bfloat16 if options.precision == "bf16" else torch.float32)
        sampling(dit, options.rounds)
        mixed_lengths(dit, options.rounds)


if __name__ == "__main__":
    main()
