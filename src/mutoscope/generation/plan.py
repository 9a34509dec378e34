"""Memory, time and disk of a clip, told before anything is allocated."""

import math
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from torch import nn

from mutoscope.errors import InputError
from mutoscope.generation.large import PIECE, drafted
from mutoscope.generation.request import Grid, Recipe, cover
from mutoscope.generation.sampling import IN_TURN
from mutoscope.generation.windows import spans, window
from mutoscope.models.vace import VaceConfig
from mutoscope.models.vae import latent_frames_per_chunk
from mutoscope.models.wan_vae import WanVAE, frames_at_once, frames_per_chunk
from mutoscope.video import VideoWriter, fit, to_frames
from mutoscope.weights.residence import Placement, unread_bytes
from mutoscope.weights.residence import free_memory as free_memory  # told by plans too
from mutoscope.weights.store import Model

TOKEN_FLOATS = 20
"""Peak floats per token and unit of width in a DiT block: residual, queries, keys, values, hidden, copies."""

WAN_TOKEN_BYTES = {4: 48, 2: 32}
"""As TOKEN_FLOATS for Wan's blocks, in bytes, by the bytes of a weight: norms and rotations are in float32 in any type.

Measured 43 and 29 (two blocks of width 1280, two clips of 4096 tokens).
"""

LATENT_FLOATS, LATENT_PAST_FLOATS = 4500, 5000
"""Peak floats while the VAE decodes a chunk, per latent position of each of its frames (blocks at 1/4 resolution,
pixels, copies) and of one frame, for what the layers remember of the frames before.

Measured together 7600 to 9500 for one frame of 64x64 to 128x128, 12100 for two of 90x90, 140,000 for 32 of 16x16.
"""

WAN_PAST_FLOATS, WAN_PIXEL_FLOATS = {1: 35, 2: 54}, 7
"""Peak floats while Wan's VAE decodes, per pixel and channel at full resolution: of one frame, for what the layers
remember of the frames before and the smaller stages, by the VAE's patch, and of every frame that is enlarged at a time.

Measured together 41 (2.1 at full width, 448x320, one frame at a time) and 58 (2.2).
"""

WAN_PIXEL_OPERATIONS = 8.6e6
"""Operations of Wan's VAE per pixel of a decoded frame at 96 channels (2.1)."""

PIXEL_BYTES = 34
"""Peak bytes per pixel of the frames that are enlarged or rounded at a time: float copies and 8 bits."""

CODER_BYTES = 120
"""Bytes per pixel of one frame that the video coder holds: frames ahead, references, two threads."""

FIRST_USE = 25 * 2**20
"""Bytes that libraries take when they are first used."""

MATMUL_SHARE = 0.61
"""Share of the machine's matmul rate that sampling reaches, besides what each block costs by being called."""

BLOCK_OPERATIONS = 3e8
"""Operations of the matmul in the time that calling one block costs, however few its tokens."""

SEAM_OPERATIONS = 5e9
"""As BLOCK_OPERATIONS, for measuring how a trial moves at a seam."""

DECODE_SHARE = 1.25
"""As MATMUL_SHARE for the decoder; above 1, since its operations are counted as if all were at 1/4 resolution."""

WRITE_OPERATIONS, ENLARGE_OPERATIONS = 6500, 7000
"""Operations of the matmul in the time that one pixel takes to be rounded, converted and coded; to be enlarged.

They are no matmuls: from one machine to the next the ratio varies fourfold, so many pixels have a probe of their own.
"""

PIXELS_PROBED_FROM = 3.0
"""Seconds of writing from which its speed is measured; that takes 0.1 to 0.3 s."""

PIXEL_DISK = 0.1
"""Bytes of a written pixel of a clip, at crf 14; 0.05 to 0.3 by how much happens."""

STILL_DISK = 2.0
"""Bytes of a written pixel of a picture."""

CARD_RESERVE = 768 * 2**20
"""Bytes of a GPU that its driver and the libraries take."""

LOSS = "each weight is off by 0.5 % (docs/wan.md)"
"""The cost in quality of weights in 8 bits."""

PROBE_SECONDS, PROBE_SHARE, PROBE_AT_MOST = 0.05, 0.05, 0.3
"""How long the machine's speed is measured; then, for so large a share of what was expected, but no longer, once more:
a process's threads may begin on one core and need some tenths of a second to find another.
"""


@dataclass(frozen=True)
class Plan:
    """What a clip will cost: peak bytes beyond the weights in memory, floating-point operations, bytes on disk.

    Weights that are read when they are first used count (see `weights.residence`); they stay.
    """

    memory: int
    sampling: float
    decoding: float
    calling: float  # what calling blocks and measuring motion takes, as operations of the matmul in that time
    disk: int
    written: int  # pixels
    enlarged: bool  # before they are written

    @property
    def operations(self) -> float:
        """Of sampling and decoding together."""
        return self.sampling + self.decoding


def plan(model: Model, recipe: Recipe, whole: bool = True) -> Plan:
    """Predict memory, operations and disk, allocating nothing.

    `whole`: all frames are held at once, as in a Video, and not only those that are being written.
    """
    grid = cover(drafted(recipe), model.vae.strides, model.dit.config.patch)
    cut = spans(grid.frames, window(model))
    branches = 1 if recipe.guidance == 1 else 2
    position = grid.height * grid.width
    latents = grid.frames * position
    drawn = cut[0].stop - cut[0].start + _beside(recipe)
    tokens = drawn * position // math.prod(model.dit.config.patch)
    width, depth = model.dit.config.width, model.dit.config.depth
    pixels = recipe.frames * recipe.height * recipe.width
    frame = recipe.height * recipe.width
    sampling, decoding = working(model, recipe, whole, next(model.dit.parameters()).element_size())
    sampling += unpacked(model, model.placement)
    writing = PIXEL_BYTES * frame * min(recipe.frames, max(1, PIECE // frame))
    coder = CODER_BYTES * frame if recipe.frames > 1 else 0
    held = 8 * latents * model.vae.latent_channels * 4 + (3 * pixels if whole else 0)
    evaluations = 2 if recipe.sampler == "heun" else 1
    tried = len(cut) if recipe.task else 1  # windows with trials; those of one are one batch
    drawings = evaluations * (len(cut) * recipe.steps + tried * recipe.candidates * recipe.trial_steps)
    calls = evaluations * (len(cut) * recipe.steps + tried * recipe.trial_steps)
    seams = tried * recipe.candidates if recipe.task and recipe.trial_steps else 0
    dense = depth * width * (6 * width + 2 * model.dit.config.mlp_width)  # weights that every token passes
    forward = 2 * dense * tokens + 4 * depth * width * tokens**2
    detail = _latent_operations(model)
    journal = (latents + recipe.steps * branches * tokens) * model.vae.latent_channels * 4
    return Plan(
        memory=int(max(sampling, decoding, writing) + coder + held + FIRST_USE + unread_bytes(model.dit)),
        sampling=float(drawings * branches * forward),
        decoding=float(detail * (latents + seams * drawn * position)),
        calling=float(calls * depth * BLOCK_OPERATIONS + seams * SEAM_OPERATIONS),
        disk=int((PIXEL_DISK if recipe.frames > 1 else STILL_DISK) * pixels) + journal,
        written=pixels,
        enlarged=recipe.draft is not None,
    )


def _beside(recipe: Recipe) -> int:
    """Latent frames of references that are no frames of the grid."""
    return 0 if recipe.lead else len(recipe.references)


def working(model: Model, recipe: Recipe, whole: bool, itemsize: int) -> tuple[int, int]:
    """Peak bytes of sampling and of decoding beside weights and latents; itemsize: bytes of a transformer's number."""
    grid = cover(drafted(recipe), model.vae.strides, model.dit.config.patch)
    first = spans(grid.frames, window(model))[0]
    position = grid.height * grid.width
    tokens = (len(range(first.start, first.stop)) + _beside(recipe)) * position
    tokens = tokens // math.prod(model.dit.config.patch)
    tokens *= 1 if recipe.guidance == 1 or tokens > IN_TURN else 2
    wans = isinstance(cast(nn.Module, model.vae), WanVAE)
    each = WAN_TOKEN_BYTES[itemsize] if wans else TOKEN_FLOATS * itemsize
    config = model.dit.config
    hints = len(config.hinted) * itemsize if isinstance(config, VaceConfig) else 0
    frames = min(grid.frames if whole else first.stop, _chunk(model, grid.height, grid.width))
    decoding = _decoding_floats(model, grid, frames) * model.vae.latent_mean.element_size()
    return tokens * config.width * (each + hints), decoding


def card_memory(model: Model, recipe: Recipe, placement: Placement, whole: bool = True) -> int:
    """Peak bytes on a GPU where the weights are placed so, those of the text encoder counted in their turn."""
    sampling, decoding = working(model, recipe, whole, placement.dtype.itemsize)
    sizes = {name: one.numel() * placement.dtype.itemsize for name, one in model.dit.named_parameters()}
    outside = sum(size for name, size in sizes.items() if "blocks." not in name)
    transformer = outside + max(sizes.values()) if placement.residence == "file" else placement.transformer
    sampling += unpacked(model, placement)
    together = placement.text if placement.residence == "memory" else 0
    made = placement.vae + transformer + max(sampling, decoding)
    return FIRST_USE + max(made, placement.vae + together + transformer, placement.text + placement.vae)


def unpacked(model: Model, placement: Placement | None) -> int:
    """Bytes of the largest matrix of the blocks while it is made from 8 bits, by way of float32."""
    if placement is None or placement.weights == "exact":
        return 0
    numbers = max(one.numel() for name, one in model.dit.named_parameters() if "blocks." in name)
    return numbers * (4 + placement.dtype.itemsize)


def _chunk(model: Model, height: int, width: int) -> int:
    """Latent frames that the VAE decodes at a time."""
    vae: nn.Module = model.vae
    wans = isinstance(vae, WanVAE)
    return frames_per_chunk(height, width) if wans else latent_frames_per_chunk(height, width)


def _decoding_floats(model: Model, grid: Grid, frames: int) -> int:
    """Peak floats while the VAE decodes so many latent frames."""
    vae: nn.Module = model.vae
    if not isinstance(vae, WanVAE):
        return (LATENT_PAST_FLOATS + LATENT_FLOATS * frames) * grid.height * grid.width
    time, config = vae.strides[0], vae.config
    large = min(time * frames, frames_at_once(grid.height, grid.width, time))
    pixels = grid.pixels[1] * grid.pixels[2] // config.patch**2
    past = WAN_PAST_FLOATS[config.patch]
    return (past + WAN_PIXEL_FLOATS * large) * config.decoder_width * pixels


def _latent_operations(model: Model) -> float:
    """Operations of decoding one latent position."""
    vae: nn.Module = model.vae
    if not isinstance(vae, WanVAE):
        return 8 * sum(parameter.numel() for parameter in model.vae.decoder.parameters())
    config = vae.config
    return WAN_PIXEL_OPERATIONS * (config.decoder_width / 96 / config.patch) ** 2 * math.prod(config.strides)


def seconds(cost: Plan) -> float:
    """Expected seconds, from the machine's matmul rate and, of many pixels, from how fast it writes them."""
    work = cost.sampling / MATMUL_SHARE + cost.decoding / DECODE_SHARE + cost.calling
    writing = cost.written * (WRITE_OPERATIONS + ENLARGE_OPERATIONS * cost.enlarged)
    rate = matmul_rate(PROBE_SECONDS)
    rate = max(rate, matmul_rate(min(PROBE_SHARE * (work + writing) / rate, PROBE_AT_MOST)))
    if writing >= PIXELS_PROBED_FROM * rate:
        with suppress(OSError, InputError):  # no room for the probe's file
            return work / rate + cost.written / pixel_rate(cost.enlarged)
    return (work + writing) / rate


def pixel_rate(enlarged: bool) -> float:
    """Pixels a second that are written, and enlarged before: of 16 frames of 640x360, waves of which a third moves."""
    frames, height, width = 16, 360, 640
    shrink = 4 if enlarged else 1
    right, down = torch.arange(width // shrink) * shrink / 50, torch.arange(height // shrink) * shrink / 30
    phase_TW = torch.arange(frames)[:, None] / 5 * (right > right.max() * 2 / 3)
    waves_THW = torch.sin(phase_TW[:, None] + right) * torch.cos(down[:, None])
    video_CTHW = torch.stack([waves_THW, waves_THW.flip(1), -waves_THW])
    start = time.perf_counter()
    with TemporaryDirectory() as folder, VideoWriter(Path(folder) / "a.mp4", width, height, 8.0) as writer:
        for piece_CTHW in torch.split(video_CTHW, 4, dim=1):
            writer.write(to_frames(fit(piece_CTHW[None], height, width)[0]))
    return frames * height * width / (time.perf_counter() - start)


def matmul_rate(probe: float) -> float:
    """Operations a second of a small matmul, the best in `probe` seconds."""
    left, right = torch.ones(256, 1024), torch.ones(1024, 256)
    until, best = time.perf_counter() + probe, math.inf
    while best == math.inf or time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return 2 * left.numel() * right.shape[1] / best


def refuse_what_does_not_fit(model: Model, recipe: Recipe, whole: bool = True) -> None:
    """Raise InputError, naming the largest size that fits, when the clip needs more memory than is free."""
    refuse_above(model, recipe, free_memory(model.vae.latent_mean.device), memory_here(model, whole))


def memory_here(model: Model, whole: bool) -> Callable[[Recipe], int]:
    """What a clip needs on the model's own device."""
    return lambda recipe: plan(model, recipe, whole).memory


def refuse_above(model: Model, recipe: Recipe, free: int, needed: Callable[[Recipe], int]) -> None:
    """Raise InputError, naming the largest size that fits, when what is needed is more than is free."""
    need = needed(recipe)
    if need <= free:
        return
    fitting = largest_that_fits(model, recipe, free, needed)
    remedy = (
        f"{fitting.size} fits at this length"
        if fitting
        else "ask for a shorter clip: no size fits at this length"
    )
    if not fitting and model.placement is not None and model.placement.weights == "int8":
        remedy += ", or leave out --weights int8, so that weights may stay in their file"
    raise InputError(
        f"{recipe.size} with {recipe.frames} frames needs about {readable(need)}, "
        f"{readable(free)} are free; {remedy}."
    )


def told(placement: Placement) -> str:
    """Where the weights go, in words."""
    kind = str(placement.dtype).removeprefix("torch.")
    kind = kind if placement.weights == "exact" else f"8 bits and {kind}"
    text, transformer, vae = map(readable, (placement.text, placement.transformer, placement.vae))
    return {
        "memory": f"text encoder {text}, transformer {transformer} in {kind} and VAE {vae}, all in memory",
        "late": f"text encoder {text}, let go before the transformer of {transformer} in {kind} is read; VAE {vae}",
        "file": f"text encoder {text}, let go; transformer of {transformer} in {kind}, each block brought from its "
        f"file when it is used; VAE {vae}",
    }[placement.residence]


def in_8_bits(placement: Placement, free: int, needed: Callable[[Placement], int]) -> str:
    """What weights in 8 bits would change, in words; nothing when exact ones fit or those do not either.

    needed: the bytes that the clip takes with the weights placed so.
    """
    small = replace(placement, weights="int8").within(free)
    if placement.residence != "file" or needed(small) > free:
        return ""
    return f"--weights int8 takes {readable(small.transformer)} and stays in memory, at a small loss: {LOSS}"


def free_disk(folder: Path) -> int:
    """Bytes that may be written into a folder."""
    return shutil.disk_usage(folder).free


def refuse_what_the_disk_lacks(cost: Plan, folder: Path) -> None:
    """Raise InputError when a clip and what is kept while it is made need more than the disk has."""
    free = free_disk(folder)
    if cost.disk > free:
        raise InputError(
            f"The clip needs about {readable(cost.disk)} of disk, {str(folder)!r} has {readable(free)}; free "
            "some, or choose another place with -o."
        )


def largest_that_fits(
    model: Model, recipe: Recipe, free: int, needed: Callable[[Recipe], int] | None = None
) -> Recipe | None:
    """The recipe at the largest size of its shape, in whole grid cells, that `free` bytes can hold.

    needed: bytes that a recipe takes; None means a whole clip on the model's own device.
    """
    needed = needed or memory_here(model, whole=True)
    step = model.vae.strides[1] * model.dit.config.patch[1]
    longest = max(recipe.width, recipe.height)
    low, high = 0, longest // step  # cells along the longer side; `low` fits (or is nothing)
    best: Recipe | None = None
    while low < high:
        cells = (low + high + 1) // 2
        width, height = (max(step, side * cells // longest * step) for side in (recipe.width, recipe.height))
        smaller = replace(recipe, width=width, height=height)
        if needed(smaller) <= free:
            low, best = cells, smaller
        else:
            high = cells - 1
    return best


def readable(amount: int) -> str:
    """Bytes for people: "80 MiB", "1.3 GiB"."""
    if amount < 2**30:
        return f"{max(amount, 2**20) / 2**20:.0f} MiB"
    return f"{amount / 2**30:.1f} GiB" if amount < 1000 * 2**30 else f"{amount / 2**40:.0f} TiB"
