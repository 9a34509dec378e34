"""Train the captioner on the captions of a few labelled clips of a latent cache: one loop, from the first step to a
model.

The loop is `train_captioner`. As in `train_dit`, a step depends on nothing but the weights, the optimisers and its
number, so that a run killed at any moment and resumed gives the same weights as one left alone, bit for bit.
"""

from __future__ import annotations

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

from mutoscope.config import from_dict, write_json
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
from mutoscope.training.machine import autocast, dtype_of
from mutoscope.training.monitor import Watch, count_flop, plot_losses
from mutoscope.training.optimizer import OptimizerConfig, update
from mutoscope.training.run import Run, begun, due, look_for, record, steps
from mutoscope.training.state import RunLog, StopSignal, claimed, clock, say, writing
from mutoscope.training.train_dit import preset
from mutoscope.weights.card import Defaults, ModelCard
from mutoscope.weights.store import load_captioner, load_vae, save_model
from mutoscope.world.captions import parse
from mutoscope.world.stage import SceneMix, View

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainCaptionerConfig:
    """One run. latents: a folder of `mutoscope data encode`, or several; vae: the model folder that made them; out: the
    run.

    labelled: share of the clips of every size whose captions are used; a smaller share is part of a larger one. kinds:
    weights of the kinds of caption. sizes: weights of the sizes of clips ("64x64x17"); all of the cache by their number
    of labelled clips if left out. size names a preset, captioner changes single numbers of it. init_from: a model
    folder with a captioner to start from, whose sizes and words are kept. noise: its size, added to latents of variance
    1; forget: share of the words before the next one that are hidden: both against learning by heart. Lengths of time
    are in steps unless they say otherwise; 0 turns a thing off.
    """

    latents: str | tuple[str, ...]
    vae: str
    out: str
    labelled: float = 0.1
    size: str = "tiny"
    captioner: Mapping[str, Any] = field(default_factory=dict)
    init_from: str | None = None
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
        if self.init_from is not None and self.captioner:
            raise InputError(
                f"captioner {dict(self.captioner)} cannot change the sizes of init_from; leave one of the two out."
            )
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
                f"{latents.name} has no clips of {', '.join(missing)}: it holds {', '.join(named)}."
            )
        self.sizes = [size for name, size in named.items() if not config.sizes or config.sizes.get(name)]
        self.rows = {size: self._labelled(i, size) for i, size in enumerate(self.sizes)}
        weights = np.array([config.sizes.get(str(size), len(self.rows[size])) for size in self.sizes], float)
        if not weights.sum():
            raise InputError(f"labelled is {config.labelled}: that is no clip of {latents.name}; raise it.")
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


@dataclass(frozen=True)
class Work:
    """All that the loop works with."""

    config: TrainCaptionerConfig
    vae: VAE
    narrator: Narrator
    lessons: Lessons
    run: Run


def train_captioner(config: TrainCaptionerConfig, resume: str | None = None) -> Path:
    """Train, and return the model folder `out`/model.

    resume: None begins a new run, "auto" continues one if there is one, anything else is a checkpoint folder. Raises
    InputError for a config that cannot work, FloatingPointError before the update that a NaN or Inf would spoil,
    SystemExit(75) after a signal, with a checkpoint saved.
    """
    folder = Path(config.out)
    with claimed(folder), StopSignal() as stop:
        work, flop = begin(config, resume), dict[Size, float]()
        with closing(work.run) as run, closing(RunLog(folder, "speed.jsonl", run.step)) as speed:
            watch = Watch(speed, dtype_of(config.precision), run.before)
            for step in steps(run, stop, config.checkpoint_minutes):
                size, latent_BCTHW, texts, kinds = work.lessons.batch(step)
                latent_BCTHW, ids_BL, shown_BL = disturbed(work, step, latent_BCTHW, texts, kinds)
                watch.lap("data")
                loss = caption_loss(work, latent_BCTHW, ids_BL, shown_BL)
                watch.lap("forward")
                torch.autograd.backward([loss])
                watch.lap("backward")
                factor, norm = update(run.optimizers, step, loss.item(), config.optimizer)
                run.ema.update()
                watch.lap("update")
                run.log.write(step, loss=loss.item(), gradient=norm, rate=factor)
                run.progress.update(step, f"loss {loss.item():.4f}  {watch.note}")
                if run.is_last or due(config.validate_every, step):
                    run.log.write(step, **validate(work))
                    with writing("the plot", folder):
                        plot_losses(run.log.records()).save(folder / "loss.png")
                if size not in flop:
                    flop[size] = flop_per_clip(work, latent_BCTHW[:1], ids_BL[:1])
                watch.lap("pauses")
                watch.step(step, len(texts), len(texts) * size.tokens, len(texts) * flop[size])
            return finish(work)


def disturbed(
    work: Work, step: int, latent_BCTHW: Tensor, texts: Sequence[str], kinds: Sequence[Length]
) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, the ids of the captions, and the ids that the decoder is shown: some of them hidden.

    A word that may be missing must be read off the video instead of guessed from the words before.
    """
    generator = torch.Generator().manual_seed(
        int(np.random.default_rng((work.config.seed, 3, step)).integers(2**62))
    )
    noise_BCTHW = torch.randn(latent_BCTHW.shape, generator=generator)
    ids_BL = work.narrator.tokens(texts, kinds)
    hidden_BL = torch.rand(ids_BL.shape, generator=generator) < work.config.forget
    hidden_BL[:, 0] = False  # the kind
    return latent_BCTHW + work.config.noise * noise_BCTHW, ids_BL, ids_BL.masked_fill(hidden_BL, PAD)


def caption_loss(work: Work, latent_BCTHW: Tensor, ids_BL: Tensor, shown_BL: Tensor) -> Tensor:
    """Mean cross-entropy of each next token, in nats."""
    with autocast(CPU, work.config.precision):
        logits_BLV = work.narrator.captioner(latent_BCTHW, shown_BL[:, :-1])
    return F.cross_entropy(logits_BLV.float().flatten(0, 1), ids_BL[:, 1:].flatten(), ignore_index=PAD)


def flop_per_clip(work: Work, latent_BCTHW: Tensor, ids_BL: Tensor) -> float:
    """Operations that one clip with its caption costs, backward included."""
    counted = count_flop(lambda: caption_loss(work, latent_BCTHW, ids_BL, ids_BL))
    for optimizer in work.run.optimizers:
        optimizer.zero_grad()
    return counted


# --- beginning


def begin(config: TrainCaptionerConfig, resume: str | None) -> Work:
    """Build everything, fresh or from a checkpoint."""
    found = look_for(config, resume, FREE)
    vae = load_vae(config.vae, "cpu").eval().requires_grad_(False)
    lessons = Lessons(Latents.named(config.latents, vae), config)
    narrator = narrator_of(config, lessons, found.told.get("tokenizer"))
    tokenizer = narrator.tokenizer
    modules, told = {"captioner": narrator.captioner}, {"tokenizer": tokenizer.to_str()}
    run = begun("train captioner", config, modules, found, dtype_of(config.precision), told)
    say(f"{lessons.count} labelled clips.")
    return Work(config, vae, narrator, lessons, run)


def narrator_of(config: TrainCaptionerConfig, lessons: Lessons, words: str | None) -> Narrator:
    """A captioner of the config's sizes, or that of `init_from` with its weights; words: the tokenizer of a run."""
    channels = lessons.latents.channels
    if config.init_from is not None:
        narrator = load_captioner(config.init_from, "cpu").narrator
        narrator.captioner.float().train().requires_grad_(True)
        if narrator.captioner.config.channels != channels:
            raise InputError(
                f"The captioner of {config.init_from} reads {narrator.captioner.config.channels} latent channels, and "
                f"{lessons.latents.name} has {channels}; take latents of its VAE."
            )
        return narrator
    changes = {"channels": channels} | dict(config.captioner)
    sizes = preset(CaptionerConfig, CAPTIONER_PRESETS[config.size], changes, "captioner")
    tokenizer = Tokenizer.from_str(words) if words else train_tokenizer(lessons.texts(), sizes.vocab)
    return Narrator(tokenizer, Captioner(sizes))


# --- pauses: validation, checkpoints, the end


@torch.no_grad()
def validate(work: Work) -> dict[str, float]:
    """Of the averaged weights on held-out clips, one figure each per size: {"val 64x64x17": loss of detailed captions,
    "facts 64x64x17": F1 of the facts of written captions against those of the true ones}.
    """
    found, latents = {}, work.lessons.latents
    with work.run.ema.applied():
        for size in work.lessons.sizes:
            rows = work.lessons.held_out(size)[: work.config.validation_clips]
            if not rows:
                continue
            texts = [latents.caption(size, row, "detailed", 0) for row in rows]
            latent_BCTHW = latents.latents(size, rows)
            ids_BL = work.narrator.tokens(texts, ["detailed"] * len(texts))
            found[f"val {size}"] = caption_loss(work, latent_BCTHW, ids_BL, ids_BL).item()
            written = work.narrator(latent_BCTHW)
            verdicts = [judge_caption(text, parse(true)[0]) for text, true in zip(written, texts)]
            found[f"facts {size}"] = f1_scores(verdicts).get("all", {"f1": 0.0})["f1"]
    return found


def finish(work: Work) -> Path:
    """Write the report and the model folder with the averaged weights, in 16 bits, and how they came about."""
    config, run, narrator, latents = work.config, work.run, work.narrator, work.lessons.latents
    size = max(work.lessons.sizes, key=lambda size: (size.frames > 1, len(work.lessons.rows[size])))
    fps = float(latents.fps(size, [0])[0])
    known = taught(work.lessons.texts())
    training = record(run, CPU) | {
        "labelled_clips": work.lessons.count,
        "latents": {"vae_sha256": latents.vae_sha256},
        "knows": known,
        "cannot_know": not_taught(known),
    }
    with run.ema.applied():
        narrator.captioner.eval()
        asked = latents.asked[0]
        if config.report_clips and asked["source"] == "world":
            mix = from_dict(SceneMix, asked["mix"], latents.name)
            view = View(size.width, size.height, size.frames, fps)
            training["report"] = report_on_world(narrator, work.vae, view, config.report_clips, mix)
            write_json(run.folder / "report.json", training["report"])
        path = save_model(
            run.folder / "model",
            vae=work.vae,
            narrator=narrator,
            card=ModelCard(
                name=f"captioner-{config.size}",
                defaults=Defaults(width=size.width, height=size.height, frames=size.frames, fps=fps),
                training=training,
            ),
            storage={"captioner": "fp16"},
        )
    say(f"{path}: {run.step} steps in {clock(run.seconds)}.")
    return path
