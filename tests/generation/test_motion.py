"""Motion of clips whose motion is known, and the choice of the noise that goes on with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.diffusion.sampler import StepInfo
from mutoscope.generation import conditions, motion
from mutoscope.generation.continuations import carry_out, settle
from mutoscope.generation.generate import decode, grid_of, sample
from mutoscope.generation.motion import TRIALS, jump, seams_of, shown_with, smoothest, usual_trials, velocity
from mutoscope.generation.request import MOTION_STEPS, Recipe, Request, Task, file_sha256, join
from mutoscope.generation.sampling import Start
from mutoscope.video import Video, read_video, to_frames
from mutoscope.weights.store import Model, load
from mutoscope.world.render import render
from mutoscope.world.scene import View, sample_scene


def drifting(down: float, right: float, side: int = 64, frames: int = 4) -> np.ndarray:
    """A bright smooth blob of a tenth of the side on a grey ground, uint8 (frames, side, side, 3)."""
    rows, columns = np.mgrid[:side, :side]
    shots = []
    for t in range(frames):
        row, column = side * 0.4 + down * t, side * 0.4 + right * t
        disc = 1 / (1 + np.exp(np.hypot(rows - row, columns - column) - side / 10))
        shots.append(90 + np.stack([disc * 120, disc * 20, -disc * 60], axis=-1))
    return np.rint(shots).astype(np.uint8)


@pytest.mark.parametrize("moved", [(0.0, 0.0), (2.0, 0.0), (0.0, -1.5), (1.3, 0.7), (-3.4, 4.9)])
def test_velocity_is_found_between_pixels(moved: tuple[float, float]) -> None:
    assert velocity(drifting(*moved)) == pytest.approx(moved, abs=0.15)


def test_velocity_is_of_the_small_picture() -> None:
    """Twice the side, twice the pixels: the same part of the picture a frame."""
    assert velocity(drifting(4.0, 2.0, side=128)) == pytest.approx((2.0, 1.0), abs=0.15)
    wide = np.pad(drifting(0.0, 4.0, side=64), ((0, 0), (0, 0), (0, 64), (0, 0)), mode="edge")
    assert velocity(wide) == pytest.approx((0.0, 2.0), abs=0.15)


def test_velocity_of_things_of_the_world() -> None:
    """Balls and boxes before their backgrounds, against where the physics puts them."""
    view, errors = View(64, 64, 4, 8.0), []
    seed = 0
    while len(errors) < 12:
        seed += 1
        scene = sample_scene(seed)
        body = scene.shots[0].bodies[0]
        if len(scene.shots[0].bodies) > 1 or len(body.path) > 1:
            continue
        true = np.array(body.path[0][3:5])  # stage units a second, 64 pixels each, y up
        found = np.array(velocity(to_frames(render([scene], view)[0])))
        errors.append(np.linalg.norm(found - [-true[1] * 64 / 8, true[0] * 64 / 8]))
    assert np.median(errors) < 0.15, errors


def test_a_single_colour_does_not_move() -> None:
    assert velocity(np.full((4, 64, 64, 3), 130, np.uint8)) == (0.0, 0.0)


def test_a_jump_is_a_change_of_velocity() -> None:
    steady = drifting(0.0, 2.0, frames=9)
    faster = np.concatenate([steady[:5], drifting(0.0, 3.0, frames=9)[5:]])
    assert jump(steady, 5, 4) < 0.1
    assert jump(faster, 5, 4) == pytest.approx(0.5, abs=0.1)
    assert jump(faster, 5, 4, known_first=False) == pytest.approx(1 / 3, abs=0.1)


def test_seams_are_where_known_meets_made() -> None:
    yes, no = True, False
    assert seams_of([yes, yes, yes, no, no]) == [2]
    assert seams_of([no, no, yes, yes]) == [1]
    assert seams_of([yes, no, no]) == []  # a picture shows no motion
    assert seams_of([yes, yes, no, no, yes, yes]) == [1, 3]
    assert seams_of([no] * 5) == []


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    """One whose default is to try several noises."""
    model = load(model_folder)
    defaults = replace(model.card.defaults, candidates=4)
    return replace(model, card=replace(model.card, defaults=defaults))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    Video(drifting(0.0, 1.0, side=32, frames=13), 8.0).save(path)
    return path


def settled(model: Model, clip: Path, **change: object) -> Recipe:
    task = Task("extend", str(clip), file_sha256(clip))
    return settle(model, Request("a red ball", frames=8, seed=3, **change), task)


@pytest.mark.parametrize("backward", [False, True])
def test_the_trial_wins_that_is_smoothest_to_see(model: Model, clip: Path, backward: bool) -> None:
    """Known frames are as given: backward the first takes the place of a drawn one, so the seam is before it."""
    recipe = replace(settled(model, clip, candidates=5), frames=21, seed=8)
    grid = grid_of(model, recipe)
    given_THWC = read_video(clip).frames_THWC[-9:]
    place = 12 if backward else 0
    known = torch.from_numpy(given_THWC).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    condition = conditions.frames(model.vae, grid, {4 if backward else 0: known})
    jumps = []
    for index in range(5):
        trial = replace(recipe, steps=recipe.trial_steps, candidates=1, kept=index)
        latent_CTHW = sample(model, [trial], None, condition).latent_BCTHW[0]
        frames_THWC = np.concatenate(list(decode(model, trial, latent_CTHW)))
        frames_THWC[place : place + 9] = given_THWC
        jumps.append(jump(frames_THWC, 12 if backward else 9, 4, not backward))
    best = int(np.argmin(jumps))
    assert best != 0  # else this test tells nothing: take another seed
    assert len(set(jumps)) > 1
    given = {place: given_THWC}
    assert smoothest(model, recipe, condition, None, 0, None, given) == replace(recipe, kept=best)
    start = Start(condition.latent_BCTHW, 0.6)  # as of a blend
    assert smoothest(model, recipe, condition, start, 0, None, given).candidates == 5
    blank = conditions.text(model.vae, grid)
    assert smoothest(model, recipe, blank, None, 0, None, {}) == replace(recipe, candidates=1)
    with pytest.raises(KeyboardInterrupt):
        smoothest(model, recipe, condition, None, 0, lambda info: False, given)


def test_trials_end_when_one_is_smooth(model: Model, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Round after round, and the best so far when none is; progress never goes back."""
    recipe = replace(settled(model, clip, candidates=8), frames=21)
    given = {0: read_video(clip).frames_THWC[-9:]}
    known = torch.from_numpy(given[0]).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    condition = conditions.frames(model.vae, grid_of(model, recipe), {0: known})
    monkeypatch.setattr(motion, "ROUND", 3)

    def tried(smooth: float, *jumps: float) -> tuple[int, int]:
        """The trial that is kept and how many there were, if trials have these jumps."""
        measured, seen = iter(jumps), []
        monkeypatch.setattr(motion, "SMOOTH", smooth)
        monkeypatch.setattr(motion, "jump", lambda *about: next(measured))
        steps: list[int] = []
        kept = smoothest(model, recipe, condition, None, 0, lambda info: steps.append(info.step), given).kept
        assert steps == sorted(steps)
        seen += measured
        return kept, len(jumps) - len(seen)

    jumps = (0.5, 0.2, 0.3, 0.4, 0.4, 0.1, 0.05, 0.3)
    assert tried(0.25, *jumps) == (1, 3)
    assert tried(0.1, *jumps) == (5, 6)
    assert tried(0.01, *jumps) == (6, 8)


def test_given_frames_are_seen_in_their_places() -> None:
    drawn = np.zeros((9, 1, 1, 3), np.uint8)
    first, last = drawn[:5] + 1, drawn[:4] + 2
    seen, given = shown_with(drawn, {4: first, 14: last}, frame0=8)
    assert seen[:, 0, 0, 0].tolist() == [1, 0, 0, 0, 0, 0, 2, 2, 2]
    assert given.tolist() == [True, *[False] * 5, *[True] * 3]
    assert not drawn.any()
    seen, given = shown_with(drawn, {100: first}, frame0=0)
    assert not given.any()
    assert np.array_equal(seen, drawn)


def test_who_tries_how_many(model: Model, clip: Path) -> None:
    recipe = settled(model, clip)
    assert recipe.candidates == TRIALS
    assert recipe.trial_steps == min(recipe.steps, MOTION_STEPS)
    assert settled(model, clip, candidates=3).candidates == 3
    assert settled(model, clip, width=256, height=256).candidates == 1
    assert usual_trials(model, replace(recipe, width=512)) == 1
    assert settle(model, Request("x", frames=7), join("blend", clip, clip)).candidates == TRIALS
    edit = Task("edit", str(clip), file_sha256(clip), strength=0.5)
    assert settle(model, Request("x"), edit).candidates == 1
    alone = replace(model, card=replace(model.card, defaults=replace(model.card.defaults, candidates=1)))
    assert settled(alone, clip).candidates == 1


def test_the_clip_is_that_of_the_noise_that_was_kept(model: Model, clip: Path) -> None:
    """Carried out twice, and with the noise named, it is the same clip; progress counts trials and steps to the end."""
    seen: list[tuple[int, int]] = []
    recipe = settled(model, clip, candidates=5)

    def report(info: StepInfo) -> bool:
        seen.append((info.step, info.steps))
        return True

    video = carry_out(model, recipe, report)
    assert seen[-1][0] == seen[-1][1] == recipe.trial_steps + recipe.steps
    assert [step for step, _ in seen] == sorted(step for step, _ in seen)
    assert np.array_equal(carry_out(model, recipe).frames_THWC, video.frames_THWC)
    assert video.recipe is not None
    assert video.recipe["recipe"]["candidates"] == 5
    alone = [carry_out(model, replace(recipe, candidates=1, kept=index)).frames_THWC for index in range(5)]
    same = [index for index, frames in enumerate(alone) if np.array_equal(frames, video.frames_THWC)]
    assert len(same) == 1
