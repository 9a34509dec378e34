"""Train the diffusion transformer and its text encoder on a latent cache: one loop, from the first step to
a model.

The loop is `train_dit`. What it needs at the start is built by `begin`, what it writes on the way is at the
foot. A run killed at any moment and resumed gives the same weights, averages and log, bit for bit, as one
left alone (same machine, same number of threads), because a step depends on nothing but the weights, the
optimisers and its number.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim import Optimizer

from mutoscope.config import from_dict, to_dict, write_json
from mutoscope.data.batches import BatchConfig, Batches, Group, diffusion_loss, predict
from mutoscope.data.latents import Latents, Size
from mutoscope.data.world_latents import WorldData, WorldLatents
from mutoscope.diffusion.noise import addressed_noise
from mutoscope.diffusion.process import Process
from mutoscope.diffusion.sampler import euler
from mutoscope.errors import InputError
from mutoscope.models.compilation import compile_blocks, uncompiled
from mutoscope.models.dit import DIT_PRESETS, DiT, DiTConfig
from mutoscope.models.text import TEXT_PRESETS, Text, TextConfig, TextEncoder, train_tokenizer
from mutoscope.models.unet import UNET_PRESETS, UNet, UNetConfig
from mutoscope.models.vae import VAE
from mutoscope.training.machine import (
    DeviceName,
    Leg,
    autocast,
    device_of,
    dtype_of,
    keep_memory,
    words_for,
)
from mutoscope.training.monitor import Watch, count_flop, plot_losses
from mutoscope.training.optimizer import (
    OptimizerConfig,
    build_optimizers,
    clip_gradients,
    orthogonalised,
    set_learning_rate,
)
from mutoscope.training.parallel import (
    Ranks,
    gathered,
    joined,
    load_ema,
    load_optimizer,
    orthogonalised_by_owners,
    part_of_the_loss,
    refuse_empty_shares,
    shard,
    whole,
)
from mutoscope.training.run import due
from mutoscope.training.state import (
    EMA,
    TRY_AGAIN,
    Progress,
    RunLog,
    StopSignal,
    checkpoint_to_resume,
    claimed,
    clock,
    load_checkpoint,
    refuse_changes,
    require_space,
    save_checkpoint,
    say,
    sweep,
    writing,
)
from mutoscope.video import to_frames
from mutoscope.weights.card import ModelCard
from mutoscope.weights.store import load, load_vae, save_model

T = TypeVar("T")
COMPILED_TEXT = 64  # tokens that texts are padded to multiples of, for compiled blocks: few lengths
VALIDATION_LEVELS = 10  # fixed noise levels of the validation loss


@dataclass(frozen=True)
class TrainDiTConfig:
    """One run. latents: a folder of `mutoscope data encode` or several, or "world"; vae: the model folder that made
    them; out: the run.

    size names a preset of the network and of the text encoder; dit and text change single numbers of it.
    network: "unet" is the rival of the transformer (models/unet.py), for comparisons in one process.
    init_from: a model folder to start from (its sizes and tokenizer are kept, dit may add to it). tokenizer: a
    tokenizer.json; trained on captions if left out. change: see `diffusion_loss`. device: "auto" is the GPU if there is
    one. compile: whether torch.compile takes the blocks, which pays after some minutes, most of all where batches are
    bucketed. minutes: of one sitting, which then saves and ends with exit code 75. Lengths of time are in steps unless
    they say otherwise; 0 turns a thing off.
    """

    latents: str | tuple[str, ...]
    vae: str
    out: str
    batches: BatchConfig
    size: str = "tiny"
    network: Literal["dit", "unet"] = "dit"
    dit: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)
    process: Process = field(default_factory=Process)
    change: float = 0.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: float = 0.995
    seed: int = 0
    threads: int = 0  # of torch; 0 leaves its choice
    precision: Literal["fp32", "bf16"] = "fp32"  # of activations; bf16 pays on GPUs and on CPUs with AMX
    init_from: str | None = None
    tokenizer: str | None = None
    tokenizer_captions: int = 20_000
    checkpoint_every: int = 200
    checkpoint_minutes: float = 10.0
    keep: int = 2
    validate_every: int = 200
    validation_clips: int = 32
    sample_every: int = 400
    sample_steps: int = 16
    guidance: float = 4.0
    prompts: tuple[str, ...] = ("a red ball rolls to the right", "a blue box moves up")
    world: WorldData = field(default_factory=WorldData)
    device: DeviceName = "auto"
    compile: bool = False
    minutes: float = 0.0

    def __post_init__(self) -> None:
        if self.size not in DIT_PRESETS or self.size not in TEXT_PRESETS:
            raise InputError(f"size {self.size!r} is unknown: choose one of {', '.join(TEXT_PRESETS)}.")
        for name in ("threads", "checkpoint_every", "validate_every", "sample_every", "validation_clips"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 0 (off) or more.")
        if self.change < 0:
            raise InputError(f"change is {self.change:g}: it must be 0 or more.")
        if self.minutes < 0:
            raise InputError(f"minutes is {self.minutes:g}: it must be 0 (no limit) or more.")
        if self.keep < 1 or self.sample_steps < 1:
            raise InputError("keep and sample_steps must be at least 1.")


# What may differ between a run and its continuation: it changes no weight.
FREE = {"out", "checkpoint_every", "checkpoint_minutes", "keep"}
FREE |= {"device", "compile", "minutes"}  # other last bits at most
FREE |= {"validate_every", "validation_clips", "sample_every", "sample_steps", "guidance", "prompts"}


@dataclass
class Run:
    """All that the loop works with."""

    config: TrainDiTConfig
    ranks: Ranks
    folder: Path
    device: torch.device
    vae: VAE
    dit: DiT
    text: Text
    batches: Batches
    optimizers: list[Optimizer]
    ema: EMA
    log: RunLog
    speed: RunLog
    step: int  # steps done
    seconds: float  # spent in earlier sittings
    progress: Progress

    def close(self) -> None:
        self.log.close()
        self.speed.close()
        self.progress.close()
        if isinstance(self.batches.latents, WorldLatents):
            self.batches.latents.close()


def train_dit(config: TrainDiTConfig, resume: str | None = None) -> Path:
    """Train, and return the model folder `out`/model.

    resume: None begins a new run, "auto" continues one if there is one, anything else is a checkpoint
    folder. Under torchrun all its processes train one model (see parallel.py). Raises InputError for a config
    that cannot work, FloatingPointError before the update that a NaN or Inf would spoil, SystemExit(75) after a
    signal, with a checkpoint saved.
    """
    process, steps, leg = config.process, config.optimizer.steps, Leg(config.minutes)
    with (
        joined(device_of(config.device)) as ranks,
        claimed(ranks.folder(Path(config.out))),
        StopSignal() as stop,
        closing(begin(config, ranks, resume)) as run,
    ):
        optimizers, flop = run.optimizers, dict[Size, float]()
        watch = Watch(run.speed, dtype_of(config.precision), run.seconds, device=run.device)
        saved_at = time.monotonic()
        while run.step < steps:
            step = run.step + 1
            groups = run.batches.groups(step)
            watch.lap("data")
            with autocast(run.device, config.precision):
                prompts = [prompt for group in groups for prompt in group.prompts]
                text_BLD, mask_BL = run.text(prompts, COMPILED_TEXT if config.compile else 1)
                predictions = predict(run.dit, groups, process, text_BLD, mask_BL, config.batches.layout)
            loss = diffusion_loss(process, groups, predictions, config.change) * part_of_the_loss(
                groups, ranks
            )
            watch.lap("forward")
            torch.autograd.backward([loss])
            loss = ranks.total(loss)
            watch.lap("backward")
            factor = set_learning_rate(optimizers, step, config.optimizer)
            norm = clip_gradients(optimizers, config.optimizer.clip)
            stop_before_harm(step, loss.item(), norm, groups)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            run.ema.update()
            run.step = step
            watch.lap("update")
            run.log.write(step, loss=loss.item(), gradient=norm, rate=factor)
            run.progress.update(step, f"loss {loss.item():.4f}  {watch.note}")
            last = step == steps
            if last or due(config.validate_every, step):
                run.log.write(step, **validate(run))
            if config.sample_every and (last or due(config.sample_every, step)):
                draw(run)
            for group in groups:
                if group.size not in flop:
                    flop[group.size] = flop_per_clip(run, group)
            watch.lap("pauses")
            watch.step(step, *work(groups, flop))
            minutes = (time.monotonic() - saved_at) / 60
            ends, late = ranks.agree(stop.requested or leg.over, minutes > config.checkpoint_minutes)
            if last or ends or late or due(config.checkpoint_every, step):
                save(run, watch.seconds)
                saved_at = time.monotonic()
                watch.lap("pauses")
            if ends and not last:
                say(f"stopped after step {step}: continue with --resume auto.")
                raise SystemExit(TRY_AGAIN)
        return finish(run, watch.seconds)


def stop_before_harm(step: int, loss: float, norm: float, groups: Sequence[Group]) -> None:
    """Raise FloatingPointError when the loss or the gradient of this step is not a number, naming what it
    was fed.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    bad = [str(group.size) for group in groups if not torch.isfinite(group.latent_BCTHW).all()]
    cause = f"the latents of {', '.join(bad)} are not finite" if bad else "try a lower learning rate"
    fed = ", ".join(f"{group.size} rows {list(group.rows)[:8]}" for group in groups)
    raise FloatingPointError(
        f"step {step}: loss {loss}, gradient norm {norm}; stopped before the update; {cause} (clips: {fed})."
    )


def work(groups: Sequence[Group], flop: Mapping[Size, float]) -> tuple[int, int, float]:
    """Clips, visual tokens and operations of a step."""
    clips = [len(group.rows) for group in groups]
    tokens = sum(n * group.size.tokens for n, group in zip(clips, groups))
    return sum(clips), tokens, sum(n * flop[group.size] for n, group in zip(clips, groups))


def flop_per_clip(run: Run, group: Group) -> float:
    """Operations that one clip of this group costs, text and backward included, counted on its longest
    prompt.
    """
    i = max(range(len(group.rows)), key=lambda i: len(group.prompts[i]))
    one = Group(
        group.size,
        group.rows[i : i + 1],
        group.prompts[i : i + 1],
        *(
            tensor[i : i + 1]
            for tensor in (
                group.latent_BCTHW,
                group.noise_BCTHW,
                group.sigma_BT,
                group.unknown_BT,
                group.fps_B,
            )
        ),
    )

    def forward() -> Tensor:
        with autocast(run.device, run.config.precision):
            predictions = predict(run.dit, [one], run.config.process, *run.text(one.prompts), "bucketed")
        return diffusion_loss(run.config.process, [one], predictions)

    with uncompiled(run.config.compile):
        counted = count_flop(forward)
    for optimizer in run.optimizers:
        optimizer.zero_grad()
    return counted


# --- beginning


def begin(config: TrainDiTConfig, ranks: Ranks, resume: str | None) -> Run:
    """Build everything, fresh or from a checkpoint."""
    folder, checkpoints = ranks.folder(Path(config.out)), checkpoints_of(config)
    if config.network == "unet" and ranks.count > 1:
        raise InputError('A U-Net trains in one process: start it without torchrun, or set network = "dit".')
    keep_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    if ranks.first:
        sweep(checkpoints)
    ranks.wait()
    found = checkpoint_to_resume(checkpoints, resume)
    parts, meta = load_checkpoint(found) if found else ({}, {"step": 0, "seconds": 0.0})
    if found:
        before = to_dict(
            from_dict(TrainDiTConfig, meta["config"], str(found))
        )  # new fields at their defaults
        refuse_changes(before, to_dict(config), FREE, found)
    device = device_of(config.device)
    vae = load_vae(config.vae, device).eval().requires_grad_(False)
    latents = data_of(config, vae)
    steps = config.optimizer.steps
    batches = Batches(latents, config.batches, config.process, config.seed, steps, device, ranks.share)
    refuse_empty_shares(batches, ranks)
    dit, text = build_models(config, latents, meta.get("tokenizer"))
    modules: dict[str, nn.Module] = {"dit": dit.to(device), "text": text.encoder.to(device)}
    if found:
        for name, module in modules.items():
            module.load_state_dict(parts[name])
    if config.compile:
        compile_blocks([dit], few_shapes=config.batches.layout == "bucketed")
    shard(dit, text.encoder, ranks)
    optimizers = build_optimizers(
        modules,
        config.optimizer,
        dtype_of(config.precision),
        orthogonalised if ranks.mesh is None else orthogonalised_by_owners,
    )
    ema = EMA(modules, config.ema)
    if found:
        for i, optimizer in enumerate(optimizers):
            load_optimizer(optimizer, parts[f"optimizer{i}"])
        load_ema(ema, parts["ema"])
        say(f"resuming from step {meta['step']}.")
    weights = sum(parameter.numel() for module in modules.values() for parameter in module.parameters())
    require_space(folder, 16 * weights * (config.keep + 1))  # weights, averages, two optimiser states, fp32
    write_json(folder / "config.json", config)
    log = RunLog(folder, "log.jsonl", meta["step"])
    speed = RunLog(folder, "speed.jsonl", meta["step"])
    label = "train dit" if ranks.first else f"train dit, rank {ranks.rank}"
    progress = Progress(label, steps, meta["step"])
    return Run(
        config=config,
        ranks=ranks,
        folder=folder,
        device=device,
        vae=vae,
        dit=dit,
        text=text,
        batches=batches,
        optimizers=optimizers,
        ema=ema,
        log=log,
        speed=speed,
        step=meta["step"],
        seconds=meta["seconds"],
        progress=progress,
    )


def checkpoints_of(config: TrainDiTConfig) -> Path:
    """Where the checkpoints of a run are, one set for all ranks."""
    return Path(config.out) / "checkpoints"


def data_of(config: TrainDiTConfig, vae: VAE) -> Latents | WorldLatents:
    """The caches of the config, or the world itself."""
    if config.latents == "world":
        return WorldLatents(config.world, [share.size for share in config.batches.buckets], vae)
    return Latents.named(config.latents, vae)


def build_models(
    config: TrainDiTConfig, latents: Latents | WorldLatents, tokenizer_json: str | None
) -> tuple[DiT, Text]:
    """DiT and text of the config's sizes, or those of `init_from` with their weights."""
    if config.init_from is not None:
        trained = load(config.init_from, "cpu")
        return grown(trained.dit, config.dit).train(), Text(
            trained.text.tokenizer, trained.text.encoder.train()
        )
    if tokenizer_json is not None:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    elif config.tokenizer is not None:
        try:
            tokenizer = Tokenizer.from_file(config.tokenizer)
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{config.tokenizer} is no tokenizer.json ({error}).") from error
    else:
        vocab = preset(TextConfig, TEXT_PRESETS[config.size], config.text, "text").vocab
        tokenizer = train_tokenizer(sample_of_captions(latents, config.tokenizer_captions), vocab)
    text_config = preset(TextConfig, TEXT_PRESETS[config.size], config.text, "text")
    sizes = {"channels": latents.channels, "text_width": text_config.width}
    changes = sizes | dict(config.dit)
    if config.network == "unet":
        if config.batches.layout != "bucketed":
            raise InputError('A U-Net takes clips of one size at a time: set batches.layout to "bucketed".')
        unet = UNet(preset(UNetConfig, UNET_PRESETS[config.size], changes, "dit"))
        return cast(DiT, unet), Text(tokenizer, TextEncoder(text_config))  # it is called as a DiT is
    dit = DiT(preset(DiTConfig, DIT_PRESETS[config.size], changes, "dit"))
    return dit, Text(tokenizer, TextEncoder(text_config))


def grown(dit: DiT, changes: Mapping[str, Any]) -> DiT:
    """The DiT with parts added that change nothing yet. Raises InputError for changes that are no such parts."""
    if not changes:
        return dit
    larger = DiT(preset(DiTConfig, dit.config, changes, "dit"))
    weights, theirs = dit.state_dict(), larger.state_dict()
    added = theirs.keys() - weights.keys()
    if any(theirs[name].shape != weights[name].shape for name in theirs.keys() & weights.keys()) or not (
        weights.keys() <= theirs.keys() and all(name.startswith("final.") for name in added)
    ):
        raise InputError(
            f"dit {dict(changes)} does not fit the weights of init_from: only final_hidden may be added to them; "
            "leave the rest out."
        )
    larger.load_state_dict(theirs | weights)
    return larger


def preset(cls: type[T], start: T, changes: Mapping[str, Any], where: str) -> T:
    """A preset with single values changed. Raises InputError for names it does not have."""
    return from_dict(cls, to_dict(start) | dict(changes), where)


def sample_of_captions(latents: Latents | WorldLatents, count: int) -> list[str]:
    """About `count` wordings, evenly from all sizes and rows."""
    wordings = sum(latents.variants.values()) * len(latents.sizes)
    texts: list[str] = []
    for size in latents.sizes:
        stride = max(1, latents.count(size) * wordings // max(count, 1))
        texts += latents.captions(size, range(0, latents.count(size), stride))
    return texts


# --- pauses: validation, pictures, checkpoints, the end


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Loss of the averaged weights on held-out clips at fixed noise levels, one figure per size: {"val
    64x64x17": ...}.

    Text only, medium captions; the same clips, noise and levels every time, so that the figures of a run
    compare.
    """
    process, losses = run.config.process, {}
    levels = process.quantile((torch.arange(VALIDATION_LEVELS) + 0.5) / VALIDATION_LEVELS).float()
    levels = levels.to(run.device)
    with run.ema.applied(), uncompiled(run.config.compile), autocast(run.device, run.config.precision):
        for size in run.batches.sizes:
            rows = run.batches.held_out(size)[: run.config.validation_clips]
            if not rows:
                continue
            latents = run.batches.latents
            z0_BCTHW = latents.latents(size, rows).to(run.device)
            generator = torch.Generator().manual_seed(run.config.seed)
            noise_BCTHW = torch.randn(z0_BCTHW.shape, generator=generator).to(run.device)
            prompts = tuple(latents.caption(size, row, "medium", 0) for row in rows)
            text_BLD, mask_BL = run.text(prompts)
            known_B, total = latents.known(size, rows), 0.0
            for level in levels:
                unknown_BT = (torch.arange(z0_BCTHW.shape[2]) >= known_B[:, None]).to(run.device)
                sigma_BT = level * unknown_BT
                fps_B = latents.fps(size, rows).to(run.device)
                group = Group(size, tuple(rows), prompts, z0_BCTHW, noise_BCTHW, sigma_BT, unknown_BT, fps_B)
                predictions = predict(run.dit, [group], process, text_BLD, mask_BL, "bucketed")
                total += diffusion_loss(process, [group], predictions).item()
            losses[f"val {size}"] = total / len(levels)
    return losses


@torch.no_grad()
def sample(run: Run, size: Size) -> Tensor:
    """latent_BCTHW of the config's prompts, with guidance; conditional and null text in one batch."""
    config, prompts = run.config, list(run.config.prompts)
    shape = (run.vae.latent_channels, 1 + (size.frames - 1) // 4, size.height // 8, size.width // 8)
    noise_BCTHW = torch.stack(
        [addressed_noise(seed, *shape, device=run.device) for seed in range(len(prompts))]
    )
    text_BLD, mask_BL = run.text([*prompts, *[""] * len(prompts)])

    def denoise(latent_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        doubled_BCTHW = torch.cat([latent_BCTHW, latent_BCTHW])
        timestep_B = config.process.timestep(sigma).float().expand(len(doubled_BCTHW))
        prediction = run.dit(doubled_BCTHW, timestep_B, text_BLD, mask_BL)
        worded, null = config.process.to_x0(prediction, doubled_BCTHW, sigma.float()).chunk(2)
        return config.process.clipped(null + config.guidance * (worded - null))

    sigmas = config.process.sigmas(config.sample_steps, size.tokens).to(run.device)
    return euler(denoise, noise_BCTHW, sigmas, config.process)


def draw(run: Run) -> None:
    """Write samples/step-N.png (a row per prompt, five moments of its clip) and loss.png."""
    size = max(run.batches.sizes, key=lambda size: (size.frames > 1, run.batches.clips(size)))
    with run.ema.applied(), uncompiled(run.config.compile), autocast(run.device, run.config.precision):
        latent_BCTHW = sample(run, size)
    if not run.ranks.first:
        return
    videos = run.vae.decode(latent_BCTHW)
    moments = [round(i * (size.frames - 1) / 4) for i in range(5)] if size.frames > 1 else [0]
    grid = Image.new("RGB", (len(moments) * (size.width + 2), len(videos) * (size.height + 2)), "white")
    for row, video_CTHW in enumerate(videos):
        frames_THWC = to_frames(video_CTHW)
        for column, moment in enumerate(moments):
            grid.paste(
                Image.fromarray(frames_THWC[moment]), (column * (size.width + 2), row * (size.height + 2))
            )
    with writing("the pictures", run.folder):
        (run.folder / "samples").mkdir(exist_ok=True)
        grid.save(run.folder / "samples" / f"step-{run.step:08d}.png")
        plot_losses(run.log.records()).save(run.folder / "loss.png")


def save(run: Run, seconds: float) -> None:
    """A checkpoint of everything that the next step depends on, for any number of ranks."""
    run.log.sync()
    run.speed.sync()
    parts = {"dit": run.dit.state_dict(), "text": run.text.encoder.state_dict(), "ema": run.ema.state_dict()}
    parts |= {f"optimizer{i}": optimizer.state_dict() for i, optimizer in enumerate(run.optimizers)}
    parts = gathered(parts)
    if not run.ranks.first:
        return
    meta = {
        "step": run.step,
        "seconds": seconds,
        "config": to_dict(run.config),
        "tokenizer": run.text.tokenizer.to_str(),
    }
    save_checkpoint(checkpoints_of(run.config), run.step, parts, meta, run.config.keep)


def finish(run: Run, seconds: float) -> Path:
    """Write the model folder with the averaged weights and the record of how they came about."""
    config = run.config
    validation = {
        key: value for record in run.log.records() for key, value in record.items() if key.startswith("val ")
    }
    training = {
        "config": to_dict(config),
        "steps": run.step,
        "seconds": round(seconds),
        "clips": run.batches.clips_through(run.step),
        "hardware": words_for(run.device) + (f", {run.ranks.count} ranks" if run.ranks.mesh else ""),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "validation": validation,
        "latents": {"vae_sha256": run.batches.latents.vae_sha256},
    }
    path = Path(config.out) / "model"
    with run.ema.applied():
        dit = whole(run.dit, lambda: DiT(run.dit.config), run.ranks)
        encoder = whole(run.text.encoder, lambda: TextEncoder(run.text.encoder.config), run.ranks)
        if run.ranks.first:
            save_model(
                path,
                vae=run.vae,
                dit=dit.eval(),
                text=Text(run.text.tokenizer, encoder),
                process=config.process,
                card=ModelCard(name=config.size, training=training, led=run.batches.latents.led),
            )
    run.ranks.wait()
    say(f"{path}: {run.step} steps in {clock(seconds)}, validation {validation}.")
    return path
