"""Distilled models: their presets, told by folders and names, and the run against loops written out."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from mutoscope import Request, load
from mutoscope.errors import InputError
from mutoscope.generation.generate import resolve
from mutoscope.generation.request import SAMPLERS, request_of
from mutoscope.generation.sampling import STEP_APART, address_noise, grid_of, sample
from mutoscope.weights.card import Defaults
from mutoscope.weights.few_steps import DISTILLED_PIPELINE, FEW_STEPS, distilled, few_steps, preset_of
from mutoscope.weights.store import read_card
from mutoscope.weights.wan_settings import SETTINGS
from wan_models import DIT, PROMPT, SIZE, psnr, refilled, their_parts, write_model


@pytest.mark.parametrize("name", FEW_STEPS)
def test_presets_are_levels_that_fall_and_samplers_that_exist(name: str) -> None:
    preset = few_steps(name)
    request = Request("a cat", sigmas=preset.sigmas, sampler=preset.sampler, guidance=1.0)
    assert request.sampler in SAMPLERS
    assert preset.sigmas[0] == 1.0


def test_the_levels_of_lightx2v_are_even_ones_shifted_by_5_and_change_experts_in_the_middle() -> None:
    shifted = [5 * t / (1 + 4 * t) for t in (1.0, 0.75, 0.5, 0.25)]
    assert FEW_STEPS["lightx2v"].sigmas == pytest.approx(shifted)
    for model in ("wan2.2-t2v-a14b", "wan2.2-i2v-a14b"):
        boundary = SETTINGS[model].boundary
        assert boundary is not None
        assert [sigma >= boundary for sigma in shifted] == [True, True, False, False]


def test_names_speak_of_presets() -> None:
    for name, preset in (
        ("Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32.safetensors", "lightx2v"),
        ("Wan2.2-Lightning_T2V-A14B-4steps-lora_HIGH_fp16.safetensors", "lightx2v"),
        ("Wan21_CausVid_14B_T2V_lora_rank32.safetensors", "causvid"),
        ("FastWan2.1-T2V-1.3B-Diffusers", "fastwan"),
        ("Wan2.1-T2V-1.3B-Diffusers", None),
    ):
        assert preset_of(name) == preset
    with pytest.raises(InputError, match="'turbo'; choose one of lightx2v"):
        few_steps("turbo")


def test_defaults_of_a_distilled_model() -> None:
    own = Defaults(width=832, steps=50, guidance=6.0)
    assert distilled(own, {"_class_name": "WanPipeline"}) == own
    assert distilled(own, {}) == own
    made = distilled(own, {"_class_name": DISTILLED_PIPELINE})
    assert (made.width, made.steps, made.guidance, made.sampler) == (832, 3, 1.0, "renoise")
    assert made.sigmas == (1.0, 0.757, 0.522)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("wan") / "Fast"
    dit = diffusers.WanTransformer3DModel(**DIT)
    return write_model(place, {"_class_name": DISTILLED_PIPELINE}, transformer=dit)


@torch.no_grad()
def written_out(folder: Path, request: Request, noise: list[torch.Tensor], anew: bool) -> torch.Tensor:
    """The levels of the recipe by diffusers' transformer, in a loop: anew with fresh noise, else along the velocity."""
    import diffusers

    parts = their_parts(folder)
    transformer = refilled(diffusers.WanTransformer3DModel(**DIT), folder / "transformer")
    pipeline = diffusers.WanPipeline(transformer=transformer, **parts)
    text = pipeline._get_t5_prompt_embeds(request.prompt, max_sequence_length=512)
    levels, z = [*request.sigmas, 0.0], noise[0]
    for step, (here, there) in enumerate(pairwise(levels), start=1):
        velocity: Any = transformer(z, torch.tensor([1000 * here]), text, return_dict=False)[0]
        x0 = z - here * velocity
        if anew:
            z = (1 - there) * x0 + there * noise[step] if there else x0
        else:
            z = z + (there - here) * velocity
    return z


@pytest.mark.parametrize("name", ["lightx2v", "fastwan"])
def test_a_run_of_few_steps_is_the_loop_of_its_authors(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    from types import SimpleNamespace

    import diffusers

    module = vars(sys.modules[diffusers.WanPipeline.__module__])
    monkeypatch.setitem(module, "ftfy", module.get("ftfy", SimpleNamespace(fix_text=str)))
    model, preset = load(folder), few_steps(name)
    asked = {key: value for key, value in SIZE.items() if key not in ("steps", "guidance")}
    request = Request(PROMPT, sigmas=preset.sigmas, sampler=preset.sampler, guidance=1.0, **asked)
    recipe = resolve(model, request)
    assert recipe.steps == len(preset.sigmas)
    found = sample(model, [recipe]).latent_BCTHW
    grid = grid_of(model, recipe)
    noise = [address_noise(model, [recipe], grid, step * STEP_APART) for step in range(4)]
    assert float((noise[0] * noise[1]).mean().abs()) < 0.2
    assert psnr(found, written_out(folder, request, noise, preset.sampler == "renoise")) >= 60


def test_a_distilled_folder_is_sampled_as_it_was_trained(folder: Path) -> None:
    model = load(folder)
    assert read_card(folder).defaults == model.card.defaults
    recipe = resolve(model, Request(PROMPT, width=32, height=48, frames=5, seed=1))
    assert (recipe.steps, recipe.guidance, recipe.sampler) == (3, 1.0, "renoise")
    assert recipe.sigmas == FEW_STEPS["fastwan"].sigmas
    assert resolve(model, request_of(recipe)) == recipe
    assert resolve(model, replace(request_of(recipe), sigmas=())) == recipe  # as the server asks for it
    other = resolve(model, Request(PROMPT, width=32, height=48, frames=5, seed=1, steps=8, sampler="euler"))
    assert (other.steps, other.sigmas) == (8, ())
    assert resolve(model, request_of(other)) == other
    json.dumps(recipe.sigmas)


@pytest.mark.parametrize("sigmas", [(0.5, 0.7), (1.2, 0.5), (1.0, 0.0), (1.0, 1.0), (float("nan"),), (-0.1,)])
def test_levels_that_do_not_fall_are_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="do not fall"):
        Request(sigmas=sigmas)


def test_levels_are_steps() -> None:
    with pytest.raises(InputError, match="3 noise levels and 4 steps"):
        Request(sigmas=(1.0, 0.7, 0.4), steps=4)
