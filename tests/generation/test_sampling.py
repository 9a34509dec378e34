"""The options of guidance and the step cache, with every kind of model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from mutoscope.config import from_dict, to_dict
from mutoscope.diffusion.fixed_shift import FixedShift
from mutoscope.diffusion.guidance import Kind
from mutoscope.errors import InputError
from mutoscope.generation import journal as journals
from mutoscope.generation import request as requests_of
from mutoscope.generation import sampling
from mutoscope.generation.conditions import Condition
from mutoscope.generation.generate import generate_many, resolve, sample, save
from mutoscope.generation.journal import Journal
from mutoscope.generation.reproduce import read_record, remake
from mutoscope.generation.request import Recipe, Request, fill, request_of
from mutoscope.generation.sampling import Branches, Embedded
from mutoscope.generation.shown import Shown
from mutoscope.models.dit import DIT_PRESETS, DiTConfig
from mutoscope.models.experts import Experts
from mutoscope.models.unet import UNet, UNetConfig
from mutoscope.models.vace import VaceConfig
from mutoscope.models.wan_image import ImageDiTConfig
from mutoscope.weights.card import Defaults
from mutoscope.weights.store import Model, load
from mutoscope.weights.wan_layouts import blank_dit

SHAPE: dict[str, Any] = {
    name: getattr(DIT_PRESETS["wan2.1-t2v-1.3b"], name) for name in DiTConfig.__dataclass_fields__
} | {"width": 36, "depth": 2, "heads": 2, "mlp_width": 52, "text_width": 14, "channels": 5}
WAN: dict[str, DiTConfig] = {
    "t2v": DiTConfig(**SHAPE),
    "i2v": ImageDiTConfig(**SHAPE | {"channels": 14}, out_channels=5, image_width=10),
    "i2v-a14b": ImageDiTConfig(**SHAPE | {"channels": 14}, out_channels=5),
    "vace": VaceConfig(**SHAPE, hinted=(0, 1), control_channels=11),
}
OWN = DiTConfig(width=32, depth=2, heads=2, mlp_width=64, text_width=14, channels=5)
KINDS = [*WAN, "experts", "own", "unet"]


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def transformer(kind: str, seed: int = 0) -> Any:
    """A random one of its kind."""
    if kind == "experts":
        return Experts(transformer("t2v"), transformer("t2v", 1), boundary=0.875)
    if kind == "unet":
        module: Any = UNet(UNetConfig(widths=(16, 24), blocks=1, heads=2, text_width=14, channels=5))
    else:
        module = blank_dit(OWN if kind == "own" else WAN[kind]).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale = 0.3 if parameter.ndim > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + ("norm" in name))
    return module.eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clips", [1, 2])
def test_the_prompts_alone_say_what_they_say_beside_the_negative_ones(
    kind: str, clips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In double precision: products of batches of other sizes are rounded differently, which some CPUs show.
    dit, process = transformer(kind).double(), FixedShift()
    model: Any = SimpleNamespace(dit=dit, process=process)
    text_BLD, mask_BL = drawn(2 * clips, 7, 14, seed=2), torch.ones(2 * clips, 7)
    mask_BL[0, 5:], mask_BL[-1, 2:] = 0, 0
    pictures = None
    if kind in ("i2v", "i2v-a14b"):
        pictures = Shown(drawn(clips, 9, 3, 4, 6, seed=3), drawn(clips, 7, 10) if kind == "i2v" else None)
    if kind == "vace":
        pictures = Shown(drawn(clips, 11, 3, 4, 6, seed=3))
    noise = drawn(clips, 5, 3, 4, 6, seed=4)
    condition = Condition(torch.zeros_like(noise), torch.zeros(clips, 3, dtype=torch.bool))
    mask = mask_BL.bool()
    branches = Branches(model, Embedded(text_BLD, mask), condition, 8.0, noise, pictures)
    alone = Branches(model, Embedded(text_BLD[:clips], mask[:clips]), condition, 8.0, noise, pictures)
    for level in (0.95, 0.4):
        sigma = torch.tensor(level)
        both, one = branches(noise, sigma, True), branches(noise, sigma, False)
        assert one.shape == noise.shape
        torch.testing.assert_close(one, both[:clips], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one, alone(noise, sigma, False), atol=1e-5, rtol=1e-5)
        assert (both[clips:] - one).abs().max() > 1e-3
        with monkeypatch.context() as patch:
            patch.setattr(sampling, "IN_TURN", 1)
            torch.testing.assert_close(branches(noise, sigma, True), both, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


BALL = Request("a red ball rolls", seed=3, steps=14, frames=9, width=32, height=32)


@pytest.fixture
def sizes(model: Model) -> Iterator[list[int]]:
    """The size of the batch of each call of the model."""
    seen: list[int] = []
    hook = model.dit.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    yield seen
    hook.remove()


def latents(model: Model, request: Request) -> Tensor:
    return sample(model, [resolve(model, request)]).latent_BCTHW


def test_outside_the_interval_one_branch_is_computed(model: Model, sizes: list[int]) -> None:
    narrow = latents(model, replace(BALL, guidance_interval=(0.3, 0.8)))
    assert sorted(set(sizes)) == [1, 2]
    assert sizes[0] == sizes[-1] == 1
    assert not torch.equal(narrow, latents(model, BALL))
    whole = latents(model, replace(BALL, guidance_interval=(0.0, 1.0)))
    assert torch.equal(whole, latents(model, BALL))
    never = latents(model, replace(BALL, guidance_interval=(0.51, 0.51)))
    torch.testing.assert_close(never, latents(model, replace(BALL, guidance=1.0)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"guidance_kind": "zero-star"}, {"guidance_kind": "apg"}])
def test_kinds_of_guidance_change_the_clip_and_not_the_unguided_one(
    model: Model, options: dict[str, Any]
) -> None:
    assert not torch.equal(latents(model, replace(BALL, **options)), latents(model, BALL))
    plain = replace(BALL, guidance=1.0)
    assert torch.equal(latents(model, replace(plain, **options)), latents(model, plain))


def test_zero_star_does_not_ask_for_the_first_steps(model: Model, sizes: list[int]) -> None:
    latents(model, replace(BALL, guidance_kind="zero-star", steps=50))
    assert len(sizes) == 48
    sizes.clear()
    latents(model, replace(BALL, guidance_kind="zero-star", steps=10))
    assert len(sizes) == 10


def test_a_step_cache_asks_less_often_and_stays_near(model: Model, sizes: list[int]) -> None:
    exact, asked, errors = latents(model, BALL), [], []
    for threshold in (1e-9, 0.1, 0.4):
        sizes.clear()
        errors.append(float((latents(model, replace(BALL, step_cache=threshold)) - exact).abs().mean()))
        asked.append(len(sizes))
    assert asked[0] == 14
    assert errors[0] == 0.0
    assert asked[0] > asked[1] > asked[2]
    assert 0 < errors[1] < errors[2]
    assert torch.equal(
        latents(model, replace(BALL, step_cache=0.4)), latents(model, replace(BALL, step_cache=0.4))
    )


def test_with_a_step_cache_clips_do_not_depend_on_their_neighbours(model: Model) -> None:
    requests = [replace(BALL, step_cache=0.3, seed=seed) for seed in (1, 2)]
    one, other = generate_many(model, requests)
    alone = generate_many(model, requests[1:])[0]
    assert (other.frames_THWC == alone.frames_THWC).all()
    assert not (one.frames_THWC == other.frames_THWC).all()


@pytest.mark.parametrize(
    "options",
    [
        {"step_cache": 0.3},
        {"guidance_kind": "apg"},
        {"guidance_kind": "zero-star", "guidance_interval": (0.2, 0.9)},
        {"step_cache": 0.2, "guidance_kind": "apg", "sampler": "heun", "guidance_interval": (0.1, 0.8)},
        {"sampler": "renoise"},
    ],
)
def test_a_resumed_clip_is_the_same_bytes(
    model: Model,
    sizes: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    monkeypatch.setattr(journals, "PATIENCE", 0.0)
    recipe = resolve(model, replace(BALL, **options))
    save(model, recipe, tmp_path / "whole.mp4")
    total = len(sizes)

    class Crash(Exception):
        pass

    def crash(*_: object) -> None:
        if len(sizes) == 5:
            raise Crash

    sizes.clear()
    (tmp_path / "journal").mkdir()
    with pytest.raises(Crash):
        save(model, recipe, tmp_path / "resumed.mp4", crash, journal=Journal(tmp_path / "journal"))
    sizes.clear()
    save(model, recipe, tmp_path / "resumed.mp4", journal=Journal(tmp_path / "journal", found=True))
    assert len(sizes) == total - 5
    assert (tmp_path / "resumed.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_the_options_are_in_the_recipe_and_lead_back_to_the_same_bytes(model: Model, tmp_path: Path) -> None:
    options: dict[str, Any] = {"guidance_kind": "apg", "guidance_interval": (0.2, 0.9), "step_cache": 0.2}
    recipe = resolve(model, replace(BALL, guidance_rescale=0.5, **options))
    assert fill(request_of(recipe), Defaults()) == recipe
    save(model, recipe, tmp_path / "a.mp4")
    made = read_record(tmp_path / "a.mp4")
    assert made.recipe == recipe
    remake(model, made, tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    without = {key: value for key, value in to_dict(recipe).items() if key not in options}
    older = from_dict(Recipe, without, "a file made before there were options")
    assert (older.guidance_kind, older.guidance_interval, older.step_cache) == ("cfg", (0.0, 1.0), 0.0)


def test_the_words_of_the_request_are_those_of_guidance() -> None:
    assert get_args(Kind) == requests_of.KINDS


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"guidance_kind": "apd"}, "did you mean 'apg'"),
        ({"guidance_interval": (0.8, 0.2)}, "0.8 to 0.2"),
        ({"guidance_rescale": 1.5}, "guidance rescale is 1.5"),
        ({"step_cache": -0.1}, "step cache is -0.1"),
    ],
)
def test_options_out_of_range_are_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Request(**fields)
