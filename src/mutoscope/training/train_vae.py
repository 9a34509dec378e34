"""Train the video VAE on the built-in world: one loop, from principal components to a model folder.

Clips are rendered as they are needed; the batch of a step is a function of (seed, step), so a run that is killed
and resumed gives the same weights, bit for bit, as one left alone (same machine, same number of threads).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.models.vae import VAE, VAE_PRESETS, per_channel
from mutoscope.training.machine import DeviceName, autocast, device_of
from mutoscope.training.monitor import plot_losses
from mutoscope.training.optimizer import OptimizerConfig, update
from mutoscope.training.run import Run, begun, due, look_for, record, steps
from mutoscope.training.state import StopSignal, claimed, clock, say
from mutoscope.video import to_frames
from mutoscope.weights.card import ModelCard
from mutoscope.weights.store import Model, load, save_model
from mutoscope.world.captions import caption
from mutoscope.world.render import render_with_mask
from mutoscope.world.scene import Scene, SceneMix, View, sample_scene

VALIDATION_SEED = 2**40  # scenes from here on are never trained on
STATISTICS_SEED = 2**41


@dataclass(frozen=True)
class Bucket:
    """One shape of clips and its share of the steps; `clips` are rendered for a step."""

    frames: int
    height: int
    width: int
    probability: float
    clips: int

    def __post_init__(self) -> None:
        time, space, _ = VAE.strides
        sides = (self.height, self.width)
        if self.frames % time != 1 or any(side < 1 or side % space for side in sides):
            raise InputError(
                f"bucket {self.width}x{self.height}x{self.frames} is off the grid of the VAE: sides are multiples "
                f"of {space}, frames 1 + {time}k."
            )


@dataclass(frozen=True)
class VAELoss:
    """Weights of the loss (recipe: L1 + 2 MSE + 0.5 gradient L1 + 3e-4 KL), `objects` times on object pixels.

    change: of the L1 of the change from frame to frame, against a jump at every latent frame.
    """

    l1: float = 1.0
    mse: float = 2.0
    gradient: float = 0.5
    change: float = 0.0
    kl: float = 3e-4
    objects: float = 4.0


@dataclass(frozen=True)
class TrainVAEConfig:
    """One run into the folder `out`; size names a preset.

    decoder_of: a model folder whose VAE is trained on, its decoder alone, so that latents mean what they meant. With
    denoise_from above 0 the decoder is shown what the DiT of that folder makes of latents at noise levels up to it:
    it learns to mend the errors of generated clips (LTX-Video's decoder also ends the denoising, HaCohen et al. 2024,
    arXiv 2501.00103). blemishes: size, at most, of errors that are added to latents of variance 1, patch by patch: what
    samplers leave shows as squares in plain skies unless the decoder has seen it.
    precision "bf16" computes activations in bfloat16, which pays on CPUs with AMX and on GPUs; weights and
    losses stay fp32. threads: of torch, 0 leaves its choice. device: "auto" is the GPU if there is one, where clips
    are rendered too. minutes: of one sitting, which then saves and ends with exit code 75. Lengths are in steps; 0
    turns a thing off.
    """

    out: str
    buckets: tuple[Bucket, ...]
    size: str = "tiny"
    decoder_of: str | None = None
    denoise_from: float = 0.0
    blemishes: float = 0.0
    world: SceneMix = field(default_factory=SceneMix)
    loss: VAELoss = field(default_factory=VAELoss)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: float = 0.99
    seed: int = 0
    threads: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    shortcut_clips: int = 512
    checkpoint_every: int = 500
    keep: int = 2
    validate_every: int = 250
    validation_clips: int = 32
    device: DeviceName = "auto"
    minutes: float = 0.0

    def __post_init__(self) -> None:
        if self.size not in VAE_PRESETS:
            raise InputError(f"size {self.size!r} is unknown: choose one of {', '.join(VAE_PRESETS)}.")
        if (
            not self.buckets
            or min(b.probability for b in self.buckets) < 0
            or min(b.clips for b in self.buckets) < 1
        ):
            raise InputError("buckets: at least one, with probability >= 0 and clips >= 1.")
        if not 0 <= self.denoise_from < 1 or (self.denoise_from and self.decoder_of is None):
            raise InputError(
                f"denoise_from is {self.denoise_from:g}: it must be 0, or below 1 with a model folder in decoder_of."
            )
        if not 0 <= self.blemishes <= 1 or (self.blemishes and self.decoder_of is None):
            raise InputError(
                f"blemishes is {self.blemishes:g}: it must be 0, or at most 1 with a model folder in decoder_of."
            )


@dataclass(frozen=True)
class Work:
    """All that the loop works with."""

    config: TrainVAEConfig
    device: torch.device
    vae: VAE
    denoiser: Model | None  # of which the decoder alone is trained
    run: Run


def train_vae(config: TrainVAEConfig, resume: str | None = None) -> Path:
    """Train, and return the model folder `out`/model (a VAE alone).

    resume: None begins a new run, "auto" continues one if there is one, anything else is a checkpoint folder.
    Raises InputError for a config that cannot work, FloatingPointError before the update that a NaN or Inf would
    spoil, SystemExit(75) after a signal, with a checkpoint saved.
    """
    with claimed(Path(config.out)), StopSignal() as stop:
        work = begin(config, resume)
        with closing(work.run) as run:
            for step in steps(run, stop, minutes=config.minutes):
                video_BCTHW, mask_B1THW = clips_of_step(config, step, work.device)
                if work.denoiser is None:
                    loss = vae_loss(work.vae, video_BCTHW, mask_B1THW, config, step)
                else:
                    loss = decoder_loss(work.denoiser, video_BCTHW, mask_B1THW, config, step)
                torch.autograd.backward([loss])
                factor, norm = update(run.optimizers, step, loss.item(), config.optimizer)
                run.ema.update()
                run.log.write(step, loss=loss.item(), gradient=norm, rate=factor)
                run.progress.update(step, f"loss {loss.item():.4f}")
                if run.is_last or due(config.validate_every, step):
                    figures = validate(work)
                    run.log.write(step, **figures)
                    told = (f"{name} {value:.2f} dB" for name, value in figures.items())
                    say(f"step {step}: {', '.join(told)}")
            return finish(work)


def clips_of_step(
    config: TrainVAEConfig, step: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """video_BCTHW and mask_B1THW of the objects, a function of (seed, step)."""
    scenes, view = scenes_of_step(config, step)
    return render_with_mask(scenes, view, device)


def scenes_of_step(config: TrainVAEConfig, step: int) -> tuple[list[Scene], View]:
    choose = np.random.default_rng((config.seed, step))
    shares = np.array([bucket.probability for bucket in config.buckets])
    bucket = config.buckets[choose.choice(len(shares), p=shares / shares.sum())]
    seeds = choose.integers(VALIDATION_SEED, size=bucket.clips)
    scenes = [sample_scene(int(seed), config.world) for seed in seeds]
    return scenes, View(bucket.width, bucket.height, bucket.frames)


def vae_loss(vae: VAE, video_BCTHW: Tensor, mask_B1THW: Tensor, config: TrainVAEConfig, step: int) -> Tensor:
    """Reconstruction from a sample of the posterior, plus the KL divergence per value."""
    with autocast(video_BCTHW.device, config.precision):
        mean_BCTHW, logvar_BCTHW = vae.posterior(video_BCTHW)
    mean_BCTHW, logvar_BCTHW = mean_BCTHW.float(), logvar_BCTHW.float()
    noise_BCTHW = noise_of_step(mean_BCTHW, config, step)
    sample_BCTHW = mean_BCTHW + noise_BCTHW * (logvar_BCTHW / 2).exp()
    kl = 0.5 * (mean_BCTHW.square() + logvar_BCTHW.exp() - 1 - logvar_BCTHW).mean()
    return config.loss.kl * kl + pixel_loss(vae, sample_BCTHW, video_BCTHW, mask_B1THW, config)


def decoder_loss(
    model: Model, video_BCTHW: Tensor, mask_B1THW: Tensor, config: TrainVAEConfig, step: int
) -> Tensor:
    """Reconstruction from what the model's DiT, told the medium captions, makes of noised latents of the clips."""
    vae = model.vae
    with torch.no_grad(), autocast(video_BCTHW.device, config.precision):
        mean_C, std_C = per_channel(vae.latent_mean), per_channel(vae.latent_std)
        latent_BCTHW = (vae.posterior(video_BCTHW)[0].float() - mean_C) / std_C
        if config.denoise_from:
            scenes, view = scenes_of_step(config, step)
            text_BLD, mask_BL = model.text([caption(scene, view, "medium", step) for scene in scenes])
            sigma_B = torch.linspace(0, config.denoise_from, len(scenes) + 1, device=video_BCTHW.device)[1:]
            noised_BCTHW = model.process.noised(
                latent_BCTHW, noise_of_step(latent_BCTHW, config, step), sigma_B
            )
            prediction = model.dit(noised_BCTHW, model.process.timestep(sigma_B), text_BLD, mask_BL)
            latent_BCTHW = model.process.to_x0(prediction.float(), noised_BCTHW, sigma_B)
        if config.blemishes:
            latent_BCTHW = latent_BCTHW + blemishes_of_step(latent_BCTHW, model, config, step)
    return pixel_loss(vae, latent_BCTHW * std_C + mean_C, video_BCTHW, mask_B1THW, config)


def noise_of_step(like_BCTHW: Tensor, config: TrainVAEConfig, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(hash((config.seed, step)) % 2**62)
    return torch.randn(like_BCTHW.shape, generator=generator).to(like_BCTHW.device)


def blemishes_of_step(like_BCTHW: Tensor, model: Model, config: TrainVAEConfig, step: int) -> Tensor:
    """Errors as samplers leave them: of every position, of every patch of the DiT, and of every patch all the time.

    Their sizes go from near 0 to the config's over the clips.
    """
    _, rows, columns = model.dit.config.patch
    clips, channels, frames, height, width = like_BCTHW.shape
    patches = (-(-height // rows), -(-width // columns))
    generator = torch.Generator().manual_seed(hash((config.seed, step, 1)) % 2**62)
    own_BCTHW = torch.randn(like_BCTHW.shape, generator=generator)
    patch_BCTHW = torch.randn((clips, channels, frames, *patches), generator=generator)
    lasting_BCTHW = torch.randn((clips, channels, 1, *patches), generator=generator)
    wide_BCTHW = (patch_BCTHW + lasting_BCTHW).repeat_interleave(rows, 3).repeat_interleave(columns, 4)
    size_B1111 = torch.linspace(0, config.blemishes, clips + 1)[1:, None, None, None, None]
    blemishes_BCTHW = (own_BCTHW + wide_BCTHW[..., :height, :width]) / 3**0.5 * size_B1111
    return blemishes_BCTHW.to(like_BCTHW.device)


def pixel_loss(
    vae: VAE, latent_BCTHW: Tensor, video_BCTHW: Tensor, mask_B1THW: Tensor, config: TrainVAEConfig
) -> Tensor:
    """How far the decoded latents (not normalised) are from the clips, object pixels weighted."""
    with autocast(video_BCTHW.device, config.precision):
        output_BCTHW = vae.reconstruct(latent_BCTHW)
    error_BCTHW = output_BCTHW.float() - video_BCTHW
    weight_B1THW = 1 + (config.loss.objects - 1) * mask_B1THW
    rows_BCTHW = error_BCTHW[..., 1:, :] - error_BCTHW[..., :-1, :]
    columns_BCTHW = error_BCTHW[..., 1:] - error_BCTHW[..., :-1]
    loss = (
        config.loss.l1 * (weight_B1THW * error_BCTHW.abs()).mean()
        + config.loss.mse * (weight_B1THW * error_BCTHW.square()).mean()
        + config.loss.gradient * (rows_BCTHW.abs().mean() + columns_BCTHW.abs().mean())
    )
    if config.loss.change and video_BCTHW.shape[2] > 1:
        loss = loss + config.loss.change * error_BCTHW.diff(dim=2).abs().mean()
    return loss


# --- beginning

# What may differ between a run and its continuation: it changes no weight.
FREE = (
    "out",
    "checkpoint_every",
    "keep",
    "validate_every",
    "validation_clips",
    "device",
    "compile",
    "minutes",
)


def begin(config: TrainVAEConfig, resume: str | None) -> Work:
    """Build everything, fresh (on principal components of the world's clips) or from a checkpoint."""
    found, device = look_for(config, resume, FREE), device_of(config.device)
    denoiser = None if config.decoder_of is None else load(config.decoder_of, device)
    vae = VAE(VAE_PRESETS[config.size]) if denoiser is None else denoiser.vae
    if denoiser is not None:
        for part in (vae.encoder, vae.shortcut_in):
            part.requires_grad_(False)
        vae.decoder.requires_grad_(True)
        vae.shortcut_out.requires_grad_(True)
    elif not found:
        vae.fit_shortcut(fresh_clips(config, config.buckets[0], 0, config.shortcut_clips))
    run = begun("train vae", config, {"vae": vae.to(device)}, found)
    return Work(config, device, vae, denoiser, run)


def fresh_clips(
    config: TrainVAEConfig, bucket: Bucket, seed: int, count: int, device: torch.device | str = "cpu"
) -> Tensor:
    """video_BCTHW of `count` scenes from `seed` on."""
    scenes = [sample_scene(seed + i, config.world) for i in range(count)]
    return render_with_mask(scenes, View(bucket.width, bucket.height, bucket.frames), device)[0]


# --- pauses: validation, pictures, checkpoints, the end


@torch.no_grad()
def validate(work: Work) -> dict[str, float]:
    """PSNR in dB of the averaged weights, mean over fresh clips, one figure per shape; and two pictures."""
    config, run, figures = work.config, work.run, {}
    plot_losses(run.log.records()).save(run.folder / "loss.png")
    with run.ema.applied():
        for bucket in config.buckets:
            video_BCTHW = fresh_clips(config, bucket, VALIDATION_SEED, config.validation_clips, work.device)
            output_BCTHW = work.vae.reconstruct(work.vae.posterior(video_BCTHW)[0]).clamp(-1, 1)
            error_B = ((output_BCTHW - video_BCTHW) / 2).square().flatten(1).mean(1)
            name = f"psnr {bucket.width}x{bucket.height}x{bucket.frames}"
            figures[name] = float((-10 * error_B.log10()).mean())
            if bucket is config.buckets[0]:
                draw(run, video_BCTHW[:8], output_BCTHW[:8])
    return figures


def draw(run: Run, video_BCTHW: Tensor, output_BCTHW: Tensor) -> None:
    """Write samples/step-N.png: a column per clip, first and last frame, each above its reconstruction."""
    rows: list[Sequence[np.ndarray]] = []
    for moment in (0, -1):
        rows += [
            [to_frames(clip[:, moment : moment + 1 or None])[0] for clip in part]
            for part in (video_BCTHW, output_BCTHW)
        ]
    (run.folder / "samples").mkdir(exist_ok=True)
    grid_HWC = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    Image.fromarray(grid_HWC).save(run.folder / "samples" / f"step-{run.step:08d}.png")


@torch.no_grad()
def measure_latents(work: Work) -> None:
    """Set the statistics that normalise latents, from the mode of fresh clips; carried weights are used."""
    vae = work.vae
    means = [vae.posterior(statistics_clips(work, i))[0] for i in range(8)]
    values_CS = torch.cat(means).transpose(0, 1).flatten(1)
    vae.latent_mean.copy_(values_CS.mean(1))
    vae.latent_std.copy_(values_CS.std(1))


def statistics_clips(work: Work, part: int) -> Tensor:
    """32 fresh clips of the first bucket."""
    return fresh_clips(work.config, work.config.buckets[0], STATISTICS_SEED + 32 * part, 32, work.device)


def finish(work: Work) -> Path:
    """Write the model folder with the averaged weights and the record of how they came about."""
    run, vae = work.run, work.vae
    with run.ema.applied():
        if work.denoiser is None:
            measure_latents(work)
        validation = {
            name: value
            for line in run.log.records()
            for name, value in line.items()
            if name.startswith("psnr ")
        }
        # Nothing is trained on what comes of this, so it comes last.
        motion = vae.match_motion(statistics_clips(work, 0))
        training = record(run, work.device) | {"validation": validation, "motion": motion}
        card = ModelCard(f"vae-{work.config.size}", training=training)
        path = save_model(run.folder / "model", vae=vae.eval(), card=card)
    say(f"{path}: {run.step} steps in {clock(run.seconds)}, {validation}.")
    return path
