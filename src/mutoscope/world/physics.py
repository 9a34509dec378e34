"""Motion as pieces of parabola: exact, event driven, a pure function of time.

A path is a tuple of pieces (start, x, y, vx, vy, ay, angle, spin): from `start` seconds on the centre is
(x + vx s, y + vy s + ay s^2 / 2) and the angle angle + spin s, with s the seconds since `start`.
Lengths in stage units, y upwards, angles in radians counter-clockwise.
"""

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
