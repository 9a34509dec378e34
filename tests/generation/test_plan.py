"""Costs grow as they should, and what is too much is answered with what fits."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.generation import plan as planning
from mutoscope.generation.plan import card_memory, largest_that_fits, plan, readable, seconds
from mutoscope.generation.request import Recipe, Request, fill
from mutoscope.models.dit import DIT_PRESETS
from mutoscope.models.wan_vae import WAN_VAE_PRESETS, WanVAE
from mutoscope.weights.residence import Placement, Weights, linear_layers, on_card
from mutoscope.weights.store import Model, load
from mutoscope.weights.wan_layouts import blank_dit
from mutoscope.weights.wan_settings import SETTINGS


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.fixture
def recipe(model: Model) -> Recipe:
    return fill(Request(width=256, height=128, frames=17, steps=10, seed=1), model.card.defaults)


def test_operations_follow_steps_branches_and_sampler(model: Model, recipe: Recipe) -> None:
    decoding = plan(model, replace(recipe, steps=0)).operations
    sampling = plan(model, recipe).operations - decoding
    assert sampling > 0
    for change, factor in (({"steps": 20}, 2), ({"guidance": 1.0}, 0.5), ({"sampler": "heun"}, 2)):
        assert plan(model, replace(recipe, **change)).operations - decoding == pytest.approx(
            factor * sampling
        )
    assert 0 < seconds(plan(model, recipe)) < 60


def test_many_pixels_take_as_long_as_they_do_here(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are reckoned from the matmul; how fast many are written is measured."""
    rates = {True: 2e6, False: 4e6}
    monkeypatch.setattr(planning, "matmul_rate", lambda probe: 1e12)
    monkeypatch.setattr(planning, "pixel_rate", lambda enlarged: rates[enlarged])
    asked = Request(width=1920, height=1080, seconds=60.0, steps=1, draft=(128, 72))
    large = plan(model, fill(asked, model.card.defaults))
    assert large.written == 480 * 1920 * 1080
    work = large.sampling / planning.MATMUL_SHARE + large.decoding / planning.DECODE_SHARE + large.calling
    assert seconds(large) == pytest.approx(work / 1e12 + large.written / 2e6)
    plain = replace(large, enlarged=False)
    assert seconds(plain) == pytest.approx(work / 1e12 + large.written / 4e6)
    few = replace(plain, written=1000)
    assert seconds(few) == pytest.approx((work + 1000 * planning.WRITE_OPERATIONS) / 1e12)

    def full(enlarged: bool) -> float:
        raise InputError("no room")

    monkeypatch.setattr(planning, "pixel_rate", full)
    assert seconds(plain) == pytest.approx((work + plain.written * planning.WRITE_OPERATIONS) / 1e12)


def test_trials_are_called_as_one_batch(model: Model, recipe: Recipe) -> None:
    one, four = (plan(model, replace(recipe, candidates=count)) for count in (1, 4))
    steps = replace(recipe, candidates=4).trial_steps
    assert four.sampling == pytest.approx(one.sampling * (10 + 4 * steps) / 10)
    assert four.calling == pytest.approx(one.calling * (10 + steps) / 10)


def test_the_speed_of_this_machine_is_measured() -> None:
    assert planning.matmul_rate(0.0) > 1e6
    for enlarged in (True, False):
        assert 1e5 < planning.pixel_rate(enlarged) < 1e10


def test_the_offered_size_fits_and_the_next_one_does_not(model: Model, recipe: Recipe) -> None:
    free = plan(model, recipe).memory // 3
    fitting = largest_that_fits(model, recipe, free)
    assert fitting is not None
    assert plan(model, fitting).memory <= free
    assert fitting.width == pytest.approx(2 * fitting.height, abs=32)
    larger = replace(fitting, width=fitting.width + 16, height=fitting.height + 16)
    assert plan(model, larger).memory > free
    assert largest_that_fits(model, recipe, 0) is None


def test_refusal_names_need_and_remedy(model: Model, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    need = plan(model, recipe).memory
    monkeypatch.setattr(planning, "free_memory", lambda device: need)
    planning.refuse_what_does_not_fit(model, recipe)
    monkeypatch.setattr(planning, "free_memory", lambda device: need - 1)
    with pytest.raises(InputError, match=rf"256x128 .* needs about {readable(need)}.*fits at this length"):
        planning.refuse_what_does_not_fit(model, recipe)
    monkeypatch.setattr(planning, "free_memory", lambda device: 0)
    with pytest.raises(InputError, match="shorter clip"):
        planning.refuse_what_does_not_fit(model, recipe)


def test_free_memory_is_some_of_this_machine() -> None:
    assert 0 < planning.free_memory(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "1 MiB"), (80 * 2**20, "80 MiB"), (2**31, "2.0 GiB"), (2**53, "8192 TiB")]
)
def test_bytes_for_people(amount: int, text: str) -> None:
    assert readable(amount) == text


def large(experts: int = 1, weights: Weights = "exact") -> tuple[Any, Placement]:
    """A model of 14 billions on the meta device, and what of it is to be placed."""
    dit = blank_dit(DIT_PRESETS["wan2.1-t2v-14b"])
    numbers = sum(one.numel() for one in dit.parameters())
    matrices = sum(layer.weight.numel() for _, layer in linear_layers(dit))
    with torch.device("meta"):
        vae = WanVAE(WAN_VAE_PRESETS["wan2.1-vae"])
    card = SimpleNamespace(defaults=SETTINGS["wan2.1-t2v-14b"].defaults)
    text = round(10.6 * 2**30)
    here = Placement("late", text, experts * numbers, experts * matrices, 2**29, torch.float32, weights)
    return SimpleNamespace(vae=vae, dit=dit, card=card, placement=None), here


@pytest.mark.parametrize(
    ("card", "size", "experts", "weights", "residence"),
    [
        (80, (1280, 720), 1, "exact", "memory"),
        (80, (1280, 720), 2, "exact", "late"),
        (48, (832, 480), 1, "exact", "late"),
        (24, (832, 480), 1, "exact", "file"),
        (24, (1280, 720), 1, "exact", "file"),
        (24, (1280, 720), 2, "exact", "file"),
        (24, (832, 480), 1, "int8", "late"),
        (32, (1280, 720), 1, "int8", "late"),
        (48, (832, 480), 2, "int8", "late"),
    ],
)
def test_models_of_14_billions_fit_cards_of_80_to_24_gib(
    card: int, size: tuple[int, int], experts: int, weights: Weights, residence: str
) -> None:
    """By prediction; the small card takes block after block from the file, or holds one transformer in 8 bits."""
    model, here = large(experts, weights)
    recipe = fill(Request("a cat", width=size[0], height=size[1]), model.card.defaults)
    free = card * 2**30 - planning.CARD_RESERVE
    there = on_card(here, free)
    assert there.residence == residence
    each = 2.0 if weights == "exact" else 1.15
    assert there.transformer == pytest.approx(each * experts * 14.29e9, rel=0.01)
    needed = partial(card_memory, model, placement=there)
    planning.refuse_above(model, recipe, free, needed)
    assert needed(recipe) > 2**30 + (there.transformer if residence != "file" else 0)
    assert needed(replace(recipe, width=recipe.width // 2)) <= needed(recipe)
    with pytest.raises(InputError, match=r"3840x2160 .* fits at this length"):
        planning.refuse_above(model, replace(recipe, width=3840, height=2160), free, needed)
    assert ("8 bits and bfloat16" if weights == "int8" else "in bfloat16") in planning.told(there)


def test_the_two_branches_of_large_clips_take_turns() -> None:
    model, _ = large()
    recipe = fill(Request("a cat", width=832, height=480, frames=9), model.card.defaults)
    for frames, times in ((9, 2), (81, 1)):
        guided = replace(recipe, frames=frames)
        one = planning.working(model, replace(guided, guidance=1.0), True, 2)[0]
        assert planning.working(model, guided, True, 2)[0] == times * one


def test_8_bits_are_offered_where_they_would_fit_in_memory_and_exact_weights_do_not() -> None:
    model, here = large()
    recipe = fill(Request("a cat", width=832, height=480), model.card.defaults)

    def offered(card: int) -> str:
        free = card * 2**30 - planning.CARD_RESERVE
        placement = on_card(here, free)
        return planning.in_8_bits(placement, free, partial(card_memory, model, recipe))

    assert "--weights int8 takes 15.2 GiB" in offered(24)
    assert "off by 0.5 %" in offered(24)
    assert offered(80) == offered(16) == ""


def test_weights_in_8_bits_that_do_not_fit_may_stay_in_their_file() -> None:
    model, here = large(weights="int8")
    recipe = fill(Request("a cat", width=832, height=480), model.card.defaults)
    free = 16 * 2**30
    model.placement = on_card(here, free)
    with pytest.raises(InputError, match="or leave out --weights int8"):
        planning.refuse_above(model, recipe, free, partial(card_memory, model, placement=model.placement))
