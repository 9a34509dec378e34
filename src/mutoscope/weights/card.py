"""What a model says of itself in its model.json, apart from its architecture. Needs no torch."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Defaults:
    """What a model makes of a request that names only a prompt; `negative` stands in for an empty one.

    candidates: noises that are tried for a clip, of which its captioner keeps one (see `generation.choice`).
    sigmas: the noise levels that a distilled model was trained at, falling, without the 0 at the end; so many are
    its steps.
    """

    width: int = 64
    height: int = 64
    frames: int = 17
    fps: float = 8.0
    steps: int = 30
    guidance: float = 4.0
    sampler: str = "dpmpp_2m"
    negative: str = ""
    sigmas: tuple[float, ...] = ()
    candidates: int = 1


@dataclass(frozen=True)
class ModelCard:
    """Name, licence, defaults and training record of a model.

    training: how the weights came about (config, steps, hardware, date, results), free in form.
    sha256: of everything that decides the pixels (architecture, process, weights); filled in by `save_model`.
    led: whether it has learned clips behind a portrait of somebody in them (see `video.leader`): it takes references.
    """

    name: str
    licence: str = "Apache-2.0"
    defaults: Defaults = field(default_factory=Defaults)
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    led: bool = False
