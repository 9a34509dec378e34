"""A whole Wan model from a folder in any public layout: diffusers', the original one, or files as ComfyUI has them.

What each file is, is told by the names and shapes in its header; folders matter only for telling the expert for
low noise. A `.pth` is read where no safetensors file holds the same part (see `tensor_files`). The text encoder is
read when a prompt comes and let go after, so it and the transformer never sum up.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer

from mutoscope.diffusion.fixed_shift import FixedShift
from mutoscope.errors import InputError
from mutoscope.models.dit import DiT
from mutoscope.models.experts import Experts
from mutoscope.models.text import Text
from mutoscope.models.umt5 import UMT5Text
from mutoscope.models.vae import VAE
from mutoscope.weights.card import ModelCard
from mutoscope.weights.encoders import blank_clip, blank_umt5, encoder_kind, load_clip, load_umt5
from mutoscope.weights.few_steps import distilled
from mutoscope.weights.residence import (
    Placement,
    Weights,
    count_weights,
    free_memory,
    read_late,
    weight_bytes,
)
from mutoscope.weights.store import Model
from mutoscope.weights.tensor_files import PICKLES, PTH, SHARD, named, read_shapes, weight_files
from mutoscope.weights.wan_layouts import detect
from mutoscope.weights.wan_modules import (
    Kept,
    dit_config_at,
    load_vae,
    prepare_dit,
    read_json,
    told_beside,
    vae_plan,
)
from mutoscope.weights.wan_settings import SETTINGS, name_of

DEPTH = 2  # folders below the model in which its files are looked for, as google/umt5-xxl
LOW = ("transformer_2", "low_noise")
TOKENIZER = "tokenizer.json"
LORA = re.compile(r"(?:^|\.)lora[._](?:A|B|up|down|unet|transformer)\b|^lora_")
OTHER_TOKENIZER = "roberta"  # of CLIP's text half, which Wan's own folders hold and nobody reads


@dataclass(frozen=True)
class Parts:
    """Where the parts of a model lie: files, or folders of shards. low: the second expert of Wan 2.2."""

    dit: Path
    vae: Path
    text: Path
    tokenizer: Path
    low: Path | None = None
    clip: Path | None = None

    @property
    def weights(self) -> list[Path]:
        return [part for part in (self.dit, self.low, self.vae, self.text, self.clip) if part is not None]


def looks_like_wan(folder: Path) -> bool:
    """Whether a folder without a model.json holds weights of other people's making."""
    if not folder.is_dir():
        return False
    if (folder / "model_index.json").is_file() or pickles(folder):
        return True
    return any(part_of(unit) is not None for unit in units(folder))


def part_of(unit: Path) -> str | None:
    """Which part of a Wan model a file is, None for another's."""
    try:
        shapes = read_shapes(unit)
        kind = encoder_kind(shapes)
        form = detect(shapes) if kind is None else None
    except InputError:
        return None
    if form is not None and form.layout == "mutoscope" and "_class_name" not in told_beside(unit):
        return None  # of a model of ours
    return kind or (form.part if form is not None else None)


def survey(folder: Path) -> Parts:
    """The parts of the model in a folder, by the headers of its files alone.

    Raises InputError that names what is missing, given twice, half downloaded or a pickle.
    """
    found: dict[str, list[Path]] = {"dit": [], "low": [], "vae": [], "umt5": [], "clip": []}
    for unit in units(folder):
        shapes = read_shapes(unit)
        if any(LORA.search(key) for key in shapes):
            continue  # lies beside the model, and is added with --lora
        try:
            part: str = encoder_kind(shapes) or detect(shapes).part
        except InputError as error:
            raise InputError(f"{unit} is no part of the model: {error}") from error
        low = part == "dit" and any(word in unit.relative_to(folder).as_posix() for word in LOW)
        found["low" if low else part].append(unit)
    for part, places in found.items():
        if any(place.suffix != PTH for place in places):
            found[part] = [place for place in places if place.suffix != PTH]
    tokenizers = sorted(
        (path for path in folder.rglob(TOKENIZER) if OTHER_TOKENIZER not in path.parent.name),
        key=lambda path: len(path.parts),
    )
    names = {"dit": "transformer", "vae": "VAE", "umt5": "text encoder (UMT5)"}
    missing = [name for part, name in names.items() if not found[part]]
    missing += [] if tokenizers else [f"tokenizer ({TOKENIZER})"]
    if missing:
        refused = [path.name for path in pickles(folder)]
        also = f" beside pickles ({named(refused)}), which can run code and are not read" if refused else ""
        raise InputError(
            f"{folder} lacks the {' and the '.join(missing)}{also}; complete the model in safetensors."
        )
    for part, places in found.items():
        if len(places) > 1:
            several = named([path.relative_to(folder).as_posix() for path in places])
            raise InputError(
                f"{folder} has several files for one part ({part}): {several}; keep one of them."
            )
    return Parts(
        dit=found["dit"][0],
        vae=found["vae"][0],
        text=found["umt5"][0],
        tokenizer=tokenizers[0],
        low=found["low"][0] if found["low"] else None,
        clip=found["clip"][0] if found["clip"] else None,
    )


def units(folder: Path) -> Iterator[Path]:
    """Safetensors files, folders of shards, and then `.pth` files, in a folder and a little below."""
    for place in [folder, *sorted(path for path in below(folder) if path.is_dir())]:
        files = sorted(place.glob("*.safetensors"))
        indexed = any(place.glob("*.safetensors.index.json")) or any(
            SHARD.fullmatch(file.name) for file in files
        )
        if indexed:
            yield place
            members = set(weight_files(place))
            files = [file for file in files if file not in members]
        yield from files
        yield from sorted(place.glob(f"*{PTH}"))


def below(folder: Path) -> Iterator[Path]:
    """What lies up to DEPTH folders below, without what is hidden (caches of downloads)."""
    for depth in range(1, DEPTH + 1):
        for path in folder.glob("/".join("*" * depth)):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path


def pickles(folder: Path) -> list[Path]:
    """Files of kinds that are not read."""
    return sorted(path for path in below(folder) if path.suffix in PICKLES and path.suffix != PTH)


def load_wan(
    folder: Path, device: torch.device, dtype: torch.dtype | None = None, weights: Weights = "exact"
) -> Model:
    """The model of a folder, ready to generate; see `survey`, and `residence` for where its weights lie.

    dtype: None means float32 for the VAE, and for the transformer too on a CPU, elsewhere bfloat16.
    weights: "int8" has the matrices of the transformer's blocks in 8 bits, read when it is first used.
    """
    parts = survey(folder)
    told = read_json(folder / "model_index.json")
    kind = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    placement = placement_of(parts, device, kind, weights)
    high, wake_high = read_dit(parts.dit, placement, device)
    wake: list[Callable[[], None]] = [wake_high]
    name = name_of(high.config, 1 if parts.low is None else 2)
    setting = SETTINGS[name]
    dit: DiT | Experts = high
    if parts.low is not None:
        boundary = told.get("boundary_ratio") or setting.boundary
        if not isinstance(boundary, float) or not 0 < boundary < 1:
            raise InputError(
                f"{folder} has two experts and the boundary {boundary!r} between them, which is not between 0 and 1; "
                "it is no A14B model."
            )
        low, wake_low = read_dit(parts.low, placement, device)
        wake.append(wake_low)
        dit = Experts(high, low, boundary, setting.low_share)
    steps = read_json(folder / "scheduler" / "scheduler_config.json")
    shift = steps.get("flow_shift") or steps.get("shift") or setting.shift
    if not isinstance(shift, int | float):
        raise InputError(
            f"The scheduler of {folder} has the shift {shift!r}, which is no number; fetch it again."
        )
    frames = bool(told.get("expand_timesteps", name == "wan2.2-ti2v-5b"))
    card = ModelCard(
        name=folder.resolve().name,
        defaults=distilled(setting.defaults, told),
        training={"family": name},
        sha256=identity(parts, weights),
    )
    vae = load_vae(parts.vae, device=str(device), dtype=dtype or torch.float32)
    return Model(
        vae=cast(VAE, vae),  # offers the same calls
        dit=cast(DiT, dit),
        text=cast(Text, read_text(parts, device, kind)),
        process=FixedShift(constant=float(shift), known_frames=frames),
        card=card,
        folder=folder,
        read_picture_encoder=None
        if parts.clip is None
        else partial(load_clip, parts.clip, str(device), kind),
        wake=lambda: [one() for one in wake],
        placement=placement,
    )


def check_weights(folder: Path) -> None:
    """Raise InputError unless every tensor of a model has its place, by the headers of its files."""
    parts = survey(folder)
    for expert in (parts.dit, parts.low):
        if expert is not None:
            prepare_dit(expert)
    vae_plan(parts.vae)
    blank_umt5(parts.text)
    if parts.clip is not None:
        blank_clip(parts.clip)


def placement_of(
    parts: Parts, device: torch.device, dtype: torch.dtype, weights: Weights = "exact"
) -> Placement:
    """Where the weights go, by what is free and by the headers of the files."""
    counts = [count_weights(part) for part in (parts.dit, parts.low) if part is not None]
    numbers, matrices = map(sum, zip(*counts, strict=True))
    text, vae = weight_bytes(parts.text), weight_bytes(parts.vae, torch.float32)
    placement = Placement("memory", text, numbers, matrices, vae, dtype, weights)
    return placement.within(free_memory(device))


def read_dit(path: Path, placement: Placement, device: torch.device) -> tuple[DiT, Callable[[], None]]:
    """One transformer, and what fills it if it is not filled yet.

    One in 8 bits waits until it is used, or asked for, so that LoRAs come before the rounding.
    """
    kept: Kept = "mapped" if placement.residence == "file" else "plain"
    exact = placement.weights == "exact"
    dit, read = prepare_dit(path, None, str(device), placement.dtype, kept if exact else "int8")
    fill = read_late(dit, read)
    if exact and placement.residence == "memory":
        fill()
    return dit, fill


def read_text(parts: Parts, device: torch.device, dtype: torch.dtype) -> UMT5Text:
    """The prompts' way into the model; the encoder's weights are not read yet."""
    try:
        tokenizer = Tokenizer.from_file(str(parts.tokenizer))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{parts.tokenizer} is not a tokenizer ({error}); fetch it again.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    fits = device.type == "cpu" or weight_bytes(parts.text) < free_memory(device)
    read = partial(load_umt5, parts.text, str(device) if fits else "cpu")
    return UMT5Text(tokenizer, blank_umt5(parts.text), read, device, dtype)


def wan_card(folder: Path) -> ModelCard:
    """What a Wan model says of itself, by headers alone."""
    parts = survey(folder)
    shapes = read_shapes(parts.dit)
    config = dit_config_at(parts.dit, shapes, detect(shapes))
    name = name_of(config, 1 if parts.low is None else 2)
    return ModelCard(
        name=folder.resolve().name,
        defaults=distilled(SETTINGS[name].defaults, read_json(folder / "model_index.json")),
        training={"family": name},
        sha256=fingerprint(parts),
    )


def identity(parts: Parts, weights: Weights) -> str:
    """`fingerprint` of the weights as they are used: rounded ones are others."""
    exact = fingerprint(parts)
    return exact if weights == "exact" else hashlib.sha256(f"{exact} {weights}".encode()).hexdigest()


def fingerprint(parts: Parts) -> str:
    """sha256 of the headers and lengths of all weights and of the tokenizer, which is quick to tell models apart.

    `mutoscope models verify` reads every byte.
    """
    digest = hashlib.sha256(parts.tokenizer.read_bytes())
    for part in parts.weights:
        for file in weight_files(part):
            digest.update(header(file))
            digest.update(str(file.stat().st_size).encode())
    return digest.hexdigest()


def header(file: Path) -> bytes:
    """What tells a file of weights apart: of safetensors the header, of a `.pth` its list of parts and checksums."""
    if file.suffix == PTH:
        with zipfile.ZipFile(file) as archive:
            return str([(part.filename, part.file_size, part.CRC) for part in archive.infolist()]).encode()
    with file.open("rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little"))
