"""Where the given meets the made: pictures that come alive, clips that go on, loops that close."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mutoscope.evaluation.exams import Question
from mutoscope.evaluation.laws import LOST, velocity
from mutoscope.evaluation.truth import Observation
from mutoscope.world.physics import positions

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)
Codec = Callable[[Frames], Frames]  # what a model's VAE makes of frames

BEST = 60.0  # dB at which two pictures count as equal
CALM = 0.05  # stage units per second below which a jump is measured against this speed


def joined(
    clip: Frames, truth_clip: Frames, seen: Observation, question: Question, codec: Codec
) -> dict[str, float]:
    """What is measured of a clip depends on the task.

    A picture: first_frame_loss, how many dB the first frame loses against what the VAE alone makes of the picture.
    extend, back, connect: velocity_jump, the change of the subject's velocity at the (first) seam, by the true one.
    loop: seam_ratio, the change over the seam by the usual change from frame to frame (a still one: by one level).
    """
    if question.exam.task in ("extend", "back", "connect"):
        return {"velocity_jump": _velocity_jump(seen, question)}
    if question.exam.task == "loop":
        return {"seam_ratio": seam_ratio(clip)}
    return {"first_frame_loss": _db(codec(truth_clip[:1]), truth_clip[:1]) - _db(clip[:1], truth_clip[:1])}


def seam_ratio(clip: Frames) -> float:
    """The change from the last frame to the first, by the median change from frame to frame."""
    change_T = np.abs(np.diff(clip.astype(np.int16), axis=0, append=clip[:1])).mean((1, 2, 3))
    return float(change_T[-1] / max(0.2, float(np.median(change_T[:-1]))))


def _velocity_jump(seen: Observation, question: Question) -> float:
    """Of the first body, between the four frames before the seam and the four after it.

    It is alone, so that nothing hides it: its area may change at the seam, where true frames meet a VAE's, which fill
    the hole of a ring and round the points of a star, and its place counts all the same.
    """
    body, fps, seam = question.scene.shots[0].bodies[0], question.view.fps, question.exam.known
    if question.exam.task == "back":
        seam = question.view.frames - seam
    one = next((found for found in seen.objects if found.colour == body.colour), None)
    if one is None:
        return LOST
    before = velocity(one.track, fps, seam - 4, seam - 1, one.track.inside)
    after = velocity(one.track, fps, seam, seam + 3, one.track.inside)
    if before is None or after is None:
        return LOST
    (places,) = positions([body.path], [0.0, 1.0])
    speed = max(CALM, float(np.linalg.norm(places[1, :2] - places[0, :2])))
    return float(np.linalg.norm(after - before)) / speed


def _db(one: Frames, other: Frames) -> float:
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return BEST if error == 0 else min(BEST, 10 * math.log10(255**2 / error))
