"""The truth of a view: what its pixels show, as a record and as checkable facts.

Motion is what happens between the first and the last frame that show a body; what is out of the picture is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mutoscope.world.physics import positions
from mutoscope.world.stage import EXTENTS, Body, Camera, Scene, Shot, View

STILL_BELOW = 0.06  # stage units travelled in a view below which a body counts as still
RELATED_FROM = 0.16  # distance of centres that makes a relation
CLEAR_FROM = 0.15  # net distance that gives a bent path a direction
SEEN_FROM = 0.4  # share of the frames that must show a body for it to be mentioned
BOUNCE_FROM = 0.2  # upward speed after a landing that counts as a bounce
CAMERA_FROM = 0.08  # way of the camera, or change of log zoom, that is named
MOMENT = 0.12  # seconds that must follow an event for it to be seen
OPPOSITE = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
    "behind": "in front of", "in front of": "behind",
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """A body as the view shows it. x, y: its place in the middle of the clip, in stage units.

    direction is "" when no single one is true. events: "bounce", "enter left", "leave right", "collide 1" (with
    the index of the other thing). material is named only where a bounce or landing shows it.
    """

    colour: str
    shape: str
    size: str
    direction: str
    manner: str
    x: float
    y: float
    events: tuple[str, ...] = ()
    material: str = ""
    hat: tuple[str, str] | None = None
    eyes: int = 0


@dataclass(frozen=True)
class Truth:
    """What a view shows. relations: (subject, relation, other) with indices into `things`.

    A story of several shots has one Truth per shot in `shots`; its own fields are those of the first shot.
    """

    background: str
    style: str
    things: tuple[Thing, ...]
    relations: tuple[tuple[int, str, int], ...]
    camera: str = "static"
    shots: tuple["Truth", ...] = ()


@dataclass(frozen=True)
class Fact:
    """One checkable statement. subject: index of the object it is about, None for the whole clip.

    kind "colour", "shape", "size", "direction", "material": value names it. "relation": value is "left of 1" with
    the index of the other object (left of, right of, above, below, behind, in front of). "event": see Thing.
    "hat": colour and shape. "eyes", "count", "shots": a number in digits. "background", "camera", "style": one of
    the names in stage.py; of a story, several backgrounds, sizes and directions are true, one per shot.
    """

    kind: str
    subject: int | None
    value: str


def truth(scene: Scene, view: View) -> Truth:
    """What the view shows from its first to its last frame."""
    shots = [
        _shot_truth(shot, scene.style, np.arange(span.stop - span.start) / view.fps, view)
        for shot, span in scene.takes(view)
    ]
    return shots[0] if len(shots) == 1 else replace(shots[0], shots=tuple(shots))


def _shot_truth(shot: Shot, style: str, times: np.ndarray, view: View) -> Truth:
    """What one shot shows at the times of its frames."""
    tracks = positions([body.path for body in shot.bodies], times)[..., :2]
    camera = shot.camera.at(times)
    centre = np.array([0.0, 0.5])
    framed = (tracks - centre - camera[:, :2]) * camera[:, 2:] + centre
    half = np.array([view.width, view.height]) / (2 * view.unit)
    inside = (np.abs(framed - centre) <= half).all(-1)
    seen = inside & ~_hidden(shot.bodies, tracks)
    kept = [k for k in range(len(shot.bodies)) if seen[k].mean() >= SEEN_FROM]
    bodies = [shot.bodies[k] for k in kept]
    sides = np.array([EXTENTS[body.shape][0] * body.diameter for body in bodies])
    beyond = (np.abs(framed[kept, :, 0]) - sides[:, None] * camera[:, 2]) >= half[0]
    hits = _collisions(bodies, float(times[-1]))
    things = []
    for k, body in enumerate(bodies):
        seen_frames = np.flatnonzero(inside[kept[k]])
        middle = framed[kept[k], len(times) // 2] if shot.camera.kind != "static" else None
        thing = _thing(body, times[seen_frames[0]], times[seen_frames[-1]], middle, len(times))
        events = list(thing.events)
        if len(times) > 1 and beyond[k, 0]:
            events.append("enter left" if framed[kept[k], 0, 0] < 0 else "enter right")
        if len(times) > 1 and beyond[k, -1]:
            events.append("leave left" if framed[kept[k], -1, 0] < 0 else "leave right")
        events += [f"collide {other}" for one, other in hits if one == k]
        things.append(replace(thing, events=tuple(events)))
    relations = (*_relations(bodies, float(times[-1])), *_overlaps(bodies, tracks[kept]))
    return Truth(shot.background, style, tuple(things), relations, _camera_move(shot.camera, times))


def _hidden(bodies: Sequence[Body], tracks: np.ndarray) -> np.ndarray:
    """(bodies, times): whether a nearer body covers the middle two thirds of a body."""
    hidden = np.zeros(tracks.shape[:2], bool)
    for far in range(len(bodies)):
        for near in range(far + 1, len(bodies)):
            gap = np.abs(tracks[far] - tracks[near])
            room = EXTENTS[bodies[near].shape][0] * bodies[near].diameter
            room -= 0.65 * EXTENTS[bodies[far].shape][0] * bodies[far].diameter
            hidden[far] |= (gap <= room).all(-1)
    return hidden


def _thing(body: Body, first: float, last: float, middle: np.ndarray | None, frames: int) -> Thing:
    """A body between two times. middle: where the frame shows it halfway, if the camera moves."""
    (track,) = positions((body.path,), (first, (first + last) / 2, last))
    dx, dy = track[2, :2] - track[0, :2]
    manner = body.manner if frames > 1 else "picture"
    (way,) = positions((body.path,), np.linspace(first, last, 33))
    bent = len(body.path) > 1 or body.path[0][5] != 0
    if max(abs(dx), abs(dy)) < STILL_BELOW:
        moved = np.abs(np.diff(way[:, :2], axis=0)).sum() >= STILL_BELOW
        direction = "" if bent and moved else "still"
    elif bent and (max(abs(dx), abs(dy)) < CLEAR_FROM or min(abs(dx), abs(dy)) > max(abs(dx), abs(dy)) / 2):
        direction = ""
    elif abs(dx) >= abs(dy):
        direction = "right" if dx > 0 else "left"
    else:
        direction = "up" if dy > 0 else "down"
    landings = [piece[4] for piece in body.path[1:] if piece[0] <= last - MOMENT]
    fell = body.path[0][5] != 0 and landings != [] and frames > 1
    events = ("bounce",) if fell and max(landings) > BOUNCE_FROM else ()
    x, y = track[1, :2] if middle is None else middle
    return Thing(
        body.colour, body.shape, body.size, direction, manner, float(x), float(y), events,
        body.material if fell else "", body.hat, body.eyes,
    )  # fmt: skip


def _collisions(bodies: Sequence[Body], last: float) -> list[tuple[int, int]]:
    """Pairs, both ways round, whose paths bend at the same moment of the view."""
    bends = [
        body.path[1][0] if len(body.path) == 2 and body.path[0][5] == 0 else float("inf") for body in bodies
    ]
    return [
        (i, j)
        for i in range(len(bodies))
        for j in range(len(bodies))
        if i != j and bends[i] == bends[j] <= last - MOMENT
    ]


def _overlaps(bodies: Sequence[Body], tracks: np.ndarray) -> list[tuple[int, str, int]]:
    """Who is seen behind whom at some time; later bodies are nearer."""
    found = []
    for i in range(len(bodies)):
        for j in range(i + 1, len(bodies)):
            gap = np.linalg.norm(tracks[i] - tracks[j], axis=-1).min()
            reach = sum(EXTENTS[bodies[k].shape][0] * bodies[k].diameter for k in (i, j))
            if gap < 0.6 * reach:
                found.append((i, "behind", j))
    return found


def _camera_move(camera: Camera, times: np.ndarray) -> str:
    """The camera's kind if it moves enough to be seen between the first and the last frame."""
    first, last = camera.at(times[[0, -1]])
    far = float(np.abs(last[:2] - first[:2]).max())
    return camera.kind if far >= CAMERA_FROM or abs(np.log(last[2] / first[2])) >= CAMERA_FROM else "static"


def _relations(bodies: Sequence[Body], last: float) -> tuple[tuple[int, str, int], ...]:
    """Who is left of or above whom throughout: the clear cases only."""
    tracks = positions([body.path for body in bodies], np.linspace(0.0, last, 9))
    found = []
    for i in range(len(bodies)):
        for j in range(i + 1, len(bodies)):
            gap = tracks[i, :, :2] - tracks[j, :, :2]
            across, along = np.abs(gap[:, 0]), np.abs(gap[:, 1])
            if (gap[:, 0] < -RELATED_FROM).all() and (across > 1.5 * along).all():
                found.append((i, "left of", j))
            elif (gap[:, 0] > RELATED_FROM).all() and (across > 1.5 * along).all():
                found.append((i, "right of", j))
            elif (gap[:, 1] > RELATED_FROM).all() and (along > 1.5 * across).all():
                found.append((i, "above", j))
            elif (gap[:, 1] < -RELATED_FROM).all() and (along > 1.5 * across).all():
                found.append((i, "below", j))
    return tuple(found)


def facts(truth: Truth) -> tuple[Fact, ...]:
    """Every fact of a truth. A picture (one frame) has no directions. A story's are those of all its shots."""
    if truth.shots:
        told = [fact for shot in truth.shots for fact in facts(replace(shot, shots=()))]
        return (Fact("shots", None, str(len(truth.shots))), *dict.fromkeys(told))
    found = [Fact("count", None, str(len(truth.things))), Fact("background", None, truth.background)]
    for i, thing in enumerate(truth.things):
        found += [Fact("colour", i, thing.colour), Fact("shape", i, thing.shape), Fact("size", i, thing.size)]
        if thing.manner != "picture" and thing.direction:
            found.append(Fact("direction", i, thing.direction))
        if thing.material:
            found.append(Fact("material", i, thing.material))
        if thing.hat is not None:
            found.append(Fact("hat", i, f"{thing.hat[1]} {thing.hat[0]}"))
        if thing.eyes:
            found.append(Fact("eyes", i, str(thing.eyes)))
        found += [Fact("event", i, event) for event in thing.events]
    for i, relation, j in truth.relations:
        found += [Fact("relation", i, f"{relation} {j}"), Fact("relation", j, f"{OPPOSITE[relation]} {i}")]
    if truth.camera != "static":
        found.append(Fact("camera", None, truth.camera))
    if truth.style != "paper":
        found.append(Fact("style", None, truth.style))
    return tuple(found)
