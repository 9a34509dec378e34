"""Exams: prompts of fresh scenes, what a model makes of them, and what the oracle says of it.

Every score stands between two others: `floor`, the same oracle on the ground-truth clips of the same scenes (what
a perfect model would get), and `chance`, the same facts looked for in the ground truth of another scene.
"""

import json
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.evaluation.quality import bootstrap_interval, psnr
from mutoscope.evaluation.report import Answer, write_report
from mutoscope.evaluation.truth import JUDGED, judge, observe
from mutoscope.generation.generate import generate_many
from mutoscope.generation.request import Request
from mutoscope.models.vae import VAE
from mutoscope.video import to_frames
from mutoscope.weights.store import Model
from mutoscope.world.captions import Kind, caption, parse
from mutoscope.world.facts import Fact, facts, truth
from mutoscope.world.render import render
from mutoscope.world.scene import PLAIN, Scene, View, is_hole, sample_scene
from mutoscope.world.words import COLOUR_WORDS, HELD_OUT_SYNONYMS, SHAPE_WORDS, SIZE_WORDS

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)
GenerateClips = Callable[[Sequence[str], Sequence[int], View], list[Frames]]  # prompts, seeds, view -> clips
Scores = dict[str, object]

FRESH = 2**62  # scenes from this seed on are for exams: training stays below
PROMPTS: tuple[Kind, ...] = ("short", "medium")  # by turns
BATCH = 8


@dataclass(frozen=True)
class Exam:
    """A set of prompts. `size`: (width, height, frames), None for the model's own."""

    name: str
    count: int
    holes: bool = False  # only scenes with a combination that training never shows
    strange_words: bool = False  # synonyms that training never shows
    size: tuple[int, int, int] | None = None


@torch.inference_mode()
def vae_facts(vae: VAE, view: View, count: int, seed: int, batch: int = 16) -> dict[str, float]:
    """What survives the VAE, on `count` fresh world clips of the view (T = 1 + 4k, sides multiples of 8).

    psnr: the mean over clips, dB. facts: share of the true facts that the oracle finds after the round trip.
    floor: the same before it. kept_<kind>: the share after it, by kind of fact.
    """
    before, after, decibels = [], [], []
    device = next(vae.parameters()).device
    scenes = fresh_scenes(Exam("vae", count), view, seed)
    for start in range(0, count, batch):
        part = scenes[start : start + batch]
        video_BCTHW = render(part, view)
        decoded_BCTHW = vae.decode(vae.encode(video_BCTHW.to(device))).float().cpu().clamp(-1, 1)
        decibels.append(psnr(decoded_BCTHW, video_BCTHW))
        for scene, real, decoded in zip(part, _clips(video_BCTHW), _clips(decoded_BCTHW), strict=True):
            told = facts(truth(scene, view))
            before.append(judge(observe(real, view.fps), told))
            after.append(judge(observe(decoded, view.fps), told))
    kinds = {f"kept_{kind}": share for kind, share in shares(after).items() if kind != "all"}
    floor, kept = (
        float(np.mean([holds for clip in side for holds in clip.values()])) for side in (before, after)
    )
    return {"psnr": float(torch.cat(decibels).mean()), "facts": kept, "floor": floor, **kinds}


def evaluate(
    model: Model, suite: str, out: Path, seed: int = 0, on_clip: Callable[[int, int], None] | None = None
) -> dict[str, object]:
    """Examine a model; write report.html, contact_sheet.png and result.json to the folder `out`.

    suite: a name in SUITES. on_clip(done, of) is called as clips are made. Returns the result: one key per
    set with its scores, `vae`, `speed`, `model`, `date`, `hardware`. Raises InputError for an unknown suite
    and for a folder that cannot be written.
    """
    if suite not in SUITES:
        raise InputError(f"There is no suite {suite!r}; choose {' or '.join(SUITES)}.")
    defaults = model.card.defaults
    view = View(defaults.width, defaults.height, defaults.frames, defaults.fps)
    _make_folder(out)
    generate_clips = clips_of(model)
    sets, answers, seconds = examine(generate_clips, view, SUITES[suite], seed, on_clip)
    started = time.perf_counter()
    generate_clips(["a red ball rolls to the right"], [seed], view)
    result: dict[str, object] = {
        **sets,
        "vae": vae_facts(model.vae, _on_grid(view, model), VAE_CLIPS[suite], seed),
        "speed": {"clips": len(answers), "seconds_per_clip": seconds, "alone": time.perf_counter() - started},
        "model": {"name": model.card.name, "sha256": model.card.sha256},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(next(model.dit.parameters()).device),
    }
    write_report(out, result, answers)
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def examine(
    generate_clips: GenerateClips,
    view: View,
    exams: Sequence[Exam],
    seed: int,
    on_clip: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Scores], list[Answer], float]:
    """Scores by set (and of the one- and two-object prompts of P0), the answers, seconds per clip."""
    answers: list[Answer] = []
    spent, total = 0.0, sum(exam.count for exam in exams)
    for exam in exams:
        exam_view = View(*exam.size, view.fps) if exam.size else view
        scenes = fresh_scenes(exam, exam_view, seed)
        prompts = [prompt_of(scene, exam_view, exam, index) for index, scene in enumerate(scenes)]
        told = [stated(prompt) for prompt in prompts]
        real = [
            observe(clip, view.fps)
            for start in range(0, len(scenes), BATCH)
            for clip in _clips(render(scenes[start : start + BATCH], exam_view))
        ]
        for start in range(0, len(scenes), BATCH):
            part = slice(start, start + BATCH)
            started = time.perf_counter()
            clips = generate_clips(prompts[part], [scene.seed for scene in scenes[part]], exam_view)
            spent += time.perf_counter() - started
            for index, clip in enumerate(clips, start):
                verdict = judge(observe(clip, view.fps), told[index])
                floor = judge(real[index], told[index])
                chance = judge(real[(index + 1) % len(real)], told[index])
                answers.append(Answer(exam.name, prompts[index], clip, verdict, floor, chance))
                if on_clip:
                    on_clip(len(answers), total)
    sets = {exam.name: score([answer for answer in answers if answer.exam == exam.name]) for exam in exams}
    for name, number in (("one", "1"), ("two", "2")):
        some = [answer for answer in answers if answer.exam == "P0" and _counts(answer) == number]
        if some:
            sets[f"P0_{name}"] = score(some)
    return sets, answers, spent / max(total, 1)


def score(answers: Sequence[Answer]) -> Scores:
    """`all` (clips of which every stated fact holds), one share per kind of fact, intervals, n, floor, chance."""
    verdicts = [answer.verdict for answer in answers]
    mean = shares(verdicts)
    intervals = {}
    for kind in mean:
        pairs = [_held(verdict, kind) for verdict in verdicts]
        held_N, of_N = torch.tensor(pairs).unbind(1)
        intervals[kind] = [round(bound, 4) for bound in bootstrap_interval(held_N, of_N)]
    return {
        **mean,
        "intervals": intervals,
        "n": len(answers),
        "floor": shares([answer.floor for answer in answers]),
        "chance": shares([answer.chance for answer in answers]),
    }


def shares(verdicts: Sequence[Mapping[Fact, bool]]) -> dict[str, float]:
    """Share of clips with all facts right as `all`, and the share of facts that hold of each kind."""
    kinds = dict.fromkeys(["all", *(fact.kind for verdict in verdicts for fact in verdict)])
    counted = {kind: np.array([_held(verdict, kind) for verdict in verdicts]).sum(0) for kind in kinds}
    return {kind: float(held / of) for kind, (held, of) in counted.items() if of}


def fresh_scenes(exam: Exam, view: View, seed: int) -> list[Scene]:
    """Scenes that no training run draws, from seed FRESH + (seed << 32) on; those with holes only if asked.

    Motion is staged for the length of the view, as in training.
    """
    seconds = max(PLAIN.seconds, (view.frames - 1) / view.fps)
    mix = replace(PLAIN, seconds=seconds, allow_holes=exam.holes)
    scenes: list[Scene] = []
    next_seed = FRESH + (seed << 32)
    while len(scenes) < exam.count:
        scene = sample_scene(next_seed, mix)
        things = truth(scene, view).things
        if not exam.holes or any(is_hole(thing.colour, thing.shape, thing.direction) for thing in things):
            scenes.append(scene)
        next_seed += 1
    return scenes


def prompt_of(scene: Scene, view: View, exam: Exam, index: int) -> str:
    """A short or a medium caption of the scene, by turns; with strange words if the exam has them."""
    text = caption(scene, view, PROMPTS[index % len(PROMPTS)], seed=index)
    if not exam.strange_words:
        return text
    tables = {"colour": COLOUR_WORDS, "shape": SHAPE_WORDS, "size": SIZE_WORDS}
    for strange, (kind, value) in HELD_OUT_SYNONYMS.items():
        if kind in tables:
            known = "|".join(sorted(map(re.escape, tables[kind][value]), key=len, reverse=True))
            text = re.sub(rf"\b(?:{known})\b", strange, text)
    return text


def stated(prompt: str) -> tuple[Fact, ...]:
    """The facts that a prompt states and that the oracle can judge, and that nothing else is there."""
    told = [fact for fact in parse(prompt)[0] if fact.kind != "count" and fact.kind in JUDGED]
    subjects = {fact.subject for fact in told if fact.subject is not None}
    return (*told, Fact("count", None, str(len(subjects))))


def clips_of(model: Model) -> GenerateClips:
    """A model as a function of prompts, seeds and view, with its own defaults for the rest."""

    def generate_clips(prompts: Sequence[str], seeds: Sequence[int], view: View) -> list[Frames]:
        requests = [
            Request(prompt, view.width, view.height, view.frames, view.fps, seed=seed)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [video.frames_THWC for video in generate_many(model, requests)]

    return generate_clips


def hardware(device: torch.device) -> str:
    """The machine that the numbers were measured on, in words."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _held(verdict: Mapping[Fact, bool], kind: str) -> tuple[int, int]:
    """How many facts of a kind hold, and how many there are; `all` is one fact: that all hold."""
    if kind == "all":
        return int(all(verdict.values())), 1
    held = [holds for fact, holds in verdict.items() if fact.kind == kind]
    return sum(held), len(held)


def _counts(answer: Answer) -> str:
    return next(fact.value for fact in answer.verdict if fact.kind == "count")


def _on_grid(view: View, model: Model) -> View:
    """The nearest view at or above this one that the VAE takes whole."""
    frames, height, width = model.vae.strides
    return View(
        -(-view.width // width) * width,
        -(-view.height // height) * height,
        1 + -(-(view.frames - 1) // frames) * frames,
        view.fps,
    )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The report cannot be written to {out}: {error.strerror}; name another folder."
        ) from None


def _clips(video_BCTHW: Tensor) -> list[Frames]:
    return [to_frames(video_CTHW) for video_CTHW in video_BCTHW]


SUITES: dict[str, tuple[Exam, ...]] = {
    "quick": (Exam("P0", 48), Exam("P1", 24, holes=True)),
    "full": (
        Exam("P0", 512),
        Exam("P1", 512, holes=True),
        Exam("P4", 192, strange_words=True),
        Exam("P9_80x112x21", 64, size=(80, 112, 21)),
        Exam("P9_96x96x17", 64, size=(96, 96, 17)),
        Exam("P9_112x64x33", 48, size=(112, 64, 33)),
        Exam("P9_64x64x1", 64, size=(64, 64, 1)),
    ),
}
VAE_CLIPS = {"quick": 32, "full": 256}
