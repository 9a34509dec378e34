"""Memory and time of a clip, told before anything is allocated."""

import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mutoscope.errors import InputError
from mutoscope.generation.request import Recipe, cover
from mutoscope.models.vae import latent_frames_per_chunk
from mutoscope.weights.store import Model

RESERVE = 256 * 2**20
"""Bytes left to the rest of the machine."""

TOKEN_FLOATS = 16
"""Peak floats per token and per unit of width in one DiT block: residual, queries, keys, values, 4x hidden, copies."""

LATENT_FLOATS = 6144
"""Peak floats per latent position while the VAE decodes a chunk: blocks at 1/4 resolution, pixels, copies."""

MATMUL_SHARE = 0.55
"""Share of the machine's matmul rate that sampling reaches on small grids."""


@dataclass(frozen=True)
class Plan:
    """What a clip will cost: peak bytes beyond the weights, and floating-point operations."""

    memory: int
    operations: float


def plan(model: Model, recipe: Recipe) -> Plan:
    """Predict peak memory (latents, the widest block, the pixels) and operations of sampling and decoding."""
    grid = cover(recipe, model.vae.strides, model.dit.config.patch)
    branches = 1 if recipe.guidance == 1 else 2
    latents = grid.frames * grid.height * grid.width
    tokens = latents // math.prod(model.dit.config.patch)
    width, depth = model.dit.config.width, model.dit.config.depth
    itemsize = model.vae.latent_mean.element_size()
    frames, rows, columns = grid.pixels
    pixels = frames * rows * columns
    chunk = min(grid.frames, latent_frames_per_chunk(grid.height, grid.width)) * grid.height * grid.width
    sampling = branches * tokens * width * TOKEN_FLOATS * itemsize
    decoding = chunk * LATENT_FLOATS * itemsize + 3 * pixels
    history = 8 * latents * model.vae.latent_channels * 4
    evaluations = recipe.steps * (2 if recipe.sampler == "heun" else 1) * branches
    weights = sum(parameter.numel() for parameter in model.dit.parameters())
    forward = 2 * weights * tokens + 4 * depth * width * tokens**2
    return Plan(max(sampling, decoding) + history, evaluations * forward + 0.5e6 * pixels)


def seconds(cost: Plan) -> float:
    """Expected seconds, from the matmul rate of this machine measured now (about 20 ms)."""
    left, right = torch.ones(512, 512), torch.ones(512, 512)
    torch.mm(left, right)
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < 0.02:
        torch.mm(left, right)
        rounds += 1
    rate = rounds * 2 * 512**3 / (time.perf_counter() - start)
    return cost.operations / (MATMUL_SHARE * rate)


def free_memory(device: torch.device) -> int:
    """Bytes that may be allocated: what the kernel calls available, within the limit of the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(0, min(limits) - RESERVE)


def refuse_what_does_not_fit(model: Model, recipe: Recipe) -> None:
    """Raise InputError, naming the largest size that fits, when the clip needs more memory than is free."""
    free = free_memory(model.vae.latent_mean.device)
    need = plan(model, recipe).memory
    if need <= free:
        return
    fitting = largest_that_fits(model, recipe, free)
    remedy = (
        f"{fitting.size} fits at this length"
        if fitting
        else "ask for a shorter clip: no size fits at this length"
    )
    raise InputError(
        f"{recipe.size} with {recipe.frames} frames needs about {gibibytes(need)}, "
        f"{gibibytes(free)} are free; {remedy}."
    )


def largest_that_fits(model: Model, recipe: Recipe, free: int) -> Recipe | None:
    """The recipe at the largest size of its shape, in whole grid cells, that `free` bytes can hold."""
    step = model.vae.strides[1] * model.dit.config.patch[1]
    longest = max(recipe.width, recipe.height)
    low, high = 0, longest // step  # cells along the longer side; `low` fits (or is nothing)
    best: Recipe | None = None
    while low < high:
        cells = (low + high + 1) // 2
        scale = cells * step / longest
        sides = {
            name: max(step, int(getattr(recipe, name) * scale) // step * step) for name in ("width", "height")
        }
        smaller = replace(recipe, **sides)
        if plan(model, smaller).memory <= free:
            low, best = cells, smaller
        else:
            high = cells - 1
    return best


def gibibytes(amount: int) -> str:
    """Bytes for people: "0.3 GiB"."""
    return f"{amount / 2**30:.1f} GiB" if amount < 1000 * 2**30 else f"{amount / 2**40:.0f} TiB"
