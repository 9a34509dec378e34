"""Groups: all recipes once, none together that differ in what a batch shares, none larger than memory."""

from dataclasses import replace
from pathlib import Path

import pytest

from mutoscope.generation.generate import resolve
from mutoscope.generation.groups import LARGEST, groups
from mutoscope.generation.plan import plan
from mutoscope.generation.request import Recipe, Request
from mutoscope.weights.store import Model, load


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder)


@pytest.fixture(scope="module")
def recipe(model: Model) -> Recipe:
    return resolve(model, Request("a red ball", 32, 32, 9, seed=1))


def test_words_and_noise_may_differ_shape_and_setting_may_not(model: Model, recipe: Recipe) -> None:
    same = [
        recipe,
        replace(recipe, prompt="x", expanded_prompt="x", seed=2, negative="y", kept=3, candidates=4),
    ]
    others = [replace(recipe, width=48), replace(recipe, guidance=1.0), replace(recipe, steps=5)]
    assert groups(model, [same[0], others[0], same[1], *others[1:]]) == [[0, 2], [1], [3], [4]]


def test_large_groups_are_cut(model: Model, recipe: Recipe) -> None:
    cut = groups(model, [recipe] * (2 * LARGEST + 3))
    assert [len(group) for group in cut] == [LARGEST, LARGEST, 3]
    assert [index for group in cut for index in group] == list(range(2 * LARGEST + 3))


def test_memory_limits_them(model: Model, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    need = plan(model, recipe).memory
    monkeypatch.setattr("mutoscope.generation.groups.free_memory", lambda _: 3 * need)
    assert [len(group) for group in groups(model, [recipe] * 7)] == [3, 3, 1]
    monkeypatch.setattr("mutoscope.generation.groups.free_memory", lambda _: 0)
    assert [len(group) for group in groups(model, [recipe] * 2)] == [1, 1]


def test_with_a_step_cache_each_is_alone(model: Model, recipe: Recipe) -> None:
    assert groups(model, [replace(recipe, step_cache=0.1)] * 3) == [[0], [1], [2]]
