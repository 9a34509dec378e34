"""Train the expander on captions of the world, which it learns to write from a part of what they say.

The loop is `train_expander`. As in `train_captioner`, a step depends on nothing but the weights, the optimisers and its
number, so that a run killed at any moment and resumed gives the same weights as one left alone, bit for bit.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save as to_safetensors
from tokenizers import Tokenizer
from torch import Tensor

from mutoscope.config import to_dict, write_json
from mutoscope.errors import InputError
from mutoscope.evaluation.caption_facts import FRESH
from mutoscope.files import write_atomically
from mutoscope.generation.author import RECORD, TOKENIZER, WEIGHTS, Author, Sizes
from mutoscope.generation.expand import USUAL, fits, vague
from mutoscope.generation.stated import draft, plainly
from mutoscope.models.captioner import Length, token_rows
from mutoscope.models.expander import Expander, ExpanderConfig, source_rows
from mutoscope.models.text import PAD
from mutoscope.training.machine import autocast, dtype_of
from mutoscope.training.monitor import plot_losses
from mutoscope.training.optimizer import OptimizerConfig, update
from mutoscope.training.run import Run, begun, due, look_for, record, steps
from mutoscope.training.state import StopSignal, claimed, clock, say, writing
from mutoscope.weights.store import BUILT_IN
from mutoscope.world.captions import Fact, caption, parse, tell, truth
from mutoscope.world.facts import Truth
from mutoscope.world.scene import EVERYTHING, SceneMix, View, sample_scene

CPU = torch.device("cpu")
VIEW = View(64, 64, 17)  # clips of the built-in model
TELLINGS = 12  # of a medium caption, of which one that leaves little open, in usual words, is learned
OPEN = {"detailed": ("colour", "direction", "background", "size", "count"), "medium": ("colour", "direction")}


@dataclass(frozen=True)
class TrainExpanderConfig:
    """One run. out: its folder. tokenizer: of the built-in model's folder of that name.

    expander: sizes of the network. kinds: weights of the kinds of caption that it learns to write. mix: the world.
    scenes: how many it is taught from. Lengths of time are in steps unless they say otherwise; 0 turns a thing off.
    """

    out: str
    tokenizer: str = "tiny"
    expander: ExpanderConfig = field(default_factory=ExpanderConfig)
    kinds: dict[Literal["medium", "detailed"], float] = field(
        default_factory=lambda: {"detailed": 0.6, "medium": 0.4}
    )
    mix: SceneMix = field(default_factory=lambda: EVERYTHING)
    scenes: int = 1_000_000
    prompts: int = 32  # in a step
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: float = 0.995
    seed: int = 0
    threads: int = 0  # of torch; 0 leaves its choice
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: int = 200
    checkpoint_minutes: float = 10.0
    keep: int = 2
    validate_every: int = 500
    validation_prompts: int = 64
    report_prompts: int = 200  # fresh ones in the final report

    def __post_init__(self) -> None:
        if not self.kinds or min(self.kinds.values()) < 0 or sum(self.kinds.values()) <= 0:
            raise InputError("kinds must be weights of 0 or more, not all 0.")
        if min(self.prompts, self.keep, self.validation_prompts) < 1 or not 1 <= self.scenes < 2**40:
            raise InputError(
                "prompts, keep, validation_prompts and scenes must be at least 1, scenes below 2**40."
            )
        for name in ("threads", "checkpoint_every", "validate_every", "report_prompts"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 0 (off) or more.")


# What may differ between a run and its continuation: it changes no weight.
FREE = {
    "out",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep",
    "validate_every",
    "validation_prompts",
    "report_prompts",
}


class Lesson(NamedTuple):
    """A caption, and a part of what it states in plain words."""

    source: str
    caption: str


def lesson(config: TrainExpanderConfig, kind: Length, seed: int, rng: np.random.Generator) -> Lesson:
    """One of a scene from `seed` on: nothing to be seen, and stories, are passed over."""
    while True:
        told = truth(sample_scene(seed, config.mix), VIEW)
        if told.things and not told.shots:
            text = worded(told, kind, rng)
            source = plainly(part(parse(text)[0], kind, rng)) or plainly(parse(text)[0])
            if source:
                return Lesson(source, text)
        seed += 1


def worded(told: Truth, kind: Length, rng: np.random.Generator) -> str:
    """A caption of the kind; in place of a medium one the best of a few short and medium ones.

    The best leaves no colour and no motion open, and is in usual words: that is what the generator understands best,
    and how `expand` chooses among captions of the world.
    """
    if kind == "detailed":
        return tell(told, kind, rng)
    texts = [tell(told, ("short", "medium")[i % 2], rng) for i in rng.permutation(TELLINGS)]
    said = {text: parse(text)[0] for text in texts}
    placed = bool(rng.random() < 0.6)

    def amiss(text: str) -> tuple[bool, bool, int]:
        place = any(fact.kind == "background" for fact in said[text])
        strange = set(text.lower().replace(",", " ").replace(".", " ").split()) - USUAL
        return vague(draft(said[text]), picture=False), place != placed, len(strange)

    return min(texts, key=amiss)


def part(said: tuple[Fact, ...], kind: Length, rng: np.random.Generator) -> list[Fact]:
    """What of a caption is asked for; the rest is what the expander is to add (see `expand.fits`)."""
    chance = rng.random() if kind == "detailed" else rng.uniform(0.2, 1.0)
    kept = [fact for fact in said if fact.kind not in OPEN[kind] or rng.random() >= chance]
    if kind == "medium" and vague(draft(kept), picture=False):
        if not any(fact.kind == "background" for fact in said):
            return list(said)  # nothing may be open, since the caption does not fill all of it
        if rng.random() < 0.7:
            return [fact for fact in kept if fact.kind != "background"]
    return kept


def lessons(config: TrainExpanderConfig, step: int) -> tuple[Length, list[Lesson]]:
    """The kind and the lessons of a step: a pure function of seed and step."""
    rng = np.random.default_rng((config.seed, 1, step))
    weights = np.array(list(config.kinds.values()), float)
    # One kind in a step: a medium caption beside a detailed one would be padded to its length.
    kind = list(config.kinds)[int(rng.choice(len(weights), p=weights / weights.sum()))]
    first = config.seed << 41
    return kind, [
        lesson(config, kind, first + int(scene), rng)
        for scene in rng.integers(config.scenes, size=config.prompts)
    ]


@dataclass(frozen=True)
class Work:
    """All that the loop works with."""

    config: TrainExpanderConfig
    tokenizer: Tokenizer
    expander: Expander
    run: Run


def train_expander(config: TrainExpanderConfig, resume: str | None = None) -> Path:
    """Train, and return the folder `out`/model, which is what ships as weights/expander.

    resume: None begins a new run, "auto" continues one if there is one, anything else is a checkpoint folder. Raises
    InputError for a config that cannot work, FloatingPointError before the update that a NaN or Inf would spoil,
    SystemExit(75) after a signal, with a checkpoint saved.
    """
    folder = Path(config.out)
    with claimed(folder), StopSignal() as stop:
        work = begin(config, resume)
        with closing(work.run) as run:
            for step in steps(run, stop, config.checkpoint_minutes):
                kind, taught = lessons(config, step)
                loss = expansion_loss(work, taught, kind)
                torch.autograd.backward([loss])
                factor, norm = update(run.optimizers, step, loss.item(), config.optimizer)
                run.ema.update()
                run.log.write(step, loss=loss.item(), gradient=norm, rate=factor)
                run.progress.update(step, f"loss {loss.item():.4f}")
                if run.is_last or due(config.validate_every, step):
                    run.log.write(step, **validate(work))
                    with writing("the plot", folder):
                        plot_losses(run.log.records()).save(folder / "loss.png")
            return finish(work)


def expansion_loss(work: Work, taught: list[Lesson], kind: Length) -> Tensor:
    """Mean cross-entropy of each next token, in nats."""
    source_BL = source_rows(work.tokenizer, [one.source for one in taught])
    ids_BL = token_rows(work.tokenizer, work.expander, [one.caption for one in taught], [kind] * len(taught))
    with autocast(CPU, work.config.precision):
        logits_BLV = work.expander(source_BL, ids_BL[:, :-1])
    return F.cross_entropy(logits_BLV.float().flatten(0, 1), ids_BL[:, 1:].flatten(), ignore_index=PAD)


# --- beginning


def begin(config: TrainExpanderConfig, resume: str | None) -> Work:
    """Build everything, fresh or from a checkpoint."""
    found = look_for(config, resume, FREE)
    tokenizer = Tokenizer.from_str(found.told["tokenizer"]) if found else built_in_tokenizer(config.tokenizer)
    expander = Expander(replace(config.expander, vocab=tokenizer.get_vocab_size()))
    told, dtype = {"tokenizer": tokenizer.to_str()}, dtype_of(config.precision)
    run = begun("train expander", config, {"expander": expander}, found, dtype, told)
    return Work(config, tokenizer, expander, run)


def built_in_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a built-in model. Raises InputError when there is no such model."""
    path = BUILT_IN / name / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"tokenizer {name!r} is that of no built-in model: choose tiny.")
    return Tokenizer.from_file(str(path))


# --- pauses: validation, checkpoints, the end


@torch.no_grad()
def validate(work: Work) -> dict[str, float]:
    """Of the averaged weights on fresh scenes: {"val detailed": loss, "kept detailed": first draws that pass}."""
    config, found = work.config, {}
    with work.run.ema.applied():
        author = author_of(work)
        for kind in config.kinds:
            fresh = fresh_lessons(config, kind, config.validation_prompts)
            found[f"val {kind}"] = expansion_loss(work, fresh, kind).item()
            found[f"kept {kind}"] = passing(author, fresh, kind)
    return found


def fresh_lessons(config: TrainExpanderConfig, kind: Length, count: int) -> list[Lesson]:
    """Lessons of scenes that no training draws."""
    rng = np.random.default_rng((config.seed, 2))
    return [lesson(config, kind, FRESH + 1000 * i, rng) for i in range(count)]


def passing(author: Author, fresh: list[Lesson], kind: Length) -> float:
    """The share of prompts whose first draw the guard lets pass."""
    stated = [parse(one.source)[0] for one in fresh]
    texts = [author.write(one.source, kind, (0, i)) for i, one in enumerate(fresh)]
    return float(np.mean([fits(text, facts, kind) for text, facts in zip(texts, stated, strict=True)]))


def author_of(work: Work) -> Author:
    """What `expand` would read, from the weights as they are now."""
    sizes = Sizes(**to_dict(work.expander.config))
    weights = {name: tensor.half().numpy() for name, tensor in work.expander.state_dict().items()}
    return Author(weights, sizes, work.tokenizer)


def finish(work: Work) -> Path:
    """Write the averaged weights, in 16 bits, with their report: how many prompts the first draw serves."""
    config, run = work.config, work.run
    folder = run.folder / "model"
    folder.mkdir(exist_ok=True)
    report: dict[str, Any] = {}
    with run.ema.applied():
        author = author_of(work)
        for kind in config.kinds if config.report_prompts else ():
            report[kind] = passing(author, short_prompts(config.report_prompts), kind)
        state = {name: tensor.half().contiguous() for name, tensor in work.expander.state_dict().items()}
    data = to_safetensors(state)
    write_atomically(folder / WEIGHTS, data)
    write_atomically(folder / TOKENIZER, work.tokenizer.to_str(pretty=True).encode())
    whole = {
        "config": to_dict(work.expander.config),
        "sha256": hashlib.sha256(data).hexdigest(),
        "training": record(run, CPU) | {"first draw passes": report},
    }
    write_json(folder / RECORD, whole)
    say(f"{folder}: {run.step} steps in {clock(run.seconds)}; first draws that pass: {report}.")
    return folder


def short_prompts(count: int) -> list[Lesson]:
    """Short captions of fresh scenes, as someone might type them."""
    found: list[Lesson] = []
    seed = FRESH + 500
    while len(found) < count:
        prompt = caption(sample_scene(seed, EVERYTHING), VIEW, "short", 0)
        if source := plainly(parse(prompt)[0]):
            found.append(Lesson(source, prompt))
        seed += 1000
    return found
