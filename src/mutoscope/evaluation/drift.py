"""What long clips lose: whether the subject is still itself at the end, and what else has come."""

import numpy as np
import numpy.typing as npt

from mutoscope.evaluation.exams import Question
from mutoscope.evaluation.segments import Patch, segment
from mutoscope.evaluation.tracks import link
from mutoscope.evaluation.truth import Seen, observe
from mutoscope.world.palette import to_lab

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)

SOLID = 0.9  # coverage from which a pixel has the colour of the object
LASTING = 3  # frames that make a patch an object
WORST = 100.0  # colour drift of a subject that is gone, CIELAB distance


def drift(frames_THWC: Frames, question: Question) -> dict[str, float]:
    """What became of the told subject in the last second of a clip.

    identity_kept: 1 if colour and shape are those told. colour_drift: CIELAB distance of its mean colour to that of
    the first second. strangers: objects beyond those told, per minute.
    """
    fps = question.view.fps
    span = max(3, round(fps))
    start, end = frames_THWC[:span], frames_THWC[-span:]
    told = {fact.kind: fact.value for fact in question.told if fact.subject == 0}
    before, after = (_subject(part, fps, told.get("colour")) for part in (start, end))
    same = after is not None and all(
        getattr(after, kind) == told[kind] for kind in ("colour", "shape") if kind in told
    )
    tracks = [track for track in link(segment(frames_THWC).patches) if len(track.patches) >= LASTING]
    subjects = len({fact.subject for fact in question.told if fact.subject is not None})
    minutes = len(frames_THWC) / fps / 60
    return {
        "identity_kept": float(same),
        "colour_drift": _apart(start, before, end, after),
        "strangers": max(0, len(tracks) - subjects) / minutes,
    }


def _subject(frames_THWC: Frames, fps: float, colour: str | None) -> Seen | None:
    """The object of the colour that is seen longest, else the longest of any."""
    objects = observe(frames_THWC, fps).objects
    return next((one for one in objects if one.colour == colour), objects[0] if objects else None)


def _apart(start: Frames, before: Seen | None, end: Frames, after: Seen | None) -> float:
    if before is None or after is None:
        return WORST
    paints = [
        to_lab(np.mean([_paint(frames, patch) for patch in seen.track.patches], axis=0)[None])[0]
        for frames, seen in ((start, before), (end, after))
    ]
    return min(WORST, float(np.linalg.norm(paints[0] - paints[1])))


def _paint(frames_THWC: Frames, patch: Patch) -> npt.NDArray[np.float64]:
    """Mean RGB of the pixels that the object covers wholly, of the best covered one if there is none."""
    top, left = patch.corner
    height, width = patch.cover_HW.shape
    part = frames_THWC[patch.frame, top : top + height, left : left + width].astype(np.float64)
    solid = patch.cover_HW >= min(SOLID, float(patch.cover_HW.max()))
    mean: npt.NDArray[np.float64] = part[solid].mean(0)
    return mean
