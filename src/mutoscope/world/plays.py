"""What happens on the stage: each play casts bodies, gives them paths and returns shots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mutoscope.errors import InputError
from mutoscope.world.palette import VISIBLE_ON
from mutoscope.world.physics import RESTITUTION, Piece, collide, fall, positions, straight
from mutoscope.world.stage import (
    EXTENTS,
    FLOOR,
    GROUND,
    HATS,
    SHAPES,
    SIZES,
    Body,
    Camera,
    SceneMix,
    Shot,
    is_hole,
)

TRAVEL = (0.38, 0.60)  # distance covered in `seconds`, stage units
TRIES = 60
PAN = 0.34  # distance a camera pans or tilts in `seconds`, stage units
ZOOM = 1.4

Play = Callable[[np.random.Generator, SceneMix, str, float, int], tuple[Shot, ...]]


def choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """A key with its weight; nothing is drawn when there is no choice."""
    names = [name for name, weight in weights.items() if weight > 0]
    if len(names) == 1:
        return names[0]
    shares = np.array([weights[name] for name in names])
    return str(rng.choice(names, p=shares / shares.sum()))


def _plain(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """Uniform motion, perhaps before a moving camera."""
    bodies = _plain_bodies(rng, mix, background, count)
    kind = choose(rng, mix.cameras)
    return (Shot(background, bodies, phase, camera=_camera(kind, bodies, mix.seconds)),)


def _camera(kind: str, bodies: Sequence[Body], seconds: float) -> Camera:
    """A camera whose middle moment is the plain view; to follow, someone must go sideways."""
    if kind == "follow":
        goers = [body for body in bodies if body.path[0][3] != 0]
        if not goers:
            return Camera()
        _, x, _, vx, *_ = goers[0].path[0]
        return Camera("follow", x=x, vx=vx, until=10 * seconds)
    return cameras(seconds)[kind]


def cameras(seconds: float) -> dict[str, Camera]:
    """Every camera but the one that follows somebody, by kind, staged for a clip of `seconds`."""
    speed, rate = PAN / seconds, float(np.log(ZOOM)) / seconds
    return {
        "static": Camera(),
        "pan left": Camera("pan left", x=PAN / 2, vx=-speed, until=seconds),
        "pan right": Camera("pan right", x=-PAN / 2, vx=speed, until=seconds),
        "tilt up": Camera("tilt up", y=-PAN / 4, vy=speed / 2, until=seconds),
        "tilt down": Camera("tilt down", y=PAN / 4, vy=-speed / 2, until=seconds),
        "zoom in": Camera("zoom in", zoom=1 / ZOOM, rate=rate, until=seconds),
        "zoom out": Camera("zoom out", zoom=1.0, rate=-rate, until=seconds),
    }


def _cast(
    rng: np.random.Generator,
    mix: SceneMix,
    background: str,
    motion: str,
    shapes: Sequence[str],
    sizes: Sequence[str],
    other_than: Sequence[Body] = (),
) -> Body:
    """A body at rest at the middle of the floor, of a colour nobody in `other_than` has."""
    taken = {body.colour for body in other_than}
    colours = [name for name in mix.colours if name in VISIBLE_ON[background] and name not in taken]
    colours = colours or [name for name in VISIBLE_ON[background] if name not in taken]
    allowed = [name for name in shapes if name in mix.shapes] or list(shapes)
    pairs = [(c, s) for c in colours for s in allowed if mix.allow_holes or not is_hole(c, s, motion)]
    colour, shape = pairs[int(rng.integers(len(pairs)))]
    size = str(rng.choice([name for name in sizes if name in mix.sizes] or list(sizes)))
    diameter = SIZES[size] * float(rng.uniform(0.94, 1.06))
    path = straight(0.0, GROUND + EXTENTS[shape][1] * diameter)
    return Body(shape, colour, size, diameter, path, "stand")


def _moved(body: Body, x: float, vx: float, manner: str | None = None) -> Body:
    """The body going sideways along the floor; round ones roll."""
    round_one = body.shape in ("ball", "ring")
    spin = -vx / (body.diameter / 2) if round_one else 0.0
    path = straight(x, body.path[0][2], vx, 0.0, 0.0, spin)
    return replace(body, path=path, manner=manner or ("roll" if round_one else "slide"))


def _drop(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """One or two bodies of named materials fall straight down and bounce."""
    bodies: list[Body] = []
    for place in range(min(count, 2)):
        shapes = ("ball", "ball", "box", "capsule", "triangle", "star")
        body = _cast(rng, mix, background, "down", shapes, ("small", "medium"), bodies)
        material = str(rng.choice(tuple(RESTITUTION)))
        rest = body.path[0][2]
        height = float(rng.uniform(0.62, 0.94 - EXTENTS[body.shape][2] * body.diameter))
        x = float(rng.uniform(-0.28, 0.28)) if count == 1 else float(rng.uniform(0.2, 0.28)) * (2 * place - 1)
        path = fall(x, height, 0.0, rest, RESTITUTION[material])
        bodies.append(replace(body, path=path, manner="drop", material=material))
    return (Shot(background, tuple(bodies), phase),)


def _throw(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """A rubber or wooden ball hops across the stage."""
    motion = str(rng.choice(("left", "right")))
    body = _cast(rng, mix, background, motion, ("ball",), ("small", "medium"))
    material = str(rng.choice(("rubber", "wood")))
    travel = float(rng.uniform(0.45, 0.6)) * (1 if motion == "right" else -1)
    speed, height = travel / mix.seconds, float(rng.uniform(0.55, 0.8))
    spin = -speed / (body.diameter / 2)
    path = fall(-travel / 2, height, speed, body.path[0][2], RESTITUTION[material], spin)
    return (Shot(background, (replace(body, path=path, manner="hop", material=material),), phase),)


def _collide(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """A ball rolls into another of its size on the floor, or two meet in the air at any angle."""
    sign = float(rng.choice((-1.0, 1.0)))
    motion = "right" if sign > 0 else "left"
    on_floor = bool(rng.random() < 0.6)
    first = _cast(rng, mix, background, motion, ("ball",), ("small", "medium"))
    second = _cast(rng, mix, background, motion, ("ball",), ("small", "medium"), (first,))
    meeting = mix.seconds * float(rng.uniform(0.35, 0.5))
    if on_floor:
        second = replace(second, size=first.size, diameter=first.diameter)
    radii = (first.diameter / 2, second.diameter / 2)
    speed = float(rng.uniform(0.44, 0.56)) / mix.seconds
    high = GROUND + radii[0] if on_floor else float(rng.uniform(0.45, 0.6))
    offset = 0.0 if on_floor else float(rng.uniform(-0.5, 0.5)) * sum(radii)
    touch = np.sqrt(sum(radii) ** 2 - offset**2)
    back = 0.0 if rng.random() < 0.5 else float(rng.uniform(0.3, 1.0)) * speed
    at = float(rng.uniform(-0.06, 0.06))
    one = _disc(sign * (at - touch / 2 - speed * meeting), high, sign * speed, radii[0], on_floor)
    other = _disc(sign * (at + touch / 2 + back * meeting), high + offset, -sign * back, radii[1], on_floor)
    paths = collide(one, other, radii)
    manner = "roll" if on_floor else "drift"
    rests = "stand" if on_floor else "hang"
    bodies = (
        replace(first, path=paths[0], manner=manner),
        replace(second, path=paths[1], manner=manner if back else rests),
    )
    return (Shot(background, bodies, phase),)


def _disc(x: float, y: float, vx: float, radius: float, rolls: bool) -> Piece:
    return (0.0, float(x), float(y), vx, 0.0, 0.0, 0.0, -vx / radius if rolls else 0.0)


def _behind(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """Someone small passes behind a large screen and comes out again."""
    motion = str(rng.choice(("left", "right")))
    screen = _cast(rng, mix, background, "still", ("box", "box", "box", "ball", "triangle"), ("large",))
    shapes = ("ball", "ball", "ball", "ring", "box", "star", "capsule", "triangle")
    actor = _cast(rng, mix, background, motion, shapes, ("small",), (screen,))
    travel = float(rng.uniform(0.68, 0.72)) * (1 if motion == "right" else -1)
    middle = float(rng.uniform(-0.03, 0.03))
    actor = _moved(actor, middle - travel / 2, travel / mix.seconds)
    screen = _moved(screen, middle, 0.0, "stand")
    return (Shot(background, (actor, screen), phase),)


def _front(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """The same walk before the screen."""
    (shot,) = _behind(rng, mix, background, phase, count)
    return (replace(shot, bodies=shot.bodies[::-1]),)


def _beside(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """Two who rest, side by side on the floor or one hanging above the other."""
    sizes = ("small", "medium")
    first = _cast(rng, mix, background, "still", SHAPES, sizes)
    second = _cast(rng, mix, background, "still", SHAPES, sizes, (first,))
    middle = float(rng.uniform(-0.1, 0.1))
    if rng.random() < 0.5:
        apart = float(rng.uniform(0.16, 0.28)) * float(rng.choice((-1.0, 1.0)))
        bodies = (_moved(first, middle - apart, 0.0, "stand"), _moved(second, middle + apart, 0.0, "stand"))
        return (Shot(background, bodies, phase),)
    height = float(rng.uniform(0.66, 0.78))
    upper = replace(first, path=straight(middle, height), manner="hang")
    lower = _moved(second, middle + float(rng.uniform(-0.08, 0.08)), 0.0, "stand")
    bodies = (upper, lower) if rng.random() < 0.5 else (lower, upper)
    return (Shot(background, bodies, phase),)


def _enter(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """Someone comes from outside the frame."""
    motion = str(rng.choice(("left", "right")))
    body = _cast(
        rng, mix, background, motion, ("ball", "box", "triangle", "star", "ring", "capsule"), tuple(SIZES)
    )
    sign = 1 if motion == "right" else -1
    edge = 0.53 + EXTENTS[body.shape][0] * body.diameter
    end = float(rng.uniform(-0.05, 0.25))
    return (Shot(background, (_moved(body, -sign * edge, sign * (edge + end) / mix.seconds),), phase),)


def _leave(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """Someone goes out of the frame: an entrance backwards in time."""
    (shot,) = _enter(rng, mix, background, phase, count)
    (body,) = shot.bodies
    x, vx = body.path[0][1], body.path[0][3]
    return (replace(shot, bodies=(_moved(body, -(x + vx * mix.seconds), vx),)),)


def _story(
    rng: np.random.Generator, mix: SceneMix, background: str, phase: float, count: int
) -> tuple[Shot, ...]:
    """One character in two or three shots: new backdrop, size and motion, the same body, hat and eyes."""
    shots: list[Shot] = []
    number = int(rng.integers(2, 4))
    places = [background, *rng.permutation([name for name in mix.backgrounds if name != background])]
    places = [str(place) for place in (places * number)[:number]]
    paints = [set(VISIBLE_ON[place]) for place in places]
    shared = [name for name in VISIBLE_ON[background] if all(name in paint for paint in paints)]
    seen = [name for name in mix.colours if name in shared] or shared
    motions = [str(motion) for motion in rng.choice(("left", "right"), size=number)]
    narrow = replace(mix, colours=tuple(seen))
    body = _cast(
        rng, narrow, background, motions[0], ("ball", "box", "triangle", "star", "ring"), ("medium",)
    )
    hats = [
        (shape, colour)
        for shape in HATS
        for colour in shared
        if colour != body.colour and (mix.allow_holes or not is_hole(colour, shape, ""))
    ]
    hat = hats[int(rng.integers(len(hats)))]
    eyes = int(rng.integers(1, 4))
    for k, (place, motion) in enumerate(zip(places, motions, strict=True)):
        size = str(rng.choice(("medium", "large")))
        diameter = SIZES[size] * float(rng.uniform(0.94, 1.06))
        path = straight(0.0, GROUND + EXTENTS[body.shape][1] * diameter)
        actor = replace(body, size=size, diameter=diameter, path=path, hat=hat, eyes=eyes)
        length = mix.seconds / number
        travel = float(rng.uniform(0.24, 0.34)) * (1 if motion == "right" else -1)
        _, _, y, *_ = path[0]
        moved = straight(-travel / 2, y, travel / length)
        actor = replace(actor, path=moved, manner="slide")
        shots.append(Shot(place, (actor,), float(rng.uniform(0, 2 * np.pi)), k * length))
    return tuple(shots)


def _plain_bodies(rng: np.random.Generator, mix: SceneMix, background: str, count: int) -> tuple[Body, ...]:
    """Bodies in uniform motion that keep clear of each other; crowded tries end with fewer bodies."""
    bodies: list[Body] = []
    for _ in range(TRIES):
        if len(bodies) == count:
            break
        body = _plain_body(rng, mix, background, count)
        if all(_apart(body, other, mix.seconds) and body.colour != other.colour for other in bodies):
            bodies.append(body)
    return tuple(bodies)


def _plain_body(rng: np.random.Generator, mix: SceneMix, background: str, count: int) -> Body:
    """One body in uniform motion, wholly inside the unit square for `mix.seconds`."""
    for _ in range(1000):
        colour = str(rng.choice([name for name in mix.colours if name in VISIBLE_ON[background]]))
        shape = str(rng.choice(mix.shapes))
        names = list(mix.motions)
        weights = np.array([mix.motions[name] for name in names])
        motion = str(rng.choice(names, p=weights / weights.sum()))
        if mix.allow_holes or not is_hole(colour, shape, motion):
            break
    else:
        raise InputError(
            f"colours {mix.colours}, shapes {mix.shapes} and motions {tuple(mix.motions)} of the mix leave only "
            "combinations that are declared holes: widen them or set allow_holes."
        )
    sizes = [name for name in mix.sizes if count < 3 or name != "large"] or list(mix.sizes)
    size = str(rng.choice(sizes))
    diameter = SIZES[size] * float(rng.uniform(0.94, 1.06))
    side, foot, head = (extent * diameter for extent in EXTENTS[shape])
    reach = 0.48 - side
    airborne = bool(rng.random() < 0.35)
    angle = float(rng.uniform(-0.2, 0.2)) if motion in ("up", "down") or airborne else 0.0
    low, high = FLOOR + 0.04 + foot, 0.96 - head
    x = float(rng.uniform(-reach, reach))
    y = float(rng.uniform(low, high)) if airborne else GROUND + foot
    vx = vy = spin = 0.0
    if motion in ("left", "right"):
        travel = min(float(rng.uniform(*TRAVEL)), 2 * reach)
        start = float(rng.uniform(-reach, reach - travel))
        x, vx = (start, travel) if motion == "right" else (-start, -travel)
        if not airborne and shape in ("ball", "ring"):
            spin = -vx / (diameter / 2)
        manner = "drift" if airborne else ("roll" if shape in ("ball", "ring") else "slide")
    elif motion in ("up", "down"):
        bottom = GROUND + foot
        travel = min(float(rng.uniform(*TRAVEL)), high - bottom)
        start = float(rng.uniform(bottom, max(bottom, high - travel)))
        y, vy = (start, travel) if motion == "up" else (start + travel, -travel)
        manner = "float" if motion == "up" else "sink"
    else:
        manner = "hang" if airborne else "stand"
    path = straight(x, y, vx / mix.seconds, vy / mix.seconds, angle, spin / mix.seconds)
    return Body(shape, colour, size, diameter, path, manner)


def _apart(one: Body, other: Body, seconds: float) -> bool:
    """Whether two bodies never touch on the picture during `seconds`."""
    first, second = positions((one.path, other.path), np.linspace(0, seconds, 17))
    gap = np.linalg.norm(first[:, :2] - second[:, :2], axis=-1).min()
    reach_one, reach_other = (max(EXTENTS[body.shape]) * body.diameter for body in (one, other))
    return bool(gap >= 0.96 * (reach_one + reach_other))


PLAYS: dict[str, Play] = {
    "plain": _plain,
    "drop": _drop,
    "throw": _throw,
    "collide": _collide,
    "behind": _behind,
    "front": _front,
    "beside": _beside,
    "enter": _enter,
    "leave": _leave,
    "story": _story,
}
