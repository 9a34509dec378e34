"""Whether things move as they must: gravity, restitution, momentum and velocity, from tracks, against the truth.

The protocol of PhyWorld (Kang et al. 2024): the model sees the first frames, its paths are compared with the true
ones. An object that cannot be found counts as an error of 1, as bad as standing still; errors end there.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mutoscope.evaluation.events import restitution
from mutoscope.evaluation.exams import Question
from mutoscope.evaluation.silhouettes import centre_height
from mutoscope.evaluation.tracks import Track
from mutoscope.evaluation.truth import Observation, Seen
from mutoscope.world.physics import GRAVITY, RESTITUTION
from mutoscope.world.scene import EXTENTS, GROUND, Body

LOST = 1.0  # the error of what is not there, and the largest
SLOW = 0.02  # stage units per second below which a body has no velocity to compare
ENOUGH = 3  # places that a line needs; a parabola needs one more


def errors(seen: Observation, question: Question) -> dict[str, float]:
    """Mean errors over the bodies that each is defined for; a key is there only if there is such a body.

    velocity_error: |v - v_true| / |v_true| after the known frames. gravity_error: |g - G| / G in free fall.
    restitution_error: |e - e_true|. momentum_error: change of the momentum at a meeting, by that which came in.
    """
    bodies = question.scene.shots[0].bodies
    cast = [_find(seen, body) for body in bodies]
    found: dict[str, list[float]] = {}
    for body, one in zip(bodies, cast, strict=True):
        if body.path[0][5] != 0:
            found.setdefault("gravity_error", []).append(_gravity(one, body, question.view.fps))
            found.setdefault("restitution_error", []).append(_restitution(one, body, question.view.fps))
        elif len(body.path) == 1 and np.hypot(*body.path[0][3:5]) > SLOW:
            found.setdefault("velocity_error", []).append(_velocity(one, body, question))
    if len(bodies) == 2 and all(len(body.path) == 2 and body.path[0][5] == 0 for body in bodies):
        found["momentum_error"] = [_momentum(cast, bodies, question)]
    return {name: float(np.mean(values)) for name, values in found.items()}


def velocity(
    track: Track, fps: float, first: int, last: int, trusted: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float64] | None:
    """Stage units per second from frame `first` to `last`, by least squares; None for too few places.

    trusted: the patches whose places count, `track.clear` if left out.
    """
    chosen = (track.frames >= first) & (track.frames <= last) & (track.clear if trusted is None else trusted)
    if chosen.sum() < ENOUGH:
        return None
    slopes: npt.NDArray[np.float64] = np.polyfit(track.frames[chosen] / fps, track.places[chosen], 1)[0]
    return slopes


def _find(seen: Observation, body: Body) -> Seen | None:
    """The longest-lived object of the body's colour."""
    return next((one for one in seen.objects if one.colour == body.colour), None)


def _velocity(one: Seen | None, body: Body, question: Question) -> float:
    made = one and velocity(one.track, question.view.fps, question.exam.known, question.view.frames - 1)
    if made is None:
        return LOST
    true = np.array(body.path[0][3:5])
    return min(LOST, float(np.linalg.norm(made - true) / np.linalg.norm(true)))


def _gravity(one: Seen | None, body: Body, fps: float) -> float:
    """Of the flight until the body should land."""
    if one is None:
        return LOST
    flight = one.track.frames / fps < body.path[1][0] - 0.25 / fps
    if flight.sum() <= ENOUGH:
        return LOST
    bend = np.polyfit(one.track.frames[flight] / fps, one.track.places[flight, 1], 2)[0]
    return min(LOST, abs(-2 * float(bend) - GRAVITY) / GRAVITY)


def _restitution(one: Seen | None, body: Body, fps: float) -> float:
    if one is None:
        return LOST
    rest = GROUND + (EXTENTS[body.shape][1] + centre_height(body.shape)) * body.diameter
    made = restitution(one.track, fps, rest)
    return LOST if made is None else min(LOST, abs(made - RESTITUTION[body.material]))


def _momentum(cast: Sequence[Seen | None], bodies: Sequence[Body], question: Question) -> float:
    """Masses are those of the true bodies: areas."""
    fps, last = question.view.fps, question.view.frames - 1
    meeting = bodies[0].path[1][0] * fps
    came, left, size = np.zeros(2), np.zeros(2), 0.0
    for one, body in zip(cast, bodies, strict=True):
        before = None if one is None else velocity(one.track, fps, 0, int(np.floor(meeting)))
        after = None if one is None else velocity(one.track, fps, int(np.ceil(meeting)), last)
        if before is None or after is None:
            return LOST
        mass = body.diameter**2
        came, left = came + mass * before, left + mass * after
        size += mass * float(np.linalg.norm(before))
    return min(LOST, float(np.linalg.norm(left - came)) / max(size, 1e-6))
