"""A second judge: a small network that learned to read facts from pixels, and knows none of the oracle's rules.

It sees a few moments of a clip at once and says what the backdrop is, how many objects there are, and of each, at the
cell where it is in the middle of the clip: colour, shape, size and direction. Where the two judges disagree, one of
them is fooled; the share of facts on which they agree is published beside every score.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mutoscope.config import from_dict
from mutoscope.errors import InputError
from mutoscope.evaluation.examinee import ideal_clips
from mutoscope.evaluation.report import Answer
from mutoscope.files import write_atomically
from mutoscope.video import to_tensor
from mutoscope.weights.store import BUILT_IN
from mutoscope.world.facts import Fact
from mutoscope.world.scene import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SIZES

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)

MOMENTS = 5  # frames that are looked at, evenly spread
SIDE = 64  # pixels of the shorter side, to which clips are scaled
CELL = 4  # pixels of a side of a cell
MOST = 6  # objects that are counted
LOOKS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS, "shape": SHAPES, "size": tuple(SIZES), "direction": DIRECTIONS,
}  # fmt: skip
READ = (*LOOKS, "count", "background")
SHIPPED = BUILT_IN / "judge.safetensors"
GROUPS = 8  # of the norms
RARE = -4.0  # logit, before training, that an object's middle is in a cell


@dataclass(frozen=True)
class JudgeConfig:
    """Channels at half, a quarter and an eighth of the size; blocks at a quarter (twice) and at an eighth."""

    wide: int = 32
    middle: int = 64
    deep: int = 80
    blocks: int = 1
    deep_blocks: int = 4


@dataclass(frozen=True)
class Seen:
    """One object as the network sees it."""

    colour: str
    shape: str
    size: str
    direction: str


@dataclass(frozen=True)
class Reading:
    """What the network reads in a clip."""

    background: str
    things: tuple[Seen, ...]


@dataclass(frozen=True)
class Logits:
    """Of a batch. place: that an object's middle is in a cell. looks: of the object in each cell, by kind."""

    place_BHW: Tensor
    looks: Mapping[str, Tensor]  # (B, values, H, W)
    count_BN: Tensor  # 0 to MOST objects
    background_BN: Tensor


class Step(nn.Module):
    """A residual convolution, dilated to see as far as things move."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + F.gelu(self.convolution(self.norm(x_BCHW)))


class Judge(nn.Module):
    """Moments of clips to logits: two scales of residual convolutions, the coarse one with the wide view."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        wide, middle, deep = config.wide, config.middle, config.deep
        self.halve = nn.Conv2d(3 * MOMENTS, wide, 5, stride=2, padding=2)
        self.quarter = nn.Conv2d(wide, middle, 3, stride=2, padding=1)
        self.near = nn.ModuleList(Step(middle) for _ in range(config.blocks))
        self.eighth = nn.Conv2d(middle, deep, 3, stride=2, padding=1)
        self.far = nn.ModuleList(Step(deep, 1 + i % 3) for i in range(config.deep_blocks))
        self.back = nn.Conv2d(deep, middle, 1)
        self.last = nn.ModuleList(Step(middle) for _ in range(config.blocks))
        self.norm = nn.GroupNorm(GROUPS, middle)
        self.cells = nn.Conv2d(middle, 1 + sum(map(len, LOOKS.values())), 1)
        with torch.no_grad():
            self.cells.bias[0] = RARE  # type: ignore[index]
        self.whole = nn.Linear(2 * deep, MOST + 1 + len(BACKGROUNDS))

    def forward(self, moments_BCHW: Tensor) -> Logits:
        """moments_BCHW: MOMENTS frames in [-1, 1], one after the other in C; sides are multiples of 8."""
        x = F.gelu(self.quarter(F.gelu(self.halve(moments_BCHW))))
        for step in self.near:
            x = step(x)
        y = self.eighth(x)
        for step in self.far:
            y = step(y)
        x = x + F.interpolate(self.back(y), scale_factor=2.0, mode="bilinear")
        for step in self.last:
            x = step(x)
        place, *looks = self.cells(self.norm(x)).split([1, *map(len, LOOKS.values())], 1)
        pooled_BD = torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1)
        count, background = self.whole(pooled_BD).split([MOST + 1, len(BACKGROUNDS)], 1)
        return Logits(place[:, 0], dict(zip(LOOKS, looks, strict=True)), count, background)

    @torch.inference_mode()
    def read(self, clips: Sequence[Frames]) -> list[Reading]:
        """What clips show; each may have a size and a length of its own."""
        return [self._reading(self(moments_of(clip)[None].to(self.whole.weight))) for clip in clips]

    def _reading(self, logits: Logits) -> Reading:
        """Of one clip: as many of the likeliest places as it counts objects, none next to another."""
        place_HW = logits.place_BHW[0]
        peak_HW = F.max_pool2d(place_HW[None, None], 3, 1, 1)[0, 0] == place_HW
        count = int(logits.count_BN[0].argmax())
        cells = place_HW.masked_fill(~peak_HW, -torch.inf).flatten().topk(count).indices.tolist()
        looks = {kind: values[0].flatten(1).argmax(0) for kind, values in logits.looks.items()}
        things = [Seen(**{kind: LOOKS[kind][int(looks[kind][cell])] for kind in LOOKS}) for cell in cells]
        return Reading(BACKGROUNDS[int(logits.background_BN[0].argmax())], tuple(things))


def moments_of(clip: Frames) -> Tensor:
    """The moments of a clip in the size that the network reads, (3 MOMENTS, H, W) in [-1, 1]."""
    chosen = np.linspace(0, len(clip) - 1, MOMENTS).round().astype(int)
    moments_TCHW = to_tensor(clip[chosen]).transpose(0, 1)
    height, width = moments_TCHW.shape[-2:]
    if min(height, width) < 1:
        raise InputError(f"A clip of {width}x{height} shows nothing; give one of at least 16x16 pixels.")
    sides = [max(8, round(side * SIDE / min(height, width) / 8) * 8) for side in (height, width)]
    if [height, width] != sides:
        moments_TCHW = F.interpolate(moments_TCHW, sides, mode="bilinear", antialias=True)
    return moments_TCHW.flatten(0, 1)


def verdicts(reading: Reading, facts: Sequence[Fact]) -> dict[Fact, bool]:
    """Which of the facts of the kinds in READ hold. Subjects are matched to objects so that most facts hold."""
    about = [fact for fact in facts if fact.kind in LOOKS]
    subjects = sorted({fact.subject for fact in about if fact.subject is not None})
    best: dict[Fact, bool] = dict.fromkeys(about, False)
    places: list[Seen | None] = [*reading.things, *[None] * len(subjects)]
    for choice in dict.fromkeys(permutations(range(len(places)), len(subjects))):
        cast = dict(zip(subjects, (places[place] for place in choice), strict=True))
        found = {
            fact: (seen := cast[fact.subject or 0]) is not None and getattr(seen, fact.kind) == fact.value
            for fact in about
        }
        if sum(found.values()) > sum(best.values()):
            best = found
    whole = {"count": str(len(reading.things)), "background": reading.background}
    return {
        fact: best[fact] if fact.kind in LOOKS else whole[fact.kind] == fact.value
        for fact in facts
        if fact.kind in READ
    }


def agreement(judge: Judge, answers: Sequence[Answer]) -> dict[str, object]:
    """How often judge and oracle say the same of a fact: in the clips made, and (`floor`) in the ground truth.

    "agree" and one number per kind; "right": share of clips with all facts right by the judge, "oracle": by the
    oracle, on the same facts; "sets": "agree" by set; n: facts.
    """
    told = [answer for answer in answers if any(fact.kind in READ for fact in answer.verdict)]
    made = [
        verdicts(reading, list(one.verdict))
        for one, reading in zip(told, judge.read([one.clip for one in told]), strict=True)
    ]
    real = [verdicts(judge.read(ideal_clips([one.question]))[0], list(one.floor)) for one in told]
    pairs = [
        (one.verdict[fact], says[fact], fact.kind, one) for one, says in zip(told, made) for fact in says
    ]
    if not pairs:
        return {"n": 0}
    kinds = {kind: _share([a == b for a, b, k, _ in pairs if k == kind]) for kind in READ}
    names = dict.fromkeys(one.question.exam.name for one in told)
    return {
        "agree": _share([a == b for a, b, *_ in pairs]),
        "floor": _share([one.floor[fact] == says[fact] for one, says in zip(told, real) for fact in says]),
        "truth": _share([holds for says in real for holds in says.values()]),
        **{kind: share for kind, share in kinds.items() if share is not None},
        "right": _share([all(says.values()) for says in made]),
        "oracle": _share([all(one.verdict[fact] for fact in says) for one, says in zip(told, made)]),
        "sets": {
            name: _share([a == b for a, b, _, one in pairs if one.question.exam.name == name])
            for name in names
        },
        "n": len(pairs),
    }


def _share(held: Sequence[bool]) -> float | None:
    return round(float(np.mean(held)), 4) if held else None


# --- the file


def save_judge(judge: Judge, path: Path, training: Mapping[str, object]) -> None:
    """Write the network in 16 bits, with its config and the record of its training, whole or not at all."""
    weights = {name: tensor.detach().half().cpu().contiguous() for name, tensor in judge.state_dict().items()}
    record = {"config": json.dumps(asdict(judge.config)), "training": json.dumps(dict(training))}
    write_atomically(path, save(weights, record))


def load_judge(path: Path = SHIPPED) -> Judge:
    """Read a network that `save_judge` wrote. Raises InputError when there is none."""
    try:
        with safe_open(path, "pt") as file:
            config = from_dict(JudgeConfig, json.loads(file.metadata()["config"]), str(path))
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no judge ({error}); train one with `mutoscope train judge`."
        ) from error
    judge = Judge(config)
    judge.load_state_dict(weights)
    return judge.eval()
