"""Seeds to scenes: determinism, holes, what a mix promises."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from mutoscope.errors import InputError
from mutoscope.world.palette import BACKDROPS, MIN_CONTRAST, PALETTE, VISIBLE_ON, to_lab
from mutoscope.world.physics import positions
from mutoscope.world.scene import (
    COLOUR_SHAPE_HOLES,
    COLOURS,
    EVERYTHING,
    EXTENTS,
    PLAIN,
    SHAPE_MOTION_HOLES,
    SHAPES,
    Camera,
    Scene,
    SceneMix,
    View,
    is_hole,
    sample_scene,
)

WIDE = View(64, 64, 17)


def test_a_seed_is_a_scene() -> None:
    for seed in (0, 7, 2**63 - 1):
        assert sample_scene(seed, EVERYTHING) == sample_scene(seed, EVERYTHING)
    assert len({sample_scene(seed) for seed in range(50)}) == 50


def test_scenes_of_the_plain_mix_never_change() -> None:
    """Trained models and cached latents rely on them."""
    digest = hashlib.sha256()
    for seed in range(40):
        (shot,) = sample_scene(seed).shots
        digest.update(f"{shot.background} {shot.phase:.9f}".encode())
        for body in shot.bodies:
            numbers = " ".join(f"{value:.9f}" for value in (body.diameter, *body.path[0]))
            digest.update(f"{body.shape} {body.colour} {body.size} {body.manner} {numbers}".encode())
    assert digest.hexdigest()[:16] == "f165eeb59c5911b5"


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_have_a_range(seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        sample_scene(seed)


def test_impossible_mixes_say_so() -> None:
    with pytest.raises(InputError, match="holes"):
        sample_scene(0, SceneMix(colours=("red",), shapes=("capsule",)))
    with pytest.raises(InputError, match="cannot be told"):
        sample_scene(0, SceneMix(colours=("white",), backgrounds=("snow",)))
    with pytest.raises(InputError, match="juggle"):
        sample_scene(0, SceneMix(plays={"juggle": 1.0}))


def test_holes_are_a_latin_square_of_about_an_eighth() -> None:
    assert 0.10 <= len(COLOUR_SHAPE_HOLES) / (len(COLOURS) * len(SHAPES)) <= 0.14
    assert 0.10 <= len(SHAPE_MOTION_HOLES) / (len(SHAPES) * 5) <= 0.14
    assert len({colour for colour, _ in COLOUR_SHAPE_HOLES}) == len(COLOUR_SHAPE_HOLES)
    assert len({shape for shape, _ in SHAPE_MOTION_HOLES}) == len({m for _, m in SHAPE_MOTION_HOLES}) == 4


def _combinations(scene: Scene) -> set[tuple[str, str, str]]:
    found = set()
    for shot in scene.shots:
        for body in shot.bodies:
            (track,) = positions((body.path,), (0.0, 2.0 / len(scene.shots)))
            dx, dy = track[1, :2] - track[0, :2]
            if max(abs(dx), abs(dy)) < 0.02:
                motion = "still"
            elif abs(dx) > abs(dy):
                motion = "right" if dx > 0 else "left"
            else:
                motion = "up" if dy > 0 else "down"
            found.add((body.colour, body.shape, motion if len(body.path) == 1 else ""))
            if body.hat:
                found.add((body.hat[1], body.hat[0], ""))
    return found


@pytest.mark.parametrize("mix", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_holes_are_never_shown_unless_allowed(mix: SceneMix) -> None:
    shown = set().union(*(_combinations(sample_scene(seed, mix)) for seed in range(1500)))
    assert not any(is_hole(*combination) for combination in shown)
    assert len({(colour, shape) for colour, shape, _ in shown}) > 50
    allowed = replace(mix, allow_holes=True)
    assert any(is_hole(*c) for seed in range(300) for c in _combinations(sample_scene(seed, allowed)))


def test_plain_bodies_stay_in_the_picture_and_move_visibly() -> None:
    times = np.linspace(0, 2, 17)
    for seed in range(300):
        for body in sample_scene(seed).shots[0].bodies:
            (track,) = positions((body.path,), times)
            side, foot, head = (extent * body.diameter for extent in EXTENTS[body.shape])
            assert np.abs(track[:, 0]).max() + side <= 0.5
            assert track[:, 1].min() - foot >= 0.1
            assert track[:, 1].max() + head <= 1.0
            way = np.linalg.norm(track[-1, :2] - track[0, :2])
            assert way == 0 or way >= 0.35


def test_paints_differ_from_each_other_and_from_their_stage() -> None:
    lab = {name: to_lab(np.array(paint)) for name, paint in PALETTE.items()}
    for one in PALETTE:
        for other in PALETTE:
            assert one == other or np.linalg.norm(lab[one] - lab[other]) > 25
    for name, drop in BACKDROPS.items():
        assert len(VISIBLE_ON[name]) >= 8
        floor = to_lab(np.array(drop.floor))
        assert all(np.linalg.norm(lab[paint] - floor) >= MIN_CONTRAST for paint in VISIBLE_ON[name])


def test_a_mix_restricts() -> None:
    mix = SceneMix(
        objects=(1.0,), motions={"left": 1.0}, shapes=("ball",), sizes=("large",), backgrounds=("night",)
    )
    for seed in range(30):
        (shot,) = sample_scene(seed, mix).shots
        (body,) = shot.bodies
        assert (shot.background, body.shape, body.size) == ("night", "ball", "large")
        assert body.path[0][3] < 0


def test_cuts_fall_on_the_borders_of_latent_frames() -> None:
    mix = SceneMix(plays={"story": 1.0})
    for seed in range(20):
        scene = sample_scene(seed, mix)
        assert 2 <= len(scene.shots) <= 3
        for view in (WIDE, View(64, 64, 33, 16.0), View(96, 64, 49, 24.0), View(64, 64, 5), View(64, 64, 1)):
            takes = scene.takes(view)
            assert [span.start for _, span in takes[1:]] == [span.stop for _, span in takes[:-1]]
            assert (takes[0][1].start, takes[-1][1].stop) == (0, view.frames)
            assert all(span.start % 4 == 1 for _, span in takes[1:])
        assert len(scene.takes(WIDE)) == len(scene.shots)


def test_a_story_keeps_its_character() -> None:
    for seed in range(20):
        bodies = [shot.bodies[0] for shot in sample_scene(seed, SceneMix(plays={"story": 1.0})).shots]
        assert len({(body.shape, body.colour, body.hat, body.eyes) for body in bodies}) == 1
        assert bodies[0].hat is not None
        assert bodies[0].eyes in (1, 2, 3)


def test_cameras_rest_after_their_move() -> None:
    camera = Camera("zoom in", zoom=0.5, rate=0.3, vx=0.1, until=2.0)
    late = camera.at(np.array([2.0, 50.0]))
    assert np.array_equal(late[0], late[1])
    assert late[0] == pytest.approx((0.2, 0.0, 0.5 * np.exp(0.6)))


def test_views_are_not_empty() -> None:
    with pytest.raises(InputError, match="positive"):
        View(0, 64, 17)
    assert View(80, 48, 1).unit == 48
