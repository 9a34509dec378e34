"""The examination of a model: questions, clips, what the oracle says of them, and what it all adds up to.

Every score stands between two others: `floor`, the same oracle on the ground-truth clips of the same scenes (what
a perfect model would get), and `chance`, the same facts looked for in the ground truth of another scene.
"""

import json
import math
import platform
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mutoscope.data.latents import fingerprint
from mutoscope.errors import InputError
from mutoscope.evaluation import cuts, drift, framing, laws, permanence, seams
from mutoscope.evaluation.baselines import retrieval, training_scenes, wordless
from mutoscope.evaluation.examinee import (
    AnswerClips,
    Frames,
    answers_of,
    codec_of,
    ideal_clips,
    true_clips,
)
from mutoscope.evaluation.exams import (
    FRESH,
    SUITES,
    Exam,
    Question,
    fresh_scenes,
    questions,
    stated,
)
from mutoscope.evaluation.features import latents_of, likeness, memorisation
from mutoscope.evaluation.judge import SHIPPED, agreement, load_judge
from mutoscope.evaluation.quality import bootstrap_interval, psnr
from mutoscope.evaluation.report import Answer, write_report
from mutoscope.evaluation.truth import Observation, judge, observe
from mutoscope.models.vae import VAE
from mutoscope.video import to_frames
from mutoscope.weights.store import Model, built_in, load_vae
from mutoscope.world.facts import Fact, facts, truth
from mutoscope.world.render import render
from mutoscope.world.scene import View

__all__ = [
    "FRESH",
    "SUITES",
    "Exam",
    "Frames",
    "evaluate",
    "examine",
    "score",
    "shares",
    "stated",
    "vae_facts",
]

Scores = dict[str, object]
OnClip = Callable[[int, int], None]  # clips done, clips in all

BATCH = 8
VAE_CLIPS = {"quick": 32, "full": 256}
FRESH_OTHERS = 900_001  # seed of real clips that nobody is asked about
TRAINED_CLIPS = 8  # training clips that made clips are held against, for each
POOL_CLIPS = 32  # training clips that retrieval chooses from, for each question
BASELINE_CLIPS = 128  # questions of P0 that the baselines answer too
ENCODER = "tiny"  # the built-in model whose VAE gives the features


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
    model: Model,
    suite: str,
    out: Path,
    seed: int = 0,
    on_clip: OnClip | None = None,
    sets: Collection[str] = (),
    most: int | None = None,
) -> dict[str, object]:
    """Examine a model; write report.html, contact_sheet.png and result.json to the folder `out`.

    suite: a name in SUITES. sets: only these of it, by family (P5) or name (P5_fall); none is all. most: questions
    a set at most. on_clip(done, of) is called as clips are made. Returns the result: one key per set with its
    scores, `baselines` and `likeness` of the full suite, `judge` where its weights are shipped, `vae`, `speed`,
    `model`, `date`, `hardware`. Raises
    InputError for an unknown suite or set and for a folder that cannot be written.
    """
    exams = chosen(suite, sets, most)
    defaults = model.card.defaults
    view = View(defaults.width, defaults.height, defaults.frames, defaults.fps)
    _make_folder(out)
    answer_clips = answers_of(model)
    scores, answers, seconds = examine(answer_clips, view, exams, seed, codec_of(model), on_clip)
    started = time.perf_counter()
    answer_clips(questions(Exam("alone", 1), view, seed))
    result: dict[str, object] = {
        **scores,
        "vae": vae_facts(
            model.vae, _on_grid(view, model), min(VAE_CLIPS[suite], most or VAE_CLIPS[suite]), seed
        ),
        "speed": {"clips": len(answers), "seconds_per_clip": seconds, "alone": time.perf_counter() - started},
        "model": {"name": model.card.name, "sha256": model.card.sha256},
        "candidates": model.card.defaults.candidates,
        "suite": suite,
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(next(model.dit.parameters()).device),
    }
    plain = [answer for answer in answers if answer.question.exam.name == "P0"]
    if suite == "full" and len(plain) > 1:
        result["baselines"] = baselines(answer_clips, plain[:BASELINE_CLIPS])
        if ENCODER in built_in():
            result["likeness"] = compared(plain, view, model.vae.latent_mean.device)
    if SHIPPED.exists():
        result["judge"] = agreement(load_judge(SHIPPED), answers)
    write_report(out, result, answers)
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def chosen(suite: str, sets: Collection[str] = (), most: int | None = None) -> list[Exam]:
    """The exams of a suite, or some of them. Raises InputError for names that there are not."""
    if suite not in SUITES:
        raise InputError(f"There is no suite {suite!r}; choose {' or '.join(SUITES)}.")
    if most is not None and most < 2:
        raise InputError(f"At most {most} questions a set tell nothing; ask for 2 or more.")
    known = {name for exam in SUITES[suite] for name in (exam.name, exam.family)}
    if unknown := sorted(set(sets) - known):
        raise InputError(
            f"The suite {suite} has no set {', '.join(unknown)}; choose from {', '.join(sorted(known))}."
        )
    exams = [exam for exam in SUITES[suite] if not sets or exam.name in sets or exam.family in sets]
    return [replace(exam, count=min(exam.count, most or exam.count)) for exam in exams]


def examine(
    answer_clips: AnswerClips,
    view: View,
    exams: Sequence[Exam],
    seed: int,
    codec: Callable[[Frames], Frames] = lambda frames: frames,
    on_clip: OnClip | None = None,
) -> tuple[dict[str, Scores], list[Answer], float]:
    """Scores by set (and of the one- and two-object prompts of P0), the answers, seconds per clip.

    codec: what the model's VAE makes of frames, with which pictures that come alive are compared.
    """
    answers: list[Answer] = []
    spent, total = 0.0, sum(exam.count for exam in exams)
    for exam in exams:
        asked = questions(exam, view, seed)
        real = [
            (clip, observe(clip, question.view.fps))
            for start in range(0, len(asked), BATCH)
            for clip, question in zip(ideal_clips(asked[start : start + BATCH]), asked[start:], strict=False)
        ]
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            started = time.perf_counter()
            clips = braved(answer_clips, part) if exam.measured == "robust" else answer_clips(part)
            spent += time.perf_counter() - started
            for index, (question, clip) in enumerate(zip(part, clips, strict=True), start):
                ideal, ideal_seen = real[index]
                another = real[(index + 1) % len(real)][1]
                seen = observe(clip, question.view.fps)
                answers.append(
                    Answer(
                        question,
                        clip,
                        judge(seen, question.told),
                        judge(ideal_seen, question.told),
                        judge(another, question.told),
                        measured(clip, ideal, seen, question, codec),
                        measured(ideal, ideal, ideal_seen, question, lambda frames: frames),
                    )
                )
                if on_clip:
                    on_clip(len(answers), total)
    scores = {
        exam.name: score([one for one in answers if one.question.exam.name == exam.name]) for exam in exams
    }
    for name, number in (("one", "1"), ("two", "2")):
        some = [
            answer for answer in answers if answer.question.exam.name == "P0" and _counts(answer) == number
        ]
        if some:
            scores[f"P0_{name}"] = score(some)
    return scores, answers, spent / max(total, 1)


def measured(
    clip: Frames, ideal: Frames, seen: Observation, question: Question, codec: Callable[[Frames], Frames]
) -> dict[str, float]:
    """What is measured of a clip besides the facts of its prompt."""
    match question.exam.measured:
        case "physics":
            return laws.errors(seen, question)
        case "permanence":
            return permanence.kept(seen, question)
        case "identity":
            return cuts.identity(clip, question)
        case "framing":
            return framing.subject_in_view(seen, question)
        case "drift":
            return drift.drift(clip, question)
        case "robust":
            return {"answered": float(clip.shape == ideal.shape and int(np.ptp(clip)) > 0)}
        case "seams":
            return seams.joined(clip, ideal, seen, question, codec)
    return {}


def braved(answer_clips: AnswerClips, asked: Sequence[Question]) -> list[Frames]:
    """The answers one by one; of whoever breaks down, one black frame."""
    clips: list[Frames] = []
    for question in asked:
        try:
            clips += answer_clips([question])
        except Exception:  # whatever it is: the question was not answered
            clips.append(np.zeros((1, question.view.height, question.view.width, 3), np.uint8))
    return clips


def baselines(answer_clips: AnswerClips, answers: Sequence[Answer]) -> dict[str, Scores]:
    """Scores of the same questions for the nearest training clip by caption, and for the model without words."""
    asked = [answer.question for answer in answers]
    pool = training_scenes(asked[0].view, POOL_CLIPS * len(asked))
    rivals = {"retrieval": retrieval(pool, asked[0].view), "unconditional": wordless(answer_clips)}
    scores: dict[str, Scores] = {}
    for name, rival in rivals.items():
        clips = [
            clip for start in range(0, len(asked), BATCH) for clip in rival(asked[start : start + BATCH])
        ]
        given = [
            replace(
                answer,
                clip=clip,
                verdict=judge(observe(clip, answer.question.view.fps), answer.question.told),
            )
            for answer, clip in zip(answers, clips, strict=True)
        ]
        scores[name] = score(given)
    return scores


def compared(answers: Sequence[Answer], view: View, device: torch.device) -> dict[str, object]:
    """How like real clips the answers are, as a distribution, and how like training clips, one by one."""
    vae = load_vae(ENCODER, device)
    asked = [answer.question for answer in answers]
    others = fresh_scenes(Exam("others", len(asked)), view, FRESH_OTHERS)
    others_asked = [replace(asked[0], scene=scene) for scene in others]
    trained = [replace(asked[0], scene=scene) for scene in training_scenes(view, TRAINED_CLIPS * len(asked))]
    made, real, other, seen = (
        latents_of(vae, clips)
        for clips in (
            [answer.clip for answer in answers],
            true_clips(asked),
            true_clips(others_asked),
            true_clips(trained),
        )
    )
    return {
        "encoder": fingerprint(vae),
        **likeness(made, real, other),
        "memorisation": memorisation(made, other, seen),
    }


def score(answers: Sequence[Answer]) -> Scores:
    """Shares of facts and means of measures, with intervals, n, floor, chance.

    `all`: clips of which every stated fact holds. `both`: pairs of questions with all facts of both.
    """
    told = [answer for answer in answers if answer.verdict]
    verdicts = [answer.verdict for answer in told]
    mean: dict[str, float] = shares(verdicts) if told else {}
    floor: dict[str, float] = shares([answer.floor for answer in told]) if told else {}
    chance: dict[str, float] = shares([answer.chance for answer in told]) if told else {}
    intervals = {kind: _interval([_held(verdict, kind) for verdict in verdicts], places=4) for kind in mean}
    columns = {
        name: ([one.measures for one in answers], [one.floor_measures for one in answers])
        for name in dict.fromkeys(key for answer in answers for key in answer.measures)
    }
    for name, (made, ideal) in columns.items():
        mean[name], floor[name] = _mean(made, name), _mean(ideal, name)
        intervals[name] = _interval([(row[name], 1) for row in made if name in row], places=4)
    if any(answer.question.pair is not None for answer in answers):
        pairs = [[one.verdict for one in pair] for pair in _paired(answers)]
        mean["both"] = float(np.mean([_both(pair) for pair in pairs]))
        floor["both"] = float(np.mean([_both([one.floor for one in pair]) for pair in _paired(answers)]))
        intervals["both"] = _interval([(_both(pair), 1) for pair in pairs], places=4)
    return {**mean, "intervals": intervals, "n": len(answers), "floor": floor, "chance": chance}


def shares(verdicts: Sequence[Mapping[Fact, bool]]) -> dict[str, float]:
    """Share of clips with all facts right as `all`, and the share of facts that hold of each kind."""
    kinds = dict.fromkeys(["all", *(fact.kind for verdict in verdicts for fact in verdict)])
    counted = {kind: np.array([_held(verdict, kind) for verdict in verdicts]).sum(0) for kind in kinds}
    return {kind: float(held / of) for kind, (held, of) in counted.items() if of}


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


def _interval(pairs: Sequence[tuple[float, int]], places: int) -> list[float]:
    """95 % of the mean, clips resampled."""
    held_N, of_N = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    return [round(bound, places) for bound in bootstrap_interval(held_N, of_N)]


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    values = [row[name] for row in rows if name in row]
    return float(np.mean(values)) if values else math.nan


def _paired(answers: Sequence[Answer]) -> list[list[Answer]]:
    pairs: dict[int | None, list[Answer]] = {}
    for answer in answers:
        pairs.setdefault(answer.question.pair, []).append(answer)
    return list(pairs.values())


def _both(verdicts: Sequence[Mapping[Fact, bool]]) -> bool:
    return all(all(verdict.values()) for verdict in verdicts)


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
