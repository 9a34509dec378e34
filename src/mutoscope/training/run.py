"""What the trainings on one machine share: how a run is begun or gone on with, its steps in order, its checkpoints.

A recipe's loop is `for step in steps(run, ...)`. Whatever a step depends on is in the weights, the optimisers and its
number, so that a run killed at any moment and resumed gives the same weights as one left alone, bit for bit.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from mutoscope.config import from_dict, to_dict, write_json
from mutoscope.training.machine import Leg, keep_memory, words_for
from mutoscope.training.optimizer import OptimizerConfig, build_optimizers
from mutoscope.training.state import (
    EMA,
    TRY_AGAIN,
    Progress,
    RunLog,
    StopSignal,
    checkpoint_to_resume,
    load_checkpoint,
    refuse_changes,
    require_space,
    save_checkpoint,
    say,
    sweep,
)


class Config(Protocol):
    """What the config of every training says."""

    @property
    def out(self) -> str: ...
    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def ema(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def keep(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...


@dataclass(frozen=True)
class Found:
    """What a run goes on from: the parts of a checkpoint and what is told of them; of a new run, nothing."""

    parts: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.parts)


@dataclass
class Run:
    """A training at work. `modules` are trained; `told` goes into checkpoints beside the config."""

    config: Config
    folder: Path
    modules: Mapping[str, nn.Module]
    optimizers: list[Optimizer]
    ema: EMA
    log: RunLog
    progress: Progress
    step: int  # the one at work, or the last
    before: float  # seconds of earlier sittings
    told: Mapping[str, Any]
    began: float = field(default_factory=time.monotonic)

    @property
    def is_last(self) -> bool:
        """Whether the step at work ends the run."""
        return self.step == self.config.optimizer.steps

    @property
    def seconds(self) -> float:
        """Spent so far, all sittings together."""
        return self.before + time.monotonic() - self.began

    def close(self) -> None:
        self.log.close()
        self.progress.close()


def look_for(config: Config, resume: str | None, free: Collection[str]) -> Found:
    """Make the machine ready, and find what to go on from.

    resume: None begins a new run, "auto" continues one if there is one, anything else is a checkpoint folder. free:
    what may differ between a run and its continuation, because it changes no weight. Raises InputError for a run that
    is there unasked, damaged, or of another config.
    """
    keep_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    checkpoints = Path(config.out) / "checkpoints"
    sweep(checkpoints)
    path = checkpoint_to_resume(checkpoints, resume)
    if path is None:
        return Found()
    parts, told = load_checkpoint(path)
    before = from_dict(type(config), told["config"], str(path))  # new fields at their defaults
    refuse_changes(to_dict(before), to_dict(config), free, path)
    return Found(parts, told)


def begun(
    label: str,
    config: Config,
    modules: Mapping[str, nn.Module],
    found: Found,
    dtype: torch.dtype = torch.float32,
    told: Mapping[str, Any] | None = None,
) -> Run:
    """The run of these modules, with what was found in it. Raises InputError when the disk has too little room.

    label: of its progress. dtype: in which matrices are orthogonalised.
    """
    folder, step = Path(config.out), int(found.told.get("step", 0))
    optimizers, ema = build_optimizers(modules, config.optimizer, dtype), EMA(modules, config.ema)
    if found:
        for name, module in modules.items():
            module.load_state_dict(found.parts[name])
        for i, optimizer in enumerate(optimizers):
            optimizer.load_state_dict(found.parts[f"optimizer{i}"])
        ema.load_state_dict(found.parts["ema"])
        say(f"resuming from step {step}.")
    weights = sum(parameter.numel() for module in modules.values() for parameter in module.parameters())
    require_space(folder, 16 * weights * (config.keep + 1))  # weights, averages, two optimiser states, fp32
    write_json(folder / "config.json", config)
    say(f"{weights / 1e6:.2f} M parameters.")
    log, progress = RunLog(folder, "log.jsonl", step), Progress(label, config.optimizer.steps, step)
    before = float(found.told.get("seconds", 0.0))
    return Run(config, folder, modules, optimizers, ema, log, progress, step, before, told or {})


def steps(
    run: Run, stop: StopSignal, checkpoint_minutes: float = math.inf, minutes: float = 0.0
) -> Iterator[int]:
    """The steps that are left, by number; a checkpoint follows those that want one.

    minutes: of this sitting, 0 for all that it takes. Raises SystemExit(75) when it ends before the run does.
    """
    leg, saved_at, every = Leg(minutes), time.monotonic(), run.config.checkpoint_every
    while run.step < run.config.optimizer.steps:
        run.step += 1
        yield run.step
        ends = stop.requested or leg.over
        late = (time.monotonic() - saved_at) / 60 > checkpoint_minutes
        if run.is_last or ends or late or due(every, run.step):
            save(run)
            saved_at = time.monotonic()
        if ends and not run.is_last:
            say(f"stopped after step {run.step}: continue with --resume auto.")
            raise SystemExit(TRY_AGAIN)


def due(every: int, step: int) -> bool:
    """Whether what happens every so many steps (0: never) happens after this one."""
    return every > 0 and step % every == 0


def save(run: Run) -> Path:
    """A checkpoint of everything that the next step depends on."""
    run.log.sync()
    parts = {name: module.state_dict() for name, module in run.modules.items()} | {
        "ema": run.ema.state_dict()
    }
    parts |= {f"optimizer{i}": optimizer.state_dict() for i, optimizer in enumerate(run.optimizers)}
    told = {"step": run.step, "seconds": run.seconds, "config": to_dict(run.config), **run.told}
    return save_checkpoint(run.folder / "checkpoints", run.step, parts, told, run.config.keep)


def record(run: Run, device: torch.device) -> dict[str, Any]:
    """How the weights came about, for the model's own record."""
    return {
        "config": to_dict(run.config),
        "steps": run.step,
        "seconds": round(run.seconds),
        "hardware": words_for(device),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }
