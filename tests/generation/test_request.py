"""Requests refuse what cannot be made, and become recipes with nothing left open."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.errors import InputError
from mutoscope.generation.request import (
    Grid,
    Recipe,
    Request,
    cover,
    fill,
    parse_size,
    request_of,
)
from mutoscope.weights.card import Defaults

BAD: list[tuple[dict[str, Any], str]] = [
    ({"width": 0}, "width is 0"),
    ({"width": -64}, "width is -64"),
    ({"height": 99999}, "height is 99999"),
    ({"height": 64.0}, "height is 64.0"),
    ({"frames": 0}, "frames is 0"),
    ({"frames": True}, "frames is True"),
    ({"fps": float("nan")}, "fps is nan"),
    ({"fps": 0}, "fps is 0"),
    ({"steps": 0}, "steps is 0"),
    ({"guidance": float("inf")}, "guidance is inf"),
    ({"guidance": -1}, "guidance is -1"),
    ({"seed": -1}, "seed is -1"),
    ({"seconds": 0}, "seconds is 0"),
    ({"seconds": float("nan")}, "seconds is nan"),
    ({"seconds": float("inf")}, "seconds is inf"),
    ({"seconds": 2.0, "frames": 9}, "one length"),
    ({"sampler": "eular"}, "did you mean 'euler'"),
    ({"sampler": "magic"}, "choose one of euler"),
    ({"prompt": "x" * 30_000}, "30000 characters"),
    ({"prompt": "\udcff"}, "Unicode"),
]


@pytest.mark.parametrize(("fields", "says"), BAD)
def test_a_bad_value_is_named_in_one_sentence(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        Request(**fields)
    sentence = str(caught.value)
    assert says in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    "text", ["64", "axb", "64x", "x", "64x64x64", "6.5x64", "", "64x٣x", "-64x64", "0x0", "99999x99999"]
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InputError):
        parse_size(text)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(16, 8192), st.integers(16, 8192))
def test_sizes_are_read(width: int, height: int) -> None:
    assert parse_size(f"{width}x{height}") == (width, height)


def test_gaps_are_filled_from_the_defaults_and_a_seed_is_drawn() -> None:
    defaults = Defaults(width=80, frames=9, sampler="euler")
    recipe = fill(Request("a star"), defaults)
    assert (recipe.width, recipe.height, recipe.frames, recipe.sampler) == (80, 64, 9, "euler")
    assert {fill(Request("a star"), defaults).seed for _ in range(20)} != {recipe.seed}
    assert fill(Request("a star", width=48, seed=7), defaults).width == 48


@settings(deadline=None)  # a busy machine is no failure
@given(st.floats(0.01, 100), st.floats(1, 60))
def test_seconds_become_the_nearest_number_of_frames(seconds: float, fps: float) -> None:
    frames = fill(Request(seconds=seconds, fps=fps), Defaults()).frames
    assert frames >= 1
    assert abs(frames - seconds * fps) <= 0.5 or frames == 1


def test_too_many_seconds_are_refused() -> None:
    with pytest.raises(InputError, match="frames"):
        fill(Request(seconds=1e9), Defaults())


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 300), st.integers(16, 500), st.integers(16, 500), st.integers(1, 2))
def test_the_grid_is_the_smallest_that_covers_the_clip(
    frames: int, height: int, width: int, patch: int
) -> None:
    recipe = fill(Request(width=width, height=height, frames=frames), Defaults())
    grid = cover(recipe, (4, 8, 8), (patch, 2, 2))
    covered = grid.pixels
    asked = (frames, height, width)
    assert all(inside >= wanted for inside, wanted in zip(covered, asked, strict=True))
    slack = (4 * patch, 16, 16)
    assert all(inside - wanted < step for inside, wanted, step in zip(covered, asked, slack, strict=True))
    assert grid.frames % patch == grid.height % 2 == grid.width % 2 == 0


def test_pixels_of_a_grid() -> None:
    assert Grid(5, 8, 10, (4, 8, 8)).pixels == (17, 64, 80)


def test_a_recipe_leads_back_to_itself(tmp_path: Path) -> None:
    picture = tmp_path / "first.png"
    picture.write_bytes(b"any bytes")
    request = Request("a ring", seconds=1.5, seed=3, negative="blue", image=picture)
    recipe = fill(request, Defaults())
    assert fill(request_of(recipe), Defaults(width=128, steps=3)) == recipe
    assert recipe.image_sha256 is not None


def test_what_was_decided_of_guidance_is_told() -> None:
    assert fill(Request("a ring", guidance=4), Defaults()).manner == "guidance 4"
    request = Request(
        "a ring", guidance_kind="apg", guidance_interval=(0.2, 0.9), guidance_rescale=0.7, step_cache=0.05
    )
    told = fill(request, Defaults(guidance=6.5)).manner
    assert told == "guidance 6.5 (apg) from noise 0.9 to 0.2, rescaled by 0.7, step cache 0.05"


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png"):
        fill(Request("a ring", image=tmp_path / "none.png"), Defaults())


def test_recipes_of_one_request_differ_only_in_the_seed() -> None:
    one, two = (fill(Request("a ring"), Defaults()) for _ in range(2))
    assert one == Recipe(**{**two.__dict__, "seed": one.seed})
