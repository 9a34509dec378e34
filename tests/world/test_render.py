"""Pixels of the world: pure in (scene, time, view), batched, on the promised colours."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mutoscope.world.palette import BACKDROPS, PALETTE, to_lab
from mutoscope.world.physics import straight
from mutoscope.world.render import object_mask, render, render_with_mask
from mutoscope.world.scene import (
    BACKGROUNDS,
    CAMERAS,
    EVERYTHING,
    SHAPES,
    Body,
    Camera,
    Scene,
    SceneMix,
    Shot,
    View,
    sample_scene,
)

SMALL = View(48, 48, 5)


def alone(shape: str, colour: str, background: str = "lavender", **camera: float) -> Scene:
    body = Body(shape, colour, "large", 0.38, straight(0.0, 0.6), "hang")
    kind = "pan left" if camera else "static"
    return Scene(0, (Shot(background, (body,), 1.0, camera=Camera(kind, until=1.0, **camera)),))


def many(count: int, seed: int = 0) -> list[Scene]:
    return [sample_scene(seed + k, EVERYTHING) for k in range(count)]


def test_range_and_shape() -> None:
    video, mask = render_with_mask(many(12), View(80, 48, 5))
    assert video.shape == (12, 3, 5, 48, 80)
    assert mask.shape == (12, 1, 5, 48, 80)
    assert video.dtype == torch.float32
    assert -1 <= video.min() <= video.max() <= 1
    assert 0 <= mask.min() <= mask.max() <= 1


def test_a_batch_equals_its_clips_alone() -> None:
    scenes = many(12, seed=100)
    whole = render(scenes, SMALL)
    for k, scene in enumerate(scenes):
        assert torch.allclose(whole[k], render([scene], SMALL)[0], atol=1e-5)


def test_a_frame_depends_on_its_time_only() -> None:
    scenes = [sample_scene(seed, SceneMix(cameras=dict.fromkeys(CAMERAS, 1.0))) for seed in range(8)]
    long = render(scenes, View(48, 48, 9, 16.0))
    assert torch.allclose(long[:, :, :3], render(scenes, View(48, 48, 3, 16.0)), atol=1e-5)
    assert torch.allclose(long[:, :, ::2], render(scenes, View(48, 48, 5, 8.0)), atol=1e-5)


def test_a_wider_view_shows_the_same_square_in_its_middle() -> None:
    scenes = [sample_scene(seed) for seed in range(6)]
    square = render(scenes, View(48, 48, 3))
    assert torch.allclose(render(scenes, View(80, 48, 3))[..., 16:-16], square, atol=1e-5)
    assert torch.allclose(render(scenes, View(48, 80, 3))[..., 16:-16, :], square, atol=1e-5)


def test_sizes_agree_on_the_scene() -> None:
    scenes = [sample_scene(seed) for seed in range(6)]
    large, small = render(scenes, View(96, 96, 2)), render(scenes, View(48, 48, 2))
    pooled = torch.nn.functional.avg_pool3d(large, (1, 2, 2))
    assert (pooled - small).abs().mean() < 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_mask_covers_the_area_of_the_shape(shape: str) -> None:
    """Analytic area of each cut-out within 2 %: anti-aliasing neither grows nor shrinks it."""
    d = 0.38
    areas = {
        "ball": np.pi * 0.25,
        "box": 0.9**2 - (4 - np.pi) * 0.04**2,
        "triangle": 3 * np.sqrt(3) * 0.325**2,
        "star": 5 * 0.62 * 0.31 * np.sin(np.pi / 5),
        "ring": np.pi * (0.52**2 - 0.27**2),
        "capsule": 4 * 0.32 * 0.30 + np.pi * 0.30**2,
    }
    mask = object_mask([alone(shape, "red")], View(96, 96, 1))
    assert float(mask.sum()) / 96**2 == pytest.approx(areas[shape] * d * d, rel=0.02)


@pytest.mark.parametrize("colour", sorted(PALETTE))
def test_the_middle_of_a_body_has_its_paint(colour: str) -> None:
    (video,) = render([alone("box", colour, "meadow")], View(64, 64, 1))
    middle = ((video[:, 0, 25, 32] + 1) * 127.5).numpy()
    assert np.linalg.norm(to_lab(middle) - to_lab(np.array(PALETTE[colour], float))) < 8


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backdrops_have_their_floor_and_no_grain(background: str) -> None:
    scene = Scene(0, (Shot(background, (), 1.0),))
    (video,) = render([scene], View(64, 64, 1))
    floor = ((video[:, 0, 57, 32] + 1) * 127.5).numpy()
    assert np.linalg.norm(to_lab(floor) - to_lab(np.array(BACKDROPS[background].floor, float))) < 10
    assert video.diff(dim=-1).abs().mean() < 0.02


def _centre(mask_HW: Tensor) -> tuple[float, float]:
    total = float(mask_HW.sum())
    height, width = mask_HW.shape
    x = float((mask_HW.sum(0) * (torch.arange(width) + 0.5)).sum()) / total
    y = float((mask_HW.sum(1) * (torch.arange(height) + 0.5)).sum()) / total
    return x, y


def test_a_camera_moves_the_picture_against_its_way() -> None:
    view = View(64, 64, 9)
    mask = object_mask([alone("ball", "red", vx=-0.2, zoom=0.5)], view)[0, 0]
    first, last = _centre(mask[0]), _centre(mask[-1])
    assert last[0] - first[0] == pytest.approx(0.2 * 0.5 * 64, abs=0.3)
    assert last[1] == pytest.approx(first[1], abs=0.1)
    still = object_mask([alone("ball", "red")], view)[0, 0]
    assert float(mask[0].sum()) == pytest.approx(float(still[0].sum()) / 4, rel=0.03)


def test_the_picture_follows_the_subject() -> None:
    mix = SceneMix(objects=(1.0,), motions={"right": 1.0}, cameras={"follow": 1.0})
    masks = object_mask([sample_scene(seed, mix) for seed in range(4)], View(64, 64, 17))
    for mask in masks[:, 0]:
        assert _centre(mask[0])[0] == pytest.approx(_centre(mask[-1])[0], abs=0.5)


def test_screens_hide_and_let_reappear() -> None:
    view, mix = View(64, 64, 17), SceneMix(plays={"behind": 1.0}, shapes=("ball", "box"))
    for seed in range(4):
        scene = sample_scene(seed, mix)
        actor = Scene(0, (Shot(scene.shots[0].background, scene.shots[0].bodies[:1], scene.shots[0].phase),))
        screen = Scene(0, (Shot(scene.shots[0].background, scene.shots[0].bodies[1:], scene.shots[0].phase),))
        both, alone_there, front = (object_mask([s], view)[0, 0] for s in (scene, actor, screen))
        seen = (both - front).clamp(min=0).sum((1, 2)) / alone_there.sum((1, 2))
        assert seen[0] > 0.95
        assert seen.min() < 0.05
        assert seen[-1] > 0.95


def test_styles_keep_the_place_and_change_the_look() -> None:
    body = alone("star", "cyan").shots
    looks = {
        style: render_with_mask([Scene(0, body, style)], SMALL) for style in ("paper", "outline", "neon")
    }
    assert torch.equal(looks["paper"][1], looks["neon"][1])
    assert looks["neon"][0].mean() < looks["paper"][0].mean() - 0.5
    assert (looks["outline"][0] - looks["paper"][0]).abs().mean() > 0.1


def test_empty_stage_and_no_scene() -> None:
    assert float(object_mask([Scene(0, (Shot("day", (), 0.0),))], SMALL).sum()) == 0
    assert render([], SMALL).shape == (0, 3, 5, 48, 48)
