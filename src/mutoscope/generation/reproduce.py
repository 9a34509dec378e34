"""Making a clip again from the record inside its file, and telling why it came out different.

What a server made is finished here as there: scaled, marked, a loop opened and closed again. Its signature (C2PA) is
never the same twice, so that a signed clip is compared as it was before it was signed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mutoscope.config import from_dict, to_dict
from mutoscope.diffusion.sampler import OnStep, StepInfo
from mutoscope.errors import InputError
from mutoscope.generation.cards import Storyboard
from mutoscope.generation.continuations import carry_out
from mutoscope.generation.finish import finished
from mutoscope.generation.generate import frames_of, record, roll, save
from mutoscope.generation.request import Recipe, file_sha256
from mutoscope.generation.storyboard import make_storyboard
from mutoscope.video import VideoWriter, read_recipe, read_video
from mutoscope.weights.residence import Weights
from mutoscope.weights.store import Model

MANIFEST = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Type of the uuid box that holds a C2PA manifest (specification 2.2, A.5)."""


@dataclass(frozen=True)
class ModelRecord:
    """A model by name and by the sha256 of its weights, and whether these were rounded to 8 bits as they were read."""

    name: str
    sha256: str
    weights: Weights = "exact"


@dataclass(frozen=True)
class Machine:
    """What the last bits of a result depend on."""

    torch: str
    device: str
    threads: int
    platform: str
    compiled: bool = False


@dataclass(frozen=True)
class Served:
    """What a server did beyond the recipe: size, mark, what it was made from; of a loop, what was closed."""

    marked: bool = False
    upscaled_to: str | None = None
    opened: Recipe | None = None
    remixed_from: str | None = None
    edited_from: str | None = None
    extended_from: str | None = None
    source_frames: int = 0


@dataclass(frozen=True)
class Record:
    """What a file tells of its making (see `generate.record`)."""

    mutoscope: str
    model: ModelRecord
    machine: Machine
    recipe: Recipe
    storyboard: Storyboard | None = None
    served: Served | None = None


def read_record(path: Path) -> Record:
    """The record inside a file. Raises InputError when there is none, it is not ours, or another server drew."""
    data = read_recipe(path)
    if data is None:
        raise InputError(f"{path} carries no recipe; only files that Mutoscope wrote can be made again.")
    if "backend" in data and "recipe" not in data:
        raise InputError(f"{path} was drawn by another server; only that one could make it again.")
    return from_dict(Record, data, f"the recipe in {path}")


def remake(model: Model, made: Record, path: Path, on_step: OnStep | None = None) -> None:
    """Make the clip of a record into `path`, with its number of threads, stopping where it was stopped.

    Raises InputError when the model's weights are not those of the record, or a file is not there from which a
    server made the clip: its name is the server's, its place the current folder.
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
        if made.served is not None:
            _serve(model, made, made.served, path, watch)
        elif made.storyboard is not None:
            make_storyboard(model, made.storyboard, on_step=watch).save(path)
        elif made.recipe.task is not None:
            carry_out(model, made.recipe, watch).save(path)
        else:
            save(model, made.recipe, path, watch)
    finally:
        torch.set_num_threads(threads)


def _serve(model: Model, made: Record, served: Served, path: Path, on_step: OnStep) -> None:
    """Make a clip as the server did (see `serving.tasks.make`)."""
    _need_files(made, served)
    recipe = made.recipe
    with TemporaryDirectory() as folder:
        if served.opened is not None and recipe.task is not None:
            clip = Path(folder) / "open.mp4"
            keep_open(clip, served.opened, _drawn(model, served.opened, on_step))
            recipe = replace(recipe, task=replace(recipe.task, clip=str(clip)))
        pieces: Iterable[np.ndarray]
        if made.storyboard is not None:
            pieces = [make_storyboard(model, made.storyboard, on_step=on_step).frames_THWC]
        elif recipe.task is None:
            pieces = _drawn(model, recipe, on_step)
        else:
            pieces = [carry_out(model, recipe, on_step).frames_THWC]
            if served.source_frames:
                pieces = beside(read_video(recipe.task.clip).frames_THWC, pieces[0], recipe.task.backward)
    width, height = (int(side) for side in (served.upscaled_to or made.recipe.size).split("x"))
    told = record(model, made.recipe)
    if made.storyboard is not None:
        told["storyboard"] = to_dict(made.storyboard)
    told["served"] = {
        name: value for name, value in to_dict(served).items() if value != getattr(Served, name)
    }
    with VideoWriter(path, width, height, recipe.fps, told) as writer:
        for frames_THWC in finished(pieces, (width, height), recipe.fps, told):
            writer.write(frames_THWC)


def _drawn(model: Model, recipe: Recipe, on_step: OnStep) -> Iterable[np.ndarray]:
    """The frames of a clip that is made from nothing but its recipe and its pictures."""
    return frames_of(model, recipe, [roll(model, recipe, on_step).latent_BCTHW[0]])


def keep_open(path: Path, recipe: Recipe, pieces: Iterable[np.ndarray]) -> None:
    """Write the clip that is to be closed to a loop: its bytes decide what closes it."""
    with VideoWriter(path, recipe.width, recipe.height, recipe.fps, {}) as writer:
        for frames_THWC in pieces:
            writer.write(frames_THWC)


def beside(source_THWC: np.ndarray, made_THWC: np.ndarray, backward: bool) -> list[np.ndarray]:
    """A clip's own frames, and what was made after them (or before); `made_THWC` holds both, at its own size."""
    frames = len(source_THWC)
    return [made_THWC[:-frames], source_THWC] if backward else [source_THWC, made_THWC[frames:]]


def _need_files(made: Record, served: Served) -> None:
    """Raise InputError for the first file of the server that is not in the current folder."""
    recipe = served.opened or made.recipe
    named = [(recipe.image, recipe.image_sha256), (recipe.last_image, recipe.last_image_sha256)]
    if served.opened is None and recipe.task is not None:
        named.append((recipe.task.clip, recipe.task.clip_sha256))
    cards = made.storyboard.cards if made.storyboard is not None else ()
    named += [(card.image or card.clip, card.sha256) for card in cards]
    for name, digest in named:
        if name is not None and not Path(name).exists():
            known = f" (sha256 {digest[:12]})" if digest else ""
            raise InputError(
                f"The server made the clip from its file {name}{known}, which is not here; put it into this folder."
            )


def unsigned(data: bytes) -> bytes:
    """An MP4 file without its C2PA box, as it was before it was signed; the same bytes when it has none."""
    boxes, at = list[tuple[bytes, bytes]](), 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        if size < 8:
            return data
        boxes.append((data[at + 4 : at + 8], data[at : at + size]))
        at += size
    extra = sum(len(box) for name, box in boxes if name == b"uuid" and box[8:24] == MANIFEST)
    if not extra:
        return data
    return b"".join(
        _moved(box, extra) if name == b"moov" else box
        for name, box in boxes
        if not (name == b"uuid" and box[8:24] == MANIFEST)
    )


def _moved(moov: bytes, extra: int) -> bytes:
    """A moov box whose chunks lie `extra` bytes nearer to the start (ISO/IEC 14496-12, 8.7.5)."""
    told = bytearray(moov)
    for name, width in ((b"stco", 4), (b"co64", 8)):
        at = told.find(name)
        while at >= 0:
            count = int.from_bytes(told[at + 8 : at + 12])
            for place in range(at + 12, at + 12 + count * width, width):
                moved = int.from_bytes(told[place : place + width]) - extra
                told[place : place + width] = moved.to_bytes(width)
            at = told.find(name, at + 12 + count * width)
    return bytes(told)


def differences(model: Model, made: Record, original: Path, again: Path) -> list[str]:
    """What differs between two files, surroundings first, then pixels; empty when the bytes are the same."""
    if file_sha256(original) == file_sha256(again) or unsigned(original.read_bytes()) == again.read_bytes():
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
