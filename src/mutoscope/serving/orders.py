"""What a job is told to make: an Order, complete before it is queued, the same for every attempt."""

import hashlib
import json
import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from mutoscope.config import to_dict
from mutoscope.errors import InputError
from mutoscope.weights.card import Defaults, ModelCard

Task = Literal["create", "remix", "extend", "edit"]

GRID = 16
"""Pixels of one token's side; sizes that are multiples of it need no crop."""

DRAWN_AREA = 4
"""A clip is drawn at its own size up to this many times the area the model was made for, else upscaled."""


@dataclass(frozen=True)
class Order:
    """One clip to be made. Sizes in pixels; what the model draws (`drawn_*`) is scaled up to the size.

    `model` is the name that was asked for, `served_by` the model that draws. `inputs` names the folder of the
    normalised pictures and clips that came with the request ("" for none): first.png, last.png, video.mp4,
    and character-0.png and so on of the named `characters`.
    `frames` counts the new frames only; `source` is the job that an extension, edit or remix starts from.
    With a `strength` the clip is drawn from the noised frames of the one in the inputs. An extension follows its
    source, goes before it (`backward`) or leads from its end to its start (`loop`); a new clip with `loop` ends
    where it began. `expanded` is what the model is told for the prompt ("": the prompt itself). `storyboard` is the
    JSON of a `generation.cards.Storyboard` whose files are in the inputs ("" for none). `guidance_kind` to `step_cache`
    are options of `generation.request.Request`, the interval as "LOW-HIGH"; storyboards are made without them.
    """

    task: Task
    prompt: str
    model: str
    served_by: str
    width: int
    height: int
    drawn_width: int
    drawn_height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    sampler: str
    seed: int
    negative: str = ""
    inputs: str = ""
    first_picture: bool = False
    last_picture: bool = False
    source: str = ""
    source_frames: int = 0
    characters: tuple[str, ...] = ()
    strength: float | None = None
    loop: bool = False
    backward: bool = False
    expanded: str = ""
    storyboard: str = ""
    guidance_kind: str = "cfg"
    guidance_interval: str = "0-1"
    guidance_rescale: float = 0.0
    step_cache: float = 0.0

    @property
    def cards(self) -> list[dict[str, Any]]:
        """The cards of the storyboard, none without one."""
        return list(json.loads(self.storyboard)["cards"]) if self.storyboard else []

    @property
    def words(self) -> str:
        """All that a person said is to be seen."""
        return "\n".join([self.prompt, *(card["prompt"] for card in self.cards if card["prompt"])])

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def drawn_size(self) -> str:
        return f"{self.drawn_width}x{self.drawn_height}"

    @property
    def all_frames(self) -> int:
        """Frames of the finished clip: an extension holds its source too."""
        return self.source_frames + self.frames

    @property
    def seconds(self) -> float:
        return self.all_frames / self.fps


def dump(order: Order) -> str:
    return json.dumps(to_dict(order), ensure_ascii=False)


def parse(text: str) -> Order:
    """The order that `dump` wrote; the store is ours, so its types are not checked again.

    What an earlier version told and this one does not know is left out.
    """
    told = json.loads(text)
    known = {field.name: told[field.name] for field in fields(Order) if field.name in told}
    return Order(**known | {"characters": tuple(told.get("characters", ()))})


def fingerprint(fields: dict[str, Any]) -> str:
    """sha256 of what a client asked for, as it asked (a drawn seed apart): equal requests, equal prints."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def drawn_size(width: int, height: int, defaults: Defaults) -> tuple[int, int]:
    """The size at which the model draws a clip of `width` x `height`, to be scaled up afterwards.

    The size itself when its area is at most DRAWN_AREA times the model's own; else the same shape with about
    the model's own area, in whole tokens.
    """
    own = defaults.width * defaults.height
    if width * height <= DRAWN_AREA * own:
        return width, height
    scale = math.sqrt(own / (width * height))
    sides = (max(GRID, round(side * scale / GRID) * GRID) for side in (width, height))
    return next(sides), next(sides)


def resized(order: Order, width: int, height: int, card: ModelCard) -> Order:
    """The order at another size."""
    drawn_width, drawn_height = drawn_size(width, height, card.defaults)
    return replace(order, width=width, height=height, drawn_width=drawn_width, drawn_height=drawn_height)


def whole_frames(seconds: float, fps: float, limit: float) -> int:
    """Frames of a length in seconds, at least one. Raises InputError unless it is above 0 and up to `limit`."""
    if not (math.isfinite(seconds) and 0 < seconds <= limit):
        raise InputError(f"seconds is {seconds:g}; choose a length above 0 and up to {limit:g} seconds.")
    return max(1, round(seconds * fps))
