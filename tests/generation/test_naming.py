"""Names come from the prompt and the seed, and never fall on a file that is there."""

from pathlib import Path

import pytest

from mutoscope.errors import InputError
from mutoscope.generation.naming import check_place, name_clip, unused
from mutoscope.generation.request import Recipe, Request, fill
from mutoscope.weights.card import Defaults


def recipe(prompt: str, frames: int = 17) -> Recipe:
    return fill(Request(prompt, seed=7, frames=frames), Defaults())


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a red ball rolls behind a blue box", "a-red-ball-rolls-behind-7.mp4"),
        ("A red ball!", "a-red-ball-7.mp4"),
        ("../../etc/passwd; rm -rf", "etc-passwd-rm-rf-7.mp4"),
        ("ein grüner Stern", "ein-grüner-stern-7.mp4"),
        ("", "clip-7.mp4"),
        ("x" * 300, "x" * 80 + "-7.mp4"),
    ],
)
def test_names_from_prompts(prompt: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_clip(None, recipe(prompt), several=False) == Path(name)
    assert name_clip(tmp_path, recipe(prompt), several=True) == tmp_path / name


def test_names_avoid_files_that_are_there(tmp_path: Path) -> None:
    for expected in ("a-7.mp4", "a-7-2.mp4", "a-7-3.mp4"):
        path = name_clip(tmp_path, recipe("a"), several=False)
        assert path == tmp_path / expected
        path.touch()
    assert unused(tmp_path / "b.gif") == tmp_path / "b.gif"


def test_a_given_name_is_used_and_numbered_by_seed(tmp_path: Path) -> None:
    asked = tmp_path / "out.mp4"
    asked.touch()
    assert name_clip(asked, recipe("a"), several=False) == asked
    assert name_clip(asked, recipe("a"), several=True) == tmp_path / "out-7.mp4"


def test_a_picture_holds_one_frame(tmp_path: Path) -> None:
    assert name_clip(tmp_path / "a.png", recipe("a", frames=1), several=False) == tmp_path / "a.png"
    with pytest.raises(InputError, match="--frames 1"):
        name_clip(tmp_path / "a.png", recipe("a"), several=False)


@pytest.mark.parametrize(
    ("name", "says"), [("no/such/a.mp4", "no folder"), ("a.txt", "ending"), ("a", "ending")]
)
def test_places_that_cannot_be_written(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_place(tmp_path / name)
    check_place(tmp_path)
    check_place(tmp_path / "a.webm")
