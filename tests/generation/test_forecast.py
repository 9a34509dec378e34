"""What tasks are said to cost: what is drawn counts, what stays is only written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mutoscope.generation.cards import Card, Storyboard
from mutoscope.generation.choice import usual_candidates
from mutoscope.generation.continuations import settled
from mutoscope.generation.forecast import forecast, forecast_storyboard
from mutoscope.generation.plan import PIXEL_DISK, Plan, plan
from mutoscope.generation.request import Request, Task, file_sha256, fill, join
from mutoscope.video import Video, write_video
from mutoscope.weights.store import Model, load


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (13, 32, 32, 3), np.uint8)
    return write_video(tmp_path_factory.mktemp("clips") / "a.mp4", Video(frames, 8.0))


def test_what_stays_is_written_and_not_drawn(model: Model, clip: Path) -> None:
    task = Task("extend", str(clip), file_sha256(clip))
    recipe, staying = settled(model, Request("a ball", frames=8, candidates=1), task)
    assert (recipe.frames, staying) == (21, 13)
    cost = forecast(model, recipe, staying)
    assert cost.written == 21 * 32 * 32
    assert cost.disk == int(PIXEL_DISK * cost.written)
    window = plan(model, replace(recipe, task=None, frames=1 + 8 + 8))
    assert (cost.sampling, cost.decoding) == (window.sampling, window.decoding)
    several = forecast(model, replace(recipe, candidates=12), staying)
    assert several.sampling > cost.sampling
    assert several.decoding > cost.decoding
    assert several.calling > cost.calling
    longer, _ = settled(model, Request("a ball", frames=80, candidates=1), task)
    assert forecast(model, longer, staying).sampling > 2 * cost.sampling


def test_a_recut_draws_both_sides_of_what_stays(model: Model, clip: Path) -> None:
    task = Task("recut", str(clip), file_sha256(clip), keep=(0.5, 1.25))
    recipe, staying = settled(model, Request(candidates=1), task)
    assert (recipe.frames, staying) == (13, 6)
    assert forecast(model, recipe, staying).written == 13 * 32 * 32


def test_what_begins_in_the_middle_takes_fewer_steps(model: Model, clip: Path) -> None:
    def edit(strength: float) -> float:
        task = Task("edit", str(clip), file_sha256(clip), strength=strength)
        recipe, staying = settled(model, Request("a box", steps=20), task)
        assert staying == 0
        return forecast(model, recipe, staying).sampling

    assert edit(0.3) < edit(0.9)
    costs = []
    for verb in ("interpolate", "blend"):
        recipe, staying = settled(model, Request(frames=7, steps=20, candidates=4), join(verb, clip, clip))
        assert staying == 26
        costs.append(forecast(model, recipe, staying).sampling)
    assert costs[1] < costs[0]


def test_a_storyboard_costs_its_shots_and_the_prompts_that_are_mixed(model: Model) -> None:
    def cost(*cards: Card) -> Plan:
        return forecast_storyboard(model, Storyboard(cards, 4.0, 32, 32))

    first = Card(0.0, "a red ball")
    alone, two = cost(first), cost(first, Card(1.0, "a blue box", cut=True))
    assert alone.written == two.written == 32 * 32 * 32
    whole = fill(Request(width=32, height=32), model.card.defaults)
    shots = [
        plan(model, replace(whole, frames=frames, candidates=usual_candidates(model, whole)))
        for frames in (8, 24)
    ]
    assert two.sampling == sum(shot.sampling for shot in shots)
    assert two.memory == max(shot.memory for shot in shots)
    assert cost(first, Card(2.5, "a star", cut=False)).calling > alone.calling
