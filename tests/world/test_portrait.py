"""Portraits: the same body, alone and at rest, elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from mutoscope.world.palette import VISIBLE_ON
from mutoscope.world.physics import positions
from mutoscope.world.portrait import last_shot, plainer, portrait
from mutoscope.world.render import render
from mutoscope.world.scene import EVERYTHING, SceneMix, View, sample_scene

STORIES = replace(EVERYTHING, plays={"story": 1.0})


@pytest.mark.parametrize("mix", [SceneMix(objects=(0.5, 0.5)), EVERYTHING, STORIES])
def test_a_portrait_shows_somebody_of_the_last_shot(mix: SceneMix) -> None:
    places = set()
    for seed in range(60):
        scene = sample_scene(seed, mix)
        (shot,) = portrait(scene).shots
        (body,) = shot.bodies
        looks = [replace(other, path=body.path, manner=body.manner) for other in scene.shots[-1].bodies]
        assert body in looks
        assert body.colour in VISIBLE_ON[shot.background]
        assert np.ptp(positions((body.path,), np.linspace(0, 2, 5))[0], axis=0).max() == 0
        assert portrait(scene) == portrait(scene)
        places.add(shot.background != scene.shots[-1].background)
    assert places == {True, False}


def test_a_portrait_is_in_the_picture() -> None:
    """A frame of it differs from the empty place, and nothing of that is at the left or right border."""
    view = View(64, 64, 1)
    for seed in range(20):
        alone = portrait(sample_scene(seed, SceneMix(objects=(1.0,))))
        empty = replace(alone, shots=(replace(alone.shots[0], bodies=()),))
        difference_CHW = (render([alone], view) - render([empty], view))[0, :, 0]
        changed_HW = difference_CHW.abs().amax(0) > 0.6  # not its shadow
        assert changed_HW.any()
        assert not changed_HW[:, [0, -1]].any()


def test_last_shots_and_plainer_ones() -> None:
    story = sample_scene(3, STORIES)
    last = last_shot(story)
    assert [shot.background for shot in last.shots] == [story.shots[-1].background]
    assert last.shots[0].start == 0
    assert last.shots[0].bodies[0].hat is not None
    (body,) = plainer(last).shots[0].bodies
    assert (body.hat, body.eyes) == (None, 0)
    assert (
        replace(body, hat=last.shots[0].bodies[0].hat, eyes=last.shots[0].bodies[0].eyes)
        == last.shots[0].bodies[0]
    )
