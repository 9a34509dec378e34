"""Motion as pieces of parabola: exact, event driven, a pure function of time.

A path is a tuple of pieces (start, x, y, vx, vy, ay, angle, spin): from `start` seconds on the centre is
(x + vx s, y + vy s + ay s^2 / 2) and the angle angle + spin s, with s the seconds since `start`.
Lengths in stage units, y upwards, angles in radians counter-clockwise.
"""

import math
from collections.abc import Sequence

import numpy as np

Piece = tuple[float, float, float, float, float, float, float, float]
Path = tuple[Piece, ...]

GRAVITY = 1.2  # stage units per second squared
RESTITUTION = {"rubber": 0.85, "wood": 0.5, "clay": 0.1}
REST_SPEED = 0.03  # a bounce slower than this ends the bouncing
FAR_AWAY = 1e9


def straight(
    x: float, y: float, vx: float = 0.0, vy: float = 0.0, angle: float = 0.0, spin: float = 0.0
) -> Path:
    """Uniform motion from time 0."""
    return ((0.0, x, y, vx, vy, 0.0, angle, spin),)


def fall(x: float, y: float, vx: float, ground: float, restitution: float, spin: float = 0.0) -> Path:
    """Free fall from rest at height y with sideways speed vx, bouncing at centre height `ground` until it rests.

    Each bounce keeps vx and turns vy into -restitution vy (Newton's law of restitution, no friction).
    """
    drop = y - ground
    pieces: list[Piece] = [(0.0, x, y, vx, 0.0, -GRAVITY, 0.0, spin)]
    time = math.sqrt(2 * drop / GRAVITY)
    speed = restitution * GRAVITY * time
    while speed >= REST_SPEED:
        pieces.append((time, x + vx * time, ground, vx, speed, -GRAVITY, spin * time, spin))
        time += 2 * speed / GRAVITY
        speed *= restitution
    pieces.append((time, x + vx * time, ground, vx, 0.0, 0.0, spin * time, spin))
    return tuple(pieces)


def collide(one: Piece, other: Piece, radii: tuple[float, float]) -> tuple[Path, Path]:
    """Two discs in uniform motion that meet elastically, mass ~ area. A disc with spin keeps rolling: spin = -vx / r.

    Discs that never meet keep their motion. Impulse along the line of centres: Goldstein, Classical Mechanics, 3.
    """
    gap = (one[1] - other[1], one[2] - other[2])
    closing = (one[3] - other[3], one[4] - other[4])
    a = closing[0] ** 2 + closing[1] ** 2
    b = gap[0] * closing[0] + gap[1] * closing[1]
    c = gap[0] ** 2 + gap[1] ** 2 - sum(radii) ** 2
    if a == 0 or b >= 0 or b * b < a * c:
        return (one,), (other,)
    time = (-b - math.sqrt(b * b - a * c)) / a
    normal = ((gap[0] + closing[0] * time) / sum(radii), (gap[1] + closing[1] * time) / sum(radii))
    along = closing[0] * normal[0] + closing[1] * normal[1]
    masses = (radii[0] ** 2, radii[1] ** 2)
    paths = []
    for piece, radius, share in (
        (one, radii[0], -2 * masses[1] / sum(masses)),
        (other, radii[1], 2 * masses[0] / sum(masses)),
    ):
        _, x, y, vx, vy, _, angle, spin = piece
        after = (vx + share * along * normal[0], vy + share * along * normal[1])
        rolls = one[7] != 0 or other[7] != 0
        place = (time, x + vx * time, y + vy * time, *after, 0.0, angle + spin * time)
        paths.append((piece, (*place, -after[0] / radius if rolls else spin)))
    return paths[0], paths[1]


def positions(paths: Sequence[Path], seconds: Sequence[float] | np.ndarray) -> np.ndarray:
    """Centres and angles: (paths, times, 3) as x, y, angle in float64. Times before 0 extend the first piece."""
    times = np.asarray(seconds, np.float64)
    most = max((len(path) for path in paths), default=1)
    pieces = np.full((len(paths), most, 8), FAR_AWAY)
    for row, path in zip(pieces, paths, strict=True):
        row[: len(path)] = path
    later = (pieces[:, None, 1:, 0] <= times[None, :, None]).sum(-1)
    now = np.take_along_axis(pieces, later[:, :, None], axis=1)
    s = times[None, :] - now[..., 0]
    x = now[..., 1] + now[..., 3] * s
    y = now[..., 2] + now[..., 4] * s + 0.5 * now[..., 5] * s * s
    return np.stack([x, y, now[..., 6] + now[..., 7] * s], -1)
