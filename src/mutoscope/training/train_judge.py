"""Train the second judge of evaluation on clips of the world, made worse in many ways: one loop, from the first step
to a file.

The loop is `train_judge`. A step depends on nothing but the weights, the optimisers and its number, so that a run
killed at any moment and resumed gives the same judge as one left alone, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mutoscope.config import write_json
from mutoscope.errors import InputError
from mutoscope.evaluation.exams import FRESH
from mutoscope.evaluation.judge import (
    CELL,
    LOOKS,
    MOMENTS,
    MOST,
    READ,
    SIDE,
    Judge,
    JudgeConfig,
    Logits,
    save_judge,
    verdicts,
)
from mutoscope.evaluation.truth import judge as oracle
from mutoscope.evaluation.truth import observe
from mutoscope.training.optimizer import OptimizerConfig, update
from mutoscope.training.run import Run, begun, due, look_for, record, steps
from mutoscope.training.state import StopSignal, claimed, clock, say
from mutoscope.video import to_frames
from mutoscope.world.facts import Fact, Truth, facts, truth
from mutoscope.world.render import render
from mutoscope.world.scene import BACKGROUNDS, Scene, SceneMix, View, sample_scene

CPU = torch.device("cpu")
SHAPE = View(SIDE, SIDE, 17, 8.0)  # of the clips that judge and oracle are compared on
SQUARE, WIDE, TALL = (SIDE, SIDE), (112, SIDE), (SIDE, 112)  # width, height
ASPECTS = (SQUARE, SQUARE, WIDE, SQUARE, SQUARE, TALL)  # of steps, by turns
UNSAID = -100  # a label that no loss counts
IGNORED = -1.0  # a cell next to an object's middle


@dataclass(frozen=True)
class TrainJudgeConfig:
    """One run. mix: what the world shows; combinations that models never see are among it. seconds: of a clip.

    worse: share of clips that are blurred, noisy, pale or coarse. Scenes have the seeds (seed << 32) + 0, 1, 2, ...
    report_clips: fresh clips on which the judge is compared with the oracle in the end.
    """

    out: str
    mix: SceneMix = field(default_factory=SceneMix)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(convolutions=True, muon_lr=5e-3, adamw_lr=2e-3, steps=1200)
    )
    clips: int = 32
    seconds: float = 2.0
    worse: float = 0.7
    ema: float = 0.99
    seed: int = 7
    threads: int = 0
    checkpoint_every: int = 200
    validate_every: int = 200
    validation_clips: int = 64
    report_clips: int = 256
    keep: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.worse <= 1 or self.seconds <= 0 or not 0 <= self.seed < 2**30:
            raise InputError("worse lies in 0 to 1, seconds above 0, seed in 0 to 2**30 - 1.")
        if min(self.clips, self.keep, self.validation_clips, self.report_clips) < 1:
            raise InputError("clips, keep, validation_clips and report_clips must be at least 1.")
        if "story" in self.mix.plays or len(self.mix.objects) > MOST:
            raise InputError(
                f"The judge reads one shot with at most {MOST} objects: leave stories out of mix."
            )


FREE = {"out", "checkpoint_every", "validate_every", "validation_clips", "report_clips", "keep"}


@dataclass(frozen=True)
class Labels:
    """What the network should say of a batch of clips."""

    place_BHW: Tensor  # 1 where an object's middle is, IGNORED around it, else 0
    looks: Mapping[str, Tensor]  # (B, H, W), UNSAID where there is no object
    count_B: Tensor
    background_B: Tensor


def train_judge(config: TrainJudgeConfig, resume: str | None = None) -> Path:
    """Train, and return the file `out`/judge.safetensors; `out`/report.json tells how it agrees with the oracle.

    resume: None begins a new run, "auto" continues one if there is one, anything else is a checkpoint folder. Raises
    InputError for a config that cannot work, FloatingPointError before the update that a NaN or Inf would spoil,
    SystemExit(75) after a signal, with a checkpoint saved.
    """
    with claimed(Path(config.out)), StopSignal() as stop:
        found = look_for(config, resume, FREE)
        judge = Judge(config.judge)
        with closing(begun("train judge", config, {"judge": judge}, found)) as run:
            for step in steps(run, stop):
                moments_BCHW, labels = lesson(config, step)
                loss, parts = mistakes(judge(moments_BCHW), labels)
                torch.autograd.backward([loss])
                factor, _ = update(run.optimizers, step, loss.item(), config.optimizer)
                run.ema.update()
                run.log.write(step, loss=loss.item(), rate=factor, **parts)
                run.progress.update(step, f"loss {loss.item():.3f}")
                if run.is_last or due(config.validate_every, step):
                    with run.ema.applied():
                        run.log.write(step, **compared(judge, config, config.validation_clips))
            return finish(run, judge, config)


# --- lessons: clips and what is in them, a pure function of (seed, step)


def lesson(config: TrainJudgeConfig, step: int) -> tuple[Tensor, Labels]:
    """The moments of the clips of a step, and their labels. All clips of a step have one size."""
    width, height = ASPECTS[step % len(ASPECTS)]
    # The moments only are rendered: as many frames in the same time.
    view = View(width, height, MOMENTS, (MOMENTS - 1) / config.seconds)
    first = (config.seed << 32) + (step - 1) * config.clips
    scenes = [sample_scene(first + i, staged(config)) for i in range(config.clips)]
    video_BCTHW = render(scenes, view)
    generator = torch.Generator().manual_seed(
        int(np.random.default_rng((config.seed, 1, step)).integers(2**62))
    )
    video_BCTHW = made_worse(video_BCTHW, config.worse, generator)
    return video_BCTHW.transpose(1, 2).flatten(1, 2), labels_of([truth(one, view) for one in scenes], view)


def staged(config: TrainJudgeConfig) -> SceneMix:
    """The mix, with all combinations, and motion for as long as the clip lasts."""
    return replace(config.mix, allow_holes=True, seconds=config.seconds)


def labels_of(truths: Sequence[Truth], view: View) -> Labels:
    """Where and what the objects are in the middle of each clip; those beyond the edge are at the edge."""
    rows, columns = view.height // CELL, view.width // CELL
    place_BHW = torch.zeros(len(truths), rows, columns)
    looks = {kind: torch.full((len(truths), rows, columns), UNSAID) for kind in LOOKS}
    for b, one in enumerate(truths):
        cells = []
        for thing in one.things:
            column = int((view.width / 2 + thing.x * view.unit) // CELL)
            row = int((view.height / 2 - (thing.y - 0.5) * view.unit) // CELL)
            cells.append((min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)))
        for row, column in cells:
            place_BHW[b, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = IGNORED
        for (row, column), thing in zip(cells, one.things, strict=True):
            place_BHW[b, row, column] = 1.0
            for kind, values in LOOKS.items():
                said = getattr(thing, kind)
                looks[kind][b, row, column] = values.index(said) if said else UNSAID
    return Labels(
        place_BHW,
        looks,
        torch.tensor([min(len(one.things), MOST) for one in truths]),
        torch.tensor([BACKGROUNDS.index(one.background) for one in truths]),
    )


def made_worse(video_BCTHW: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """As generated clips are: blurred, coarse, noisy, too pale or too dark; one clip in all its frames alike."""
    parts = []
    for video_CTHW in video_BCTHW:
        x, dice = video_CTHW.transpose(0, 1), torch.rand(6, generator=generator).tolist()
        if dice[0] < share:
            size = x.shape[-2:]
            if dice[1] < 0.4:
                sides = [round(side * (0.55 + 0.45 * dice[2])) for side in size]
                x = F.interpolate(
                    F.interpolate(x, sides, mode="bilinear", antialias=True), size, mode="bilinear"
                )
            if dice[3] < 0.4:
                x = torch.lerp(x, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), 0.3 + 0.7 * dice[2])
            gain, lift = 1 + 0.16 * (dice[4] - 0.5), 0.12 * (dice[5] - 0.5)
            x = x * gain + lift + 0.06 * dice[1] * torch.randn(x.shape, generator=generator)
        parts.append(x.transpose(0, 1).clamp(-1, 1))
    return torch.stack(parts)


def mistakes(logits: Logits, labels: Labels) -> tuple[Tensor, dict[str, float]]:
    """The sum of all losses, and each."""
    known_BHW = labels.place_BHW != IGNORED
    place = F.binary_cross_entropy_with_logits(
        logits.place_BHW[known_BHW], labels.place_BHW[known_BHW], reduction="sum"
    )
    parts = {
        "place": place / labels.count_B.sum().clamp(min=1),
        "count": F.cross_entropy(logits.count_BN, labels.count_B),
        "background": F.cross_entropy(logits.background_BN, labels.background_B),
    }
    for kind, label_BHW in labels.looks.items():
        if (label_BHW != UNSAID).any():
            parts[kind] = F.cross_entropy(logits.looks[kind], label_BHW, ignore_index=UNSAID)
    return torch.stack(list(parts.values())).sum(), {name: part.item() for name, part in parts.items()}


# --- pauses, the end


def compared(judge: Judge, config: TrainJudgeConfig, count: int) -> dict[str, float]:
    """On fresh clips as models make them (17 frames): {"right": share of true facts that the judge reads, "right
    colour": ..., "agree": share of facts, true ones and those of another clip, on which judge and oracle agree}.
    """
    scenes = [sample_scene(FRESH + (config.seed << 32) + i, staged(config)) for i in range(count)]
    told = [[fact for fact in facts(truth(one, SHAPE)) if fact.kind in READ] for one in scenes]
    right: dict[str, list[bool]] = {"": []}
    agree: list[bool] = []
    for i, clip in enumerate(_clips(scenes)):
        (reading,) = judge.read([clip])
        seen = observe(clip, SHAPE.fps)
        for fact, holds in verdicts(reading, told[i]).items():
            right[""].append(holds)
            right.setdefault(fact.kind, []).append(holds)
        for asked in (told[i], told[(i + 1) % count]):
            others: Mapping[Fact, bool] = oracle(seen, asked)
            agree += [holds == others[fact] for fact, holds in verdicts(reading, asked).items()]
    shares = {f"right {kind}".strip(): round(float(np.mean(held)), 4) for kind, held in right.items()}
    return {**shares, "agree": round(float(np.mean(agree)), 4)}


def _clips(scenes: Sequence[Scene], batch: int = 16) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return [
        to_frames(video_CTHW)
        for start in range(0, len(scenes), batch)
        for video_CTHW in render(scenes[start : start + batch], SHAPE)
    ]


def finish(run: Run, judge: Judge, config: TrainJudgeConfig) -> Path:
    """Write the report, and the file with the averaged weights in 16 bits and how they came about."""
    path = run.folder / "judge.safetensors"
    with run.ema.applied():
        report = compared(judge.eval(), config, config.report_clips)
        training = record(run, CPU) | {"clips": run.step * config.clips, "report": report}
        save_judge(judge, path, training)
    write_json(run.folder / "report.json", report)
    say(f"{path}: {run.step} steps in {clock(run.seconds)}, {report}.")
    return path
