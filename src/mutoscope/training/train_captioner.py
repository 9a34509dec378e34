"""Train the captioner on the captions of a few labelled clips of a latent cache: one loop, from the first step to a
model.

The loop is `train_captioner`. As in `train_dit`, a step depends on nothing but the weights, the optimisers and its
number, so that a run killed at any moment and resumed gives the same weights as one left alone, bit for bit.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from torch.optim import Optimizer

from mutoscope.config import from_dict, read_table, to_dict, write_json
from mutoscope.data.latents import Latents, Size
from mutoscope.errors import InputError
from mutoscope.evaluation.caption_facts import (
    f1_scores,
    judge_caption,
    not_taught,
    report_on_world,
    taught,
)
from mutoscope.models.captioner import (
    CAPTIONER_PRESETS,
    LENGTHS,
    Captioner,
    CaptionerConfig,
    Length,
    Narrator,
)
from mutoscope.models.text import PAD, train_tokenizer
from mutoscope.models.vae import VAE
from mutoscope.training.machine import keep_memory, words_for
from mutoscope.training.monitor import Watch, count_flop, plot_losses
from mutoscope.training.optimizer import (
    OptimizerConfig,
    build_optimizers,
    update,
)
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
from mutoscope.training.train_dit import due, preset
from mutoscope.weights.card import Defaults, ModelCard
from mutoscope.weights.store import load_vae, save_model
from mutoscope.world.captions import parse
from mutoscope.world.stage import SceneMix, View


@dataclass(frozen=True)
class TrainCaptionerConfig:
    """One run. latents: a folder of `mutoscope data encode`; vae: the model folder that made them; out: the run.

    labelled: share of the clips of every size whose captions are used; a smaller share is part of a larger one. kinds:
    weights of the kinds of caption. sizes: weights of the sizes of clips ("64x64x17"); all of the cache by their number
    of labelled clips if left out. size names a preset, captioner changes single numbers of it. noise: its size, added
    to latents of variance 1; forget: share of the words before the next one that are hidden: both against learning by
    heart. Lengths of time are in steps unless they say otherwise; 0 turns a thing off.
    """

    latents: str
    vae: str
    out: str
    labelled: float = 0.1
    size: str = "tiny"
    captioner: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[Length, float] = field(
        default_factory=lambda: {"detailed": 0.7, "medium": 0.15, "short": 0.15}
    )
    sizes: Mapping[str, float] = field(default_factory=dict)
    clips: int = 32  # in a step
    held_out: int = 64  # clips of every size (its last rows, at most a tenth) that are never trained on
    noise: float = 0.1
    forget: float = 0.1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: float = 0.995
    seed: int = 0
    threads: int = 0  # of torch; 0 leaves its choice
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: int = 200
    checkpoint_minutes: float = 10.0
    keep: int = 2
    validate_every: int = 200
    validation_clips: int = 32
    report_clips: int = 256  # fresh ones in the final report, if the cache is of the world

    def __post_init__(self) -> None:
        if self.size not in CAPTIONER_PRESETS:
            raise InputError(f"size {self.size!r} is unknown: choose one of {', '.join(CAPTIONER_PRESETS)}.")
        if not 0 < self.labelled <= 1:
            raise InputError(f"labelled is {self.labelled}: give a share above 0, up to 1.")
        for name in ("kinds", "sizes"):
            weights = getattr(self, name).values()
            if weights and (min(weights) < 0 or sum(weights) <= 0):
                raise InputError(f"{name} must be weights of 0 or more, not all 0.")
        if unknown := set(self.kinds) - set(LENGTHS):
            raise InputError(f"kinds has {sorted(unknown)}: choose from {', '.join(LENGTHS)}.")
        if not 0 <= self.forget < 1 or self.noise < 0:
            raise InputError("forget must lie in 0 to 1 (1 excluded), noise must be 0 or more.")
        if self.clips < 1 or self.keep < 1 or self.held_out < 1:
            raise InputError("clips, keep and held_out must be at least 1.")
        for name in ("threads", "checkpoint_every", "validate_every", "validation_clips", "report_clips"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 0 (off) or more.")


# What may differ between a run and its continuation: it changes no weight.
FREE = {
    "out",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep",
    "validate_every",
    "validation_clips",
    "report_clips",
}


class Lessons:
    """The labelled clips of a cache, and the batch of every step. Raises InputError when it has too few."""

    def __init__(self, latents: Latents, config: TrainCaptionerConfig) -> None:
        self.latents, self.config = latents, config
        named = {str(size): size for size in latents.sizes}
        if missing := sorted(set(config.sizes) - set(named)):
            raise InputError(
                f"{latents.folder} has no clips of {', '.join(missing)}: it holds {', '.join(named)}."
            )
        self.sizes = [size for name, size in named.items() if not config.sizes or config.sizes.get(name)]
        self.rows = {size: self._labelled(i, size) for i, size in enumerate(self.sizes)}
        weights = np.array([config.sizes.get(str(size), len(self.rows[size])) for size in self.sizes], float)
        if not weights.sum():
            raise InputError(f"labelled is {config.labelled}: that is no clip of {latents.folder}; raise it.")
        self.shares = weights / weights.sum()

    def held_out(self, size: Size) -> range:
        """Rows of a size that training never sees."""
        count = self.latents.count(size)
        return range(count - min(self.config.held_out, count // 10), count)

    def _labelled(self, place: int, size: Size) -> np.ndarray:
        trained = self.held_out(size).start
        order = np.random.default_rng((self.config.seed, 1, *size)).permutation(trained)
        return order[: round(self.config.labelled * trained)]

    @property
    def count(self) -> int:
        """How many clips have labels."""
        return sum(map(len, self.rows.values()))

    def texts(self) -> list[str]:
        """All captions of all labelled clips, of the kinds that are learned."""
        variants = self.latents.variants
        return [
            self.latents.caption(size, int(row), kind, i)
            for size, rows in self.rows.items()
            for row in rows
            for kind in self.config.kinds
            for i in range(variants[kind])
        ]

    def batch(self, step: int) -> tuple[Size, Tensor, list[str], list[Length]]:
        """Size, latent_BCTHW, captions and their kinds, of one size and kind."""
        choose = np.random.default_rng((self.config.seed, 2, step))
        size = self.sizes[int(choose.choice(len(self.sizes), p=self.shares))]
        clips = min(self.config.clips, len(self.rows[size]))
        rows = choose.choice(self.rows[size], clips, replace=False).tolist()
        weights = np.array(list(self.config.kinds.values()), float)
        # One kind in a step: a short caption beside a detailed one would be padded to its length.
        kind = list(self.config.kinds)[int(choose.choice(len(weights), p=weights / weights.sum()))]
        variants = choose.integers(self.latents.variants[kind], size=clips).tolist()
        texts = [self.latents.caption(size, row, kind, variant) for row, variant in zip(rows, variants)]
        return size, self.latents.latents(size, rows), texts, [kind] * clips


@dataclass
class Run:
    """All that the loop works with."""

    config: TrainCaptionerConfig
    folder: Path
    vae: VAE
    narrator: Narrator
    lessons: Lessons
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


def train_captioner(config: TrainCaptionerConfig, resume: str | None = None) -> Path:
    """Train, and return the model folder `out`/model.

    resume: None begins a new run, "auto" continues one if there is one, anything else is a checkpoint folder. Raises
    InputError for a config that cannot work, FloatingPointError before the update that a NaN or Inf would spoil,
    SystemExit(75) after a signal, with a checkpoint saved.
    """
    folder, steps = Path(config.out), config.optimizer.steps
    with claimed(folder), StopSignal() as stop, closing(begin(config, folder, resume)) as run:
        optimizers, flop = run.optimizers, dict[Size, float]()
        watch = Watch(run.speed, dtype_of(config), run.seconds)
        saved_at = time.monotonic()
        while run.step < steps:
            step = run.step + 1
            size, latent_BCTHW, texts, kinds = run.lessons.batch(step)
            latent_BCTHW, ids_BL, shown_BL = disturbed(run, step, latent_BCTHW, texts, kinds)
            watch.lap("data")
            loss = caption_loss(run, latent_BCTHW, ids_BL, shown_BL)
            watch.lap("forward")
            torch.autograd.backward([loss])
            watch.lap("backward")
            factor, norm = update(optimizers, step, loss.item(), config.optimizer)
            run.ema.update()
            run.step = step
            watch.lap("update")
            run.log.write(step, loss=loss.item(), gradient=norm, rate=factor)
            run.progress.update(step, f"loss {loss.item():.4f}  {watch.note}")
            last = step == steps
            if last or due(config.validate_every, step):
                run.log.write(step, **validate(run))
                with writing("the plot", folder):
                    plot_losses(run.log.records()).save(folder / "loss.png")
            if size not in flop:
                flop[size] = flop_per_clip(run, latent_BCTHW[:1], ids_BL[:1])
            watch.lap("pauses")
            watch.step(step, len(texts), len(texts) * size.tokens, len(texts) * flop[size])
            minutes = (time.monotonic() - saved_at) / 60
            if (
                last
                or stop.requested
                or due(config.checkpoint_every, step)
                or minutes > config.checkpoint_minutes
            ):
                save(run, watch.seconds)
                saved_at = time.monotonic()
                watch.lap("pauses")
            if stop.requested and not last:
                say(f"stopped after step {step}: continue with --resume auto.")
                raise SystemExit(TRY_AGAIN)
        return finish(run, watch.seconds)


def disturbed(
    run: Run, step: int, latent_BCTHW: Tensor, texts: Sequence[str], kinds: Sequence[Length]
) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, the ids of the captions, and the ids that the decoder is shown: some of them hidden.

    A word that may be missing must be read off the video instead of guessed from the words before.
    """
    generator = torch.Generator().manual_seed(
        int(np.random.default_rng((run.config.seed, 3, step)).integers(2**62))
    )
    noise_BCTHW = torch.randn(latent_BCTHW.shape, generator=generator)
    ids_BL = run.narrator.tokens(texts, kinds)
    hidden_BL = torch.rand(ids_BL.shape, generator=generator) < run.config.forget
    hidden_BL[:, 0] = False  # the kind
    return latent_BCTHW + run.config.noise * noise_BCTHW, ids_BL, ids_BL.masked_fill(hidden_BL, PAD)


def caption_loss(run: Run, latent_BCTHW: Tensor, ids_BL: Tensor, shown_BL: Tensor) -> Tensor:
    """Mean cross-entropy of each next token, in nats."""
    with torch.autocast("cpu", torch.bfloat16, enabled=run.config.precision == "bf16"):
        logits_BLV = run.narrator.captioner(latent_BCTHW, shown_BL[:, :-1])
    return F.cross_entropy(logits_BLV.float().flatten(0, 1), ids_BL[:, 1:].flatten(), ignore_index=PAD)


def dtype_of(config: TrainCaptionerConfig) -> torch.dtype:
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def flop_per_clip(run: Run, latent_BCTHW: Tensor, ids_BL: Tensor) -> float:
    """Operations that one clip with its caption costs, backward included."""
    counted = count_flop(lambda: caption_loss(run, latent_BCTHW, ids_BL, ids_BL))
    for optimizer in run.optimizers:
        optimizer.zero_grad()
    return counted


# --- beginning


def begin(config: TrainCaptionerConfig, folder: Path, resume: str | None) -> Run:
    """Build everything, fresh or from a checkpoint."""
    keep_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    sweep(folder / "checkpoints")
    found = checkpoint_to_resume(folder / "checkpoints", resume)
    parts, meta = load_checkpoint(found) if found else ({}, {"step": 0, "seconds": 0.0})
    if found:
        refuse_changes(meta["config"], to_dict(config), FREE, found)
    vae = load_vae(config.vae, "cpu").eval().requires_grad_(False)
    lessons = Lessons(Latents(Path(config.latents), vae), config)
    changes = {"channels": lessons.latents.channels} | dict(config.captioner)
    sizes = preset(CaptionerConfig, CAPTIONER_PRESETS[config.size], changes, "captioner")
    tokenizer = (
        Tokenizer.from_str(meta["tokenizer"]) if found else train_tokenizer(lessons.texts(), sizes.vocab)
    )
    narrator = Narrator(tokenizer, Captioner(sizes))
    modules = {"captioner": narrator.captioner}
    optimizers = build_optimizers(modules, config.optimizer, dtype_of(config))
    ema = EMA(modules, config.ema)
    if found:
        narrator.captioner.load_state_dict(parts["captioner"])
        for i, optimizer in enumerate(optimizers):
            optimizer.load_state_dict(parts[f"optimizer{i}"])
        ema.load_state_dict(parts["ema"])
        say(f"resuming from step {meta['step']}.")
    weights = sum(parameter.numel() for parameter in narrator.captioner.parameters())
    require_space(folder, 16 * weights * (config.keep + 1))  # weights, averages, two optimiser states, fp32
    write_json(folder / "config.json", config)
    say(f"{weights / 1e6:.2f} M parameters, {lessons.count} labelled clips.")
    return Run(
        config=config,
        folder=folder,
        vae=vae,
        narrator=narrator,
        lessons=lessons,
        optimizers=optimizers,
        ema=ema,
        log=RunLog(folder, "log.jsonl", meta["step"]),
        speed=RunLog(folder, "speed.jsonl", meta["step"]),
        step=meta["step"],
        seconds=meta["seconds"],
        progress=Progress("train captioner", config.optimizer.steps, meta["step"]),
    )


# --- pauses: validation, checkpoints, the end


@torch.no_grad()
def validate(run: Run) -> dict[str, float]:
    """Of the averaged weights on held-out clips, one figure each per size: {"val 64x64x17": loss of detailed captions,
    "facts 64x64x17": F1 of the facts of written captions against those of the true ones}.
    """
    found, latents = {}, run.lessons.latents
    with run.ema.applied():
        for size in run.lessons.sizes:
            rows = run.lessons.held_out(size)[: run.config.validation_clips]
            if not rows:
                continue
            texts = [latents.caption(size, row, "detailed", 0) for row in rows]
            latent_BCTHW = latents.latents(size, rows)
            ids_BL = run.narrator.tokens(texts, ["detailed"] * len(texts))
            found[f"val {size}"] = caption_loss(run, latent_BCTHW, ids_BL, ids_BL).item()
            written = run.narrator(latent_BCTHW)
            verdicts = [judge_caption(text, parse(true)[0]) for text, true in zip(written, texts)]
            found[f"facts {size}"] = f1_scores(verdicts).get("all", {"f1": 0.0})["f1"]
    return found


def save(run: Run, seconds: float) -> Path:
    """A checkpoint of everything that the next step depends on."""
    run.log.sync()
    run.speed.sync()
    parts = {"captioner": run.narrator.captioner.state_dict(), "ema": run.ema.state_dict()}
    parts |= {f"optimizer{i}": optimizer.state_dict() for i, optimizer in enumerate(run.optimizers)}
    meta = {
        "step": run.step,
        "seconds": seconds,
        "config": to_dict(run.config),
        "tokenizer": run.narrator.tokenizer.to_str(),
    }
    return save_checkpoint(run.folder / "checkpoints", run.step, parts, meta, run.config.keep)


def finish(run: Run, seconds: float) -> Path:
    """Write the report and the model folder with the averaged weights, in 16 bits, and how they came about."""
    config, latents = run.config, run.lessons.latents
    size = max(run.lessons.sizes, key=lambda size: (size.frames > 1, len(run.lessons.rows[size])))
    fps = float(latents.fps(size, [0])[0])
    known = taught(run.lessons.texts())
    training: dict[str, Any] = {
        "config": to_dict(config),
        "steps": run.step,
        "seconds": round(seconds),
        "labelled_clips": run.lessons.count,
        "hardware": words_for(torch.device("cpu")),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "latents": {"vae_sha256": latents.vae_sha256},
        "knows": known,
        "cannot_know": not_taught(known),
    }
    with run.ema.applied():
        run.narrator.captioner.eval()
        asked = read_table(latents.folder / "index.json")["asked"]
        if config.report_clips and asked["source"] == "world":
            mix = from_dict(SceneMix, asked["mix"], str(latents.folder))
            view = View(size.width, size.height, size.frames, fps)
            training["report"] = report_on_world(run.narrator, run.vae, view, config.report_clips, mix)
            write_json(run.folder / "report.json", training["report"])
        path = save_model(
            run.folder / "model",
            vae=run.vae,
            narrator=run.narrator,
            card=ModelCard(
                name=f"captioner-{config.size}",
                defaults=Defaults(width=size.width, height=size.height, frames=size.frames, fps=fps),
                training=training,
            ),
            storage={"captioner": "fp16"},
        )
    say(f"{path}: {run.step} steps in {clock(seconds)}.")
    return path
