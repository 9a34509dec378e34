"""Stories of several shots: where a clip cuts, and whether the same character is in every shot."""

import numpy as np
import numpy.typing as npt

from mutoscope.evaluation.exams import Question
from mutoscope.evaluation.truth import Seen, observe

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)

CUT = 10.0  # mean change of a pixel from one frame to the next, of 255, from which it may be a cut
SUDDEN = 4.0  # times the usual change, which it must also be
SHORTEST = 3  # frames of a shot


def shots_of(frames_THWC: Frames) -> list[Frames]:
    """The clip in shots, cut where the picture changes at once."""
    if len(frames_THWC) < 2 * SHORTEST:
        return [frames_THWC]
    change_T = np.abs(np.diff(frames_THWC.astype(np.int16), axis=0)).mean((1, 2, 3))
    sudden = change_T > max(CUT, SUDDEN * float(np.median(change_T)))
    borders, last = [], 0
    for frame in np.flatnonzero(sudden) + 1:
        if frame - last >= SHORTEST and len(frames_THWC) - frame >= SHORTEST:
            borders.append(int(frame))
            last = int(frame)
    return np.split(frames_THWC, borders)


def identity(frames_THWC: Frames, question: Question) -> dict[str, float]:
    """cuts: whether there are as many shots as told. identity: whether, besides, each shows the told character.

    colour_kept, shape_kept, hat_kept: in which share of the shots that is so of the largest object, and of its hat.
    """
    takes = question.scene.takes(question.view)
    body = takes[0][0].bodies[0]
    shots = shots_of(frames_THWC)
    right = []
    for shot in shots:
        objects = observe(shot, question.view.fps).objects
        largest = max(objects, key=lambda seen: seen.track.usual_area, default=None)
        right.append((*_same(largest, body.colour, body.shape), _wears(objects, largest, body.hat)))
    colour, shape, hat = np.array(right, np.float64).mean(0).tolist()
    as_told = len(shots) == len(takes)
    return {
        "cuts": float(as_told),
        "identity": float(as_told and colour == shape == 1.0),
        "colour_kept": colour,
        "shape_kept": shape,
        "hat_kept": hat,
    }


def _same(seen: Seen | None, colour: str, shape: str) -> tuple[bool, bool]:
    return (False, False) if seen is None else (seen.colour == colour, seen.shape == shape)


def _wears(objects: tuple[Seen, ...], wearer: Seen | None, hat: tuple[str, str] | None) -> bool:
    """Whether something of the hat's colour is seen above the wearer."""
    if wearer is None or hat is None:
        return False
    x, y = np.median(wearer.track.places, axis=0)
    for one in objects:
        if one is not wearer and one.colour == hat[1]:
            across, up = np.median(one.track.places, axis=0) - (x, y)
            if abs(across) < 0.15 and up > 0:
                return True
    return False
