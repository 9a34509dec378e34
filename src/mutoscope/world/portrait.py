"""Pictures of somebody, for clips that show them in another place: what a reference to a character is."""

from dataclasses import replace

import numpy as np

from mutoscope.world.palette import VISIBLE_ON
from mutoscope.world.physics import straight
from mutoscope.world.stage import BACKGROUNDS, EXTENTS, FLOOR, GROUND, Scene, Shot

AIRBORNE = 0.35  # share of portraits in the air, as of plain motion


def last_shot(story: Scene) -> Scene:
    """The last shot of a story, as a scene of its own."""
    return replace(story, shots=(replace(story.shots[-1], start=0.0),))


def plainer(scene: Scene) -> Scene:
    """The scene without hats and eyes: for captions that leave them to the portrait."""
    shots = (
        replace(shot, bodies=tuple(replace(body, hat=None, eyes=0) for body in shot.bodies))
        for shot in scene.shots
    )
    return replace(scene, shots=tuple(shots))


def portrait(scene: Scene) -> Scene:
    """A body of the scene's last shot, alone, at rest and as large as there, before a backdrop that shows it.

    Which body, where and before what is a pure function of the scene.
    """
    choose = np.random.default_rng((scene.seed, 5))
    bodies = scene.shots[-1].bodies
    body = bodies[int(choose.integers(len(bodies)))]
    colours = {body.colour} | ({body.hat[1]} if body.hat else set())
    places = [name for name in BACKGROUNDS if colours <= set(VISIBLE_ON[name])] or [
        scene.shots[-1].background
    ]
    side, foot, head = (extent * body.diameter for extent in EXTENTS[body.shape])
    reach = max(0.0, 0.48 - side)
    x, y = float(choose.uniform(-reach, reach)), GROUND + foot
    if choose.random() < AIRBORNE:
        y = float(choose.uniform(FLOOR + 0.04 + foot, max(FLOOR + 0.04 + foot, 0.96 - head)))
    place, phase = str(choose.choice(places)), float(choose.uniform(0, 2 * np.pi))
    still = replace(body, path=straight(x, y), manner="stand")
    return replace(scene, shots=(Shot(place, (still,), phase),))
