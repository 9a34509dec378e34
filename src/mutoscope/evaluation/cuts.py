"""Stories of several shots: where a clip cuts, and whether the same character is in every shot."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mutoscope.evaluation.exams import Question
from mutoscope.evaluation.truth import Seen, observe
from mutoscope.video import to_frames
from mutoscope.world.captions import parse
from mutoscope.world.render import render

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)

CUT = 10.0  # mean change of a pixel from one frame to the next, of 255, from which it may be a cut
SUDDEN = 4.0  # times the usual change, which it must also be
SHORTEST = 3  # frames of a shot
GONE = 4.0  # octaves of a character that is not there


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
    Of a character that is taken from another clip, size_apart: how many times it has doubled or halved its area, up
    to GONE; its size in the first shot of that clip is the one to keep. elsewhere: share of the shots where it is told
    to be, if the prompt tells.
    """
    takes = question.scene.takes(question.view)
    body = takes[0][0].bodies[0]
    shots = shots_of(frames_THWC)
    right, sizes, places = [], [], []
    for shot in shots:
        seen = observe(shot, question.view.fps)
        objects = seen.objects
        places.append(seen.background == takes[0][0].background)
        largest = _largest(objects)
        sizes.append(0.0 if largest is None else largest.track.usual_area)
        right.append((*_same(largest, body.colour, body.shape), _wears(objects, largest, body.hat)))
    colour, shape, hat = np.array(right, np.float64).mean(0).tolist()
    as_told = len(shots) == len(takes)
    kept: dict[str, float] = {}
    if question.source is not None:
        kept["size_apart"] = _apart(float(np.median(sizes)), question)
        if any(fact.kind == "background" for fact in parse(question.prompt)[0]):
            kept["elsewhere"] = float(np.mean(places))
    return {
        "cuts": float(as_told),
        "identity": float(as_told and colour == shape == 1.0),
        "colour_kept": colour,
        "shape_kept": shape,
        "hat_kept": hat,
        **kept,
    }


def _largest(objects: Sequence[Seen]) -> Seen | None:
    return max(objects, key=lambda seen: seen.track.usual_area, default=None)


def _apart(area: float, question: Question) -> float:
    """Between an area and that of the character in the clip it is taken from, in octaves."""
    assert question.source is not None
    (video_CTHW,) = render([question.source], question.view)
    (first, *_) = shots_of(to_frames(video_CTHW))
    true = _largest(observe(first, question.view.fps).objects)
    if true is None or area <= 0:
        return GONE
    return min(GONE, abs(float(np.log2(area / true.track.usual_area))))


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
