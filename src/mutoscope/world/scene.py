"""Seeds to scenes: what is on the stage, how it is filmed and drawn, as a pure function of seed and mix."""

import numpy as np

from mutoscope.errors import InputError
from mutoscope.world.palette import VISIBLE_ON
from mutoscope.world.plays import PLAYS, choose
from mutoscope.world.stage import (
    BACKGROUNDS,
    CAMERAS,
    COLOUR_SHAPE_HOLES,
    COLOURS,
    DIRECTIONS,
    EVERYTHING,
    EXTENTS,
    FLOOR,
    GROUND,
    HATS,
    PLAIN,
    SHAPE_MOTION_HOLES,
    SHAPES,
    SIZES,
    STYLES,
    Body,
    Camera,
    Scene,
    SceneMix,
    Shot,
    View,
    is_hole,
)

__all__ = [
    "BACKGROUNDS",
    "CAMERAS",
    "COLOURS",
    "COLOUR_SHAPE_HOLES",
    "DIRECTIONS",
    "EVERYTHING",
    "EXTENTS",
    "FLOOR",
    "GROUND",
    "HATS",
    "PLAIN",
    "SHAPES",
    "SHAPE_MOTION_HOLES",
    "SIZES",
    "STYLES",
    "Body",
    "Camera",
    "Scene",
    "SceneMix",
    "Shot",
    "View",
    "is_hole",
    "sample_scene",
]


UNREADABLE = {"outline": "white", "neon": "black"}  # the paint that a style cannot show


def sample_scene(seed: int, mix: SceneMix = PLAIN) -> Scene:
    """The scene of a seed (0 <= seed < 2**63): a pure function of seed and mix."""
    if not 0 <= seed < 2**63:
        raise InputError(f"seed {seed} is out of range: give an integer from 0 to 2**63 - 1.")
    for part, known in (("plays", tuple(PLAYS)), ("cameras", CAMERAS), ("styles", STYLES)):
        if unknown := set(getattr(mix, part)) - set(known):
            raise InputError(
                f"{part} {sorted(unknown)} of the mix are unknown: choose from {', '.join(known)}."
            )
    rng = np.random.Generator(np.random.Philox(key=seed))
    places = [name for name in mix.backgrounds if not set(VISIBLE_ON[name]).isdisjoint(mix.colours)]
    if not places:
        raise InputError(f"colours {mix.colours} of the mix cannot be told from its backgrounds: add others.")
    background = str(rng.choice(places))
    phase = float(rng.uniform(0, 2 * np.pi))
    weights = np.array(mix.objects, np.float64)
    count = 1 + int(rng.choice(len(weights), p=weights / weights.sum()))
    play = PLAYS[choose(rng, mix.plays)]
    shots = play(rng, mix, background, phase, count)
    style = choose(rng, mix.styles)
    colours = {body.colour for shot in shots for body in shot.bodies}
    return Scene(seed, shots, "paper" if UNREADABLE.get(style) in colours else style)
