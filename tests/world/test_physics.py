"""The closed-form physics against pymunk and against its own laws."""

import math

import numpy as np
import pymunk
import pytest

from mutoscope.world.physics import GRAVITY, RESTITUTION, collide, fall, positions, straight

STEP = 1 / 4000


def _space(gravity: float) -> pymunk.Space:
    space = pymunk.Space()
    space.gravity = (0, -gravity)
    space.damping = 1.0
    return space


def _disc(
    space: pymunk.Space, x: float, y: float, velocity: tuple[float, float], radius: float
) -> pymunk.Body:
    mass = radius**2
    body = pymunk.Body(mass, pymunk.moment_for_circle(mass, 0, radius))
    body.position, body.velocity = (x, y), velocity
    shape = pymunk.Circle(body, radius)
    shape.elasticity, shape.friction = 1.0, 0.0
    space.add(body, shape)
    return body


@pytest.mark.parametrize("material", sorted(RESTITUTION))
def test_falls_and_bounces_like_pymunk(material: str) -> None:
    """Heights over 2.5 s within 0.6 % of the stage (pymunk steps, and lets bodies sink a little)."""
    radius, restitution = 0.1, RESTITUTION[material]
    space = _space(GRAVITY)
    body = _disc(space, -0.3, 0.8, (0.2, 0.0), radius)
    floor = pymunk.Segment(space.static_body, (-9, -0.5), (9, -0.5), 0.5)
    floor.elasticity, floor.friction = restitution, 0.0
    space.add(floor)
    space.collision_slop = 1e-5
    seen = []
    for _ in range(int(2.5 / STEP)):
        space.step(STEP)
        seen.append(tuple(body.position))
    times = STEP * np.arange(1, len(seen) + 1)
    (ours,) = positions((fall(-0.3, 0.8, 0.2, radius, restitution),), times)
    assert np.abs(ours[:, :2] - np.array(seen)).max() < 0.006


def test_collides_like_pymunk() -> None:
    """Velocities after an oblique elastic meeting of unequal discs within 1 %."""
    radii = (0.14, 0.10)
    one, other = straight(-0.3, 0.5, 0.3)[0], straight(0.25, 0.56, -0.1)[0]
    space = _space(0.0)
    bodies = [_disc(space, p[1], p[2], (p[3], p[4]), r) for p, r in zip((one, other), radii, strict=True)]
    for _ in range(int(2 / STEP)):
        space.step(STEP)
    paths = collide(one, other, radii)
    for body, path in zip(bodies, paths, strict=True):
        assert path[-1][3:5] == pytest.approx(tuple(body.velocity), abs=0.003)


def test_a_meeting_keeps_momentum_and_energy() -> None:
    rng = np.random.default_rng(0)
    met = 0
    for _ in range(50):
        radii = tuple(rng.uniform(0.05, 0.2, 2))
        one = straight(-0.4, 0.5, rng.uniform(0.1, 0.5), rng.uniform(-0.1, 0.1))[0]
        other = straight(0.4, rng.uniform(0.4, 0.6), -rng.uniform(0, 0.5))[0]
        paths = collide(one, other, radii)
        if len(paths[0]) == 1:
            continue
        met += 1
        mass = np.array(radii) ** 2
        before = np.array([one[3:5], other[3:5]])
        after = np.array([path[1][3:5] for path in paths])
        assert mass @ after == pytest.approx(mass @ before, abs=1e-12)
        assert mass @ (after**2).sum(1) == pytest.approx(mass @ (before**2).sum(1), rel=1e-9)
        touch = positions(paths, [paths[0][1][0]])[:, 0, :2]
        assert np.linalg.norm(touch[0] - touch[1]) == pytest.approx(sum(radii))
    assert met > 20


def test_discs_that_part_never_meet() -> None:
    one, other = straight(-0.3, 0.5, -0.3)[0], straight(0.3, 0.5, 0.1)[0]
    assert collide(one, other, (0.1, 0.1)) == ((one,), (other,))


def test_each_bounce_is_lower_by_the_square_of_the_restitution() -> None:
    path = fall(0.0, 0.9, 0.0, 0.2, 0.85)
    peaks = [piece[4] ** 2 / (2 * GRAVITY) for piece in path[1:-1]]
    assert peaks[0] == pytest.approx(0.7 * 0.85**2)
    assert np.array(peaks[1:]) / peaks[:-1] == pytest.approx(0.85**2)
    assert path[-1][3:6] == (0.0, 0.0, 0.0)


def test_paths_are_continuous() -> None:
    path = fall(-0.2, 0.8, 0.3, 0.15, 0.5, spin=-2.0)
    for piece in path[1:]:
        (track,) = positions((path,), [piece[0] - 1e-9, piece[0] + 1e-9])
        assert track[0] == pytest.approx(track[1], abs=1e-7)


def test_paths_of_different_lengths_share_a_batch() -> None:
    short, long = straight(0.1, 0.2, 0.3, -0.4, angle=0.5, spin=1.0), fall(0.0, 0.8, 0.0, 0.2, 0.5)
    times = np.linspace(0, 5, 41)
    both = positions((short, long), times)
    assert np.array_equal(both[0], positions((short,), times)[0])
    assert np.array_equal(both[1], positions((long,), times)[0])
    assert both[0, -1] == pytest.approx((0.1 + 1.5, 0.2 - 2.0, 5.5))
    assert math.isclose(both[1, -1, 1], 0.2)
