"""What a person wants to see of a run: where the time goes, how much of the machine is used, the curves."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mutoscope.training.machine import wait_for
from mutoscope.training.state import RunLog

COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98", "#117a65", "#a04000", "#34495e")
PLOT = (900, 520)
MARGIN = (60, 20, 20, 40)  # left, top, right, bottom


class Watch:
    """Adds up the seconds of each part of a step and writes their averages to speed.jsonl every `every`
    steps.
    """

    def __init__(
        self,
        log: RunLog,
        dtype: torch.dtype,
        seconds: float = 0.0,
        every: int = 20,
        device: torch.device | str = "cpu",
    ) -> None:
        self.log, self.every, self.device = log, every, torch.device(device)
        self.seconds = seconds  # of the whole run, earlier sittings included
        self.rate = matmul_rate(dtype, device=self.device)
        self.note = ""
        self._clear()
        self._last = time.perf_counter()

    def _clear(self) -> None:
        self.laps: dict[str, float] = defaultdict(float)
        self.steps, self.clips, self.tokens, self.flop = 0, 0, 0, 0.0

    def lap(self, name: str) -> None:
        """Book the time since the last lap under `name`."""
        wait_for(self.device)
        now = time.perf_counter()
        self.laps[name] += now - self._last
        self.seconds += now - self._last
        self._last = now

    def step(self, step: int, clips: int, tokens: int, flop: float) -> None:
        """End a step that trained on so many clips and visual tokens with so many operations."""
        self.steps, self.clips, self.tokens = self.steps + 1, self.clips + clips, self.tokens + tokens
        self.flop += flop
        if self.steps < self.every:
            return
        working = sum(seconds for name, seconds in self.laps.items() if name != "pauses")
        model = self.laps["forward"] + self.laps["backward"]
        share = self.flop / working / self.rate
        self.note = f"{self.clips / working:.1f} clips/s, {100 * share:.0f} % of matmul"
        self.log.write(
            step,
            **{name: round(seconds / self.steps, 5) for name, seconds in self.laps.items()},
            clips_per_s=round(self.clips / working, 3),
            tokens_per_s=round(self.tokens / working, 1),
            gflop_per_s=round(self.flop / working / 1e9, 2),
            matmul_gflop_per_s=round(self.rate / 1e9, 2),
            share_of_matmul=round(share, 4),
            share_in_model=round(model / working, 4),
        )
        self._clear()


@torch.no_grad()
def matmul_rate(
    dtype: torch.dtype = torch.float32,
    size: int | None = None,
    tries: int = 5,
    device: torch.device | str = "cpu",
) -> float:
    """Best FLOP/s of a matrix product with torch's present threads: the roof of training on this machine."""
    where = torch.device(device)
    size = size or (1024 if where.type == "cpu" else 8192)
    a, b = (torch.rand(size, size, device=where).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(tries):
        begin = time.perf_counter()
        a @ b
        wait_for(where)
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best


def count_flop(forward: Callable[[], Tensor]) -> float:
    """Operations of `forward` and of its backward pass: matrix products, convolutions, attention."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which torch's counter leaves out
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    formulas = {attention: _attention_flop, backward: _attention_backward_flop}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        torch.autograd.backward([forward()])
    return float(counter.get_total_flops())


def _attention_flop(query: Sequence[int], key: Sequence[int], *_: object, **__: object) -> int:
    """Two matrix products over (batch, heads, queries, width) and (batch, heads, keys, width)."""
    batch, heads, queries, width = query
    return 4 * batch * heads * queries * key[2] * width


def _attention_backward_flop(
    out: Sequence[int], query: Sequence[int], key: Sequence[int], *_: object, **__: object
) -> int:
    """Five products: the scores once more, and the gradients of scores, queries, keys, values."""
    return _attention_flop(query, key) * 5 // 2


def plot_losses(records: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Training loss (grey: each step, black: smoothed) and one coloured line for every "val ..." of a run's
    log.
    """
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        for name, value in record.items():
            if name == "loss" or name.startswith("val "):
                curves[name].append((record["step"], value))
    steps, losses = np.array(curves.pop("loss", [(0, 1.0), (1, 0.0)])).T
    width = max(1, len(losses) // 100)
    smooth = np.convolve(
        np.pad(losses, (width, width), mode="edge"), np.ones(2 * width + 1) / (2 * width + 1), "valid"
    )
    values = np.concatenate([smooth, *(np.array(curve)[:, 1] for curve in curves.values())])
    low, high = float(values.min()) * 0.95, float(values.max()) * 1.02 + 1e-9

    def place(step: float, value: float) -> tuple[float, float]:
        left, top, right, bottom = MARGIN
        x = left + (PLOT[0] - left - right) * step / max(steps[-1], 1)
        y = top + (PLOT[1] - top - bottom) * (1 - (min(max(value, low), high) - low) / (high - low))
        return x, y

    image = Image.new("RGB", PLOT, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for i in range(6):
        value, step = low + (high - low) * i / 5, steps[-1] * i / 5
        pen.line([place(0, value), place(steps[-1], value)], fill="#dddddd")
        pen.text((6, place(0, value)[1] - 7), f"{value:.3f}", fill="#555555", font=font)
        pen.text(
            (place(step, low)[0] - 12, PLOT[1] - MARGIN[3] + 8), f"{step:.0f}", fill="#555555", font=font
        )
    pen.line([place(*point) for point in zip(steps, losses)], fill="#cccccc")
    pen.line([place(*point) for point in zip(steps, smooth)], fill="black", width=2)
    for i, (name, curve) in enumerate(sorted(curves.items())):
        colour = COLOURS[i % len(COLOURS)]
        pen.line([place(*point) for point in curve], fill=colour, width=2)
        pen.text(
            (PLOT[0] - 150, MARGIN[1] + 8 + 17 * i), f"{name}  {curve[-1][1]:.3f}", fill=colour, font=font
        )
    return image
