"""Making a clip again from the record inside its file, and telling why it came out different."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mutoscope.config import from_dict
from mutoscope.diffusion.sampler import OnStep, StepInfo
from mutoscope.errors import InputError
from mutoscope.generation.cards import Storyboard
from mutoscope.generation.continuations import carry_out
from mutoscope.generation.generate import record, save
from mutoscope.generation.request import Recipe, file_sha256
from mutoscope.generation.storyboard import make_storyboard
from mutoscope.video import read_recipe, read_video
from mutoscope.weights.store import Model


@dataclass(frozen=True)
class ModelRecord:
    """A model by name and by the sha256 of its weights."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Machine:
    """What the last bits of a result depend on."""

    torch: str
    device: str
    threads: int
    platform: str


@dataclass(frozen=True)
class Record:
    """What a file tells of its making (see `generate.record`)."""

    mutoscope: str
    model: ModelRecord
    machine: Machine
    recipe: Recipe
    storyboard: Storyboard | None = None


def read_record(path: Path) -> Record:
    """The record inside a file. Raises InputError when there is none or it is not ours."""
    data = read_recipe(path)
    if data is None:
        raise InputError(f"{path} carries no recipe; only files that Mutoscope wrote can be made again.")
    return from_dict(Record, data, f"the recipe in {path}")


def remake(model: Model, made: Record, path: Path, on_step: OnStep | None = None) -> None:
    """Make the clip of a record into `path`, with its number of threads, stopping where it was stopped.

    Raises InputError when the model's weights are not those of the record.
    """
    if model.card.sha256 != made.model.sha256:
        raise InputError(
            f"The clip was made with weights {made.model.sha256[:12]} of {made.model.name!r} and these are "
            f"{model.card.sha256[:12]}; the same bytes need the same weights: name their folder with -m."
        )

    def watch(info: StepInfo) -> bool:
        go_on = on_step(info) if on_step else True
        return go_on is not False and info.step != made.recipe.stopped

    threads = torch.get_num_threads()
    torch.set_num_threads(made.machine.threads)
    try:
        if made.storyboard is not None:
            make_storyboard(model, made.storyboard, on_step=watch).save(path)
        elif made.recipe.task is not None:
            carry_out(model, made.recipe, watch).save(path)
        else:
            save(model, made.recipe, path, watch)
    finally:
        torch.set_num_threads(threads)


def differences(model: Model, made: Record, original: Path, again: Path) -> list[str]:
    """What differs between two files, surroundings first, then pixels; empty when the bytes are the same."""
    if file_sha256(original) == file_sha256(again):
        return []
    now = from_dict(Record, record(model, made.recipe), "this machine")
    reasons = [
        f"{name} was {before}, is {after}"
        for name, before, after in (
            ("mutoscope", made.mutoscope, now.mutoscope),
            ("torch", made.machine.torch, now.machine.torch),
            ("device", made.machine.device, now.machine.device),
            ("platform", made.machine.platform, now.machine.platform),
        )
        if before != after
    ]
    first, second = read_video(original).frames_THWC, read_video(again).frames_THWC
    if first.shape != second.shape:
        return [*reasons, f"the frames have shape {second.shape}, not {first.shape}"]
    distance = int(np.abs(first.astype(np.int16) - second).max())
    return [*reasons, f"pixels differ by at most {distance} of 255" if distance else "all pixels are equal"]
