"""Clips of unequal sizes in one training step: padded, packed, bucketed - the same loss, unequal cost.

    python benchmarks/batches.py [--threads N] [--rounds N] [--clips N] [--preset tiny] [--precision fp32|bf16]

One group of clips for each of eight sizes from 64 to 512 tokens. Useful is the share of computed visual tokens that
belong to a clip. Each round runs every layout in turn, so that other work on the machine disturbs all alike; figures
are medians over rounds of forward and backward of the DiT.
"""

import argparse
import statistics
import time

import torch

from mutoscope.data.batches import Group, diffusion_loss, predict
from mutoscope.data.latents import Size
from mutoscope.diffusion.process import Process
from mutoscope.models.dit import DIT_PRESETS, DiT

SIZES = (
    Size(1, 128, 128), Size(21, 64, 64), Size(29, 64, 64), Size(37, 64, 64),
    Size(13, 128, 128), Size(17, 128, 128), Size(21, 128, 128), Size(29, 128, 128),
)  # fmt: skip
TEXT_TOKENS = 32
LAYOUTS = ("padded", "packed", "bucketed")


def group(size: Size, clips: int, channels: int) -> Group:
    """Random clips of one size, the first latent frame known."""
    shape = (clips, channels, 1 + (size.frames - 1) // 4, size.height // 8, size.width // 8)
    unknown_BT = torch.ones(clips, shape[2], dtype=torch.bool)
    unknown_BT[:, 0] = shape[2] == 1
    sigma_BT = torch.rand(clips, 1).expand(-1, shape[2]) * unknown_BT
    rows, prompts = tuple(range(clips)), ("",) * clips
    return Group(
        size,
        rows,
        prompts,
        torch.randn(shape),
        torch.randn(shape),
        sigma_BT,
        unknown_BT,
        torch.full((clips,), 8.0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=1, help="of each size")
    parser.add_argument("--preset", choices=("tiny", "small", "base"), default="tiny")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config, process = DIT_PRESETS[options.preset], Process()
    dit = DiT(config)
    for parameter in dit.parameters():  # zeros would leave nothing to compute in some backward passes
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    groups = [group(size, options.clips, config.channels) for size in SIZES]
    clips = options.clips * len(SIZES)
    text_BLD = torch.randn(clips, TEXT_TOKENS, config.text_width)
    mask_BL = torch.arange(TEXT_TOKENS) < torch.randint(8, TEXT_TOKENS + 1, (clips, 1))

    def step(layout: str) -> tuple[float, float]:
        begin = time.perf_counter()
        dit.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            predictions = predict(dit, groups, process, text_BLD, mask_BL, layout)
        loss = diffusion_loss(process, groups, predictions)
        torch.autograd.backward([loss])
        return time.perf_counter() - begin, loss.item()

    losses = {layout: step(layout)[1] for layout in LAYOUTS}
    times: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    for _ in range(options.rounds):
        for layout in LAYOUTS:
            times[layout].append(step(layout)[0])
    useful = sum(size.tokens for size in SIZES) * options.clips
    padded = max(size.tokens for size in SIZES) * clips
    print(
        f"{clips} clips of 64 to 512 tokens, {options.preset}, {options.precision}, {options.threads} threads"
    )
    for layout in LAYOUTS:
        seconds = statistics.median(times[layout])
        gain = statistics.median(a / b for a, b in zip(times["padded"], times[layout], strict=True))
        share = useful / padded if layout == "padded" else 1.0
        print(
            f"{layout:9} useful {share:4.0%}  {useful / seconds:6.0f} useful tokens/s  {gain:4.2f}x padded  "
            f"loss {losses[layout]:.6f}"
        )


if __name__ == "__main__":
    main()
