"""Who is examined: a model, or anything else that answers questions with clips."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch

from mutoscope.evaluation.exams import Question
from mutoscope.generation.continuations import gap, redrawn
from mutoscope.generation.generate import generate_many, resolve
from mutoscope.generation.motion import usual_trials
from mutoscope.generation.request import Recipe, Request, Task
from mutoscope.video import Video, to_frames, to_tensor, write_video
from mutoscope.weights.store import Model
from mutoscope.world.render import render

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)
AnswerClips = Callable[[Sequence[Question]], list[Frames]]  # questions of one exam -> a clip for each

BRIDGE = 15  # new frames of a loop
REPAINT = 0.75  # noise level from which a clip is drawn in another colour


def answers_of(model: Model) -> AnswerClips:
    """A model as one who answers, with its own defaults for all that a question leaves open."""

    def answer(questions: Sequence[Question]) -> list[Frames]:
        exam = questions[0].exam
        if exam.task == "named":
            sources = [replace(question, scene=question.source or question.scene) for question in questions]
            return _pictured(model, questions, sources, lambda one, picture: replace(one, character=picture))
        if exam.task == "generate" and exam.known == 1:
            return _pictured(model, questions, questions, lambda one, picture: replace(one, image=picture))
        if exam.known or exam.task not in ("generate", "described"):
            return [
                _continued(model, resolve(model, request_of(question)), question) for question in questions
            ]
        return [video.frames_THWC for video in generate_many(model, [request_of(one) for one in questions])]

    return answer


def request_of(question: Question) -> Request:
    view = question.view
    return Request(question.prompt, view.width, view.height, view.frames, view.fps, seed=question.seed)


def true_clips(questions: Sequence[Question], batch: int = 8) -> list[Frames]:
    """The ground truth of questions of one view: what a perfect model would answer to those that generate."""
    clips: list[Frames] = []
    for start in range(0, len(questions), batch):
        part = questions[start : start + batch]
        clips += [to_frames(video_CTHW) for video_CTHW in render([one.scene for one in part], part[0].view)]
    return clips


def ideal_clips(questions: Sequence[Question]) -> list[Frames]:
    """What scores are held against: the ground truth; of loops, the truth there and back."""
    clips = true_clips(questions)
    if questions and questions[0].exam.task == "loop":
        return [np.concatenate([clip, clip[-2:0:-1]]) for clip in clips]
    return clips


def codec_of(model: Model) -> Callable[[Frames], Frames]:
    """What the model's VAE makes of frames (1 + 4k of them, sides on its grid)."""

    @torch.inference_mode()
    def codec(frames_THWC: Frames) -> Frames:
        video_BCTHW = to_tensor(frames_THWC)[None].to(model.vae.latent_mean)
        return to_frames(model.vae.decode(model.vae.encode(video_BCTHW))[0])

    return codec


def _pictured(
    model: Model,
    questions: Sequence[Question],
    sources: Sequence[Question],
    shown: Callable[[Request, Path], Request],
) -> list[Frames]:
    """Clips of requests that are shown, as `shown` puts it, the first frame of the truth of their sources."""
    with TemporaryDirectory() as folder:
        pictures = [
            write_video(Path(folder) / f"{index}.png", Video(clip[:1], 1.0))
            for index, clip in enumerate(true_clips(sources))
        ]
        requests = [
            shown(request_of(question), picture)
            for question, picture in zip(questions, pictures, strict=True)
        ]
        return [video.frames_THWC for video in generate_many(model, requests)]


@torch.inference_mode()
def _continued(model: Model, recipe: Recipe, question: Question) -> Frames:
    """What is made of the true clip, or of a part of it.

    Its beginning is extended to the length of the question, its end in front of it to that length, the middle between
    the two is made anew, all of it becomes a loop, or the clip of the source is drawn again to the prompt.
    """
    exam, scene = question.exam, question.source or question.scene
    (clip,) = true_clips([replace(question, scene=scene)])
    known, frames = exam.known, len(clip)
    if exam.task == "edit":
        again = replace(recipe, task=Task("edit", "", "", strength=REPAINT))
        return redrawn(model, again, clip, None)[:frames]
    none = clip[:0]
    verb = "extend" if exam.task == "generate" else exam.task  # whose beginning is known
    before, after, new = {
        "extend": (clip[:known], none, frames - known),
        "back": (none, clip[frames - known :], frames - known),
        "connect": (clip[:known], clip[frames - known :], frames - 2 * known),
        "loop": (clip, clip, BRIDGE),
    }[verb]
    task = Task("loop" if exam.task == "loop" else "extend", "", "", backward=exam.task == "back")
    made = gap(
        model,
        replace(recipe, task=task, candidates=usual_trials(model, recipe)),
        before if len(before) else None,
        after if len(after) else None,
        new,
        None,
    )
    return np.concatenate([before, made, none if exam.task == "loop" else after])
