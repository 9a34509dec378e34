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

TOKEN_FLOATS = 20
"""Peak floats per token and unit of width in a DiT block: residual, queries, keys, values, hidden, copies."""

LATENT_FLOATS = 7168
"""Peak floats per latent position while the VAE decodes a chunk: blocks at 1/4 resolution, pixels, copies."""

MATMUL_SHARE = 0.65
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
    dense = depth * width * (6 * width + 2 * model.dit.config.mlp_width)  # weights that every token passes
    forward = 2 * dense * tokens + 4 * depth * width * tokens**2
    detail = 8 * sum(parameter.numel() for parameter in model.vae.decoder.parameters())
    return Plan(max(sampling, decoding) + history, evaluations * forward + detail * latents)


def seconds(cost: Plan) -> float:
    """Expected seconds, from the best matmul rate seen on this machine in 20 ms."""
    left, right = torch.ones(256, 1024), torch.ones(1024, 256)
    until, best = time.perf_counter() + 0.02, math.inf
    while time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return cost.operations * best / (MATMUL_SHARE * 2 * left.numel() * right.shape[1])


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
        f"{recipe.size} with {recipe.frames} frames needs about {readable(need)}, "
        f"{readable(free)} are free; {remedy}."
    )


def largest_that_fits(model: Model, recipe: Recipe, free: int) -> Recipe | None:
    """The recipe at the largest size of its shape, in whole grid cells, that `free` bytes can hold."""
    step = model.vae.strides[1] * model.dit.config.patch[1]
    longest = max(recipe.width, recipe.height)
    low, high = 0, longest // step  # cells along the longer side; `low` fits (or is nothing)
    best: Recipe | None = None
    while low < high:
        cells = (low + high + 1) // 2
        width, height = (max(step, side * cells // longest * step) for side in (recipe.width, recipe.height))
        smaller = replace(recipe, width=width, height=height)
        if plan(model, smaller).memory <= free:
            low, best = cells, smaller
        else:
            high = cells - 1
    return best


def readable(amount: int) -> str:
    """Bytes for people: "80 MiB", "1.3 GiB"."""
    if amount < 2**30:
        return f"{max(amount, 2**20) / 2**20:.0f} MiB"
    return f"{amount / 2**30:.1f} GiB" if amount < 1000 * 2**30 else f"{amount / 2**40:.0f} TiB"
