"""Characters: kept, found, replaced, forgotten; put into prompts in words and as a first frame."""

from pathlib import Path

import numpy as np
import pytest

from mutoscope.errors import InputError
from mutoscope.generation.characters import (
    add_character,
    cast,
    cast_board,
    list_characters,
    named,
    remove_character,
)
from mutoscope.generation.request import KeyFrame, Request
from mutoscope.generation.storyboard import Card, Storyboard
from mutoscope.video import Video, read_video, write_video


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MUTOSCOPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a.png", Video(np.full((1, 8, 8, 3), 77, np.uint8), 8.0))


def test_characters_come_and_go(picture: Path) -> None:
    assert list_characters() == []
    made = add_character("Rolf", picture, "a small red ball")
    assert list_characters() == [made]
    assert np.array_equal(read_video(made.picture).frames_THWC, read_video(picture).frames_THWC)
    assert add_character("rolf", picture, "a blue ball").description == "a blue ball"
    assert len(list_characters()) == 1
    remove_character("ROLF")
    assert list_characters() == []


def test_names_in_prompts(picture: Path) -> None:
    rolf = add_character("Rolf", picture, "a small red ball")
    add_character("Box", picture, "a blue box")
    assert named("@rolf meets @Box, me@example.com") == (
        "a small red ball meets a blue box, me@example.com",
        (rolf, *[item for item in list_characters() if item.name == "Box"]),
    )
    assert cast(Request("@rolf rolls")) == Request("a small red ball rolls", character=rolf.picture)
    assert cast(Request("@rolf rolls", image=picture)) == Request("a small red ball rolls", image=picture)
    assert cast(Request("@rolf rolls", references=(picture,))).character is None
    late = cast(Request("@rolf rolls", last_image=picture))
    assert (late.image, late.character) == (rolf.picture, None)
    assert cast(Request("@rolf rolls", at=(KeyFrame(0.0, str(picture)),))).image is None
    assert cast(Request("@rolf meets @box")).character is None
    assert cast(Request("no one")) == Request("no one")


def test_names_on_cards(picture: Path) -> None:
    rolf = add_character("Rolf", picture, "a small red ball")
    cards = (Card(0, "@rolf rolls"), Card(2, "@rolf falls"), Card(2.5, "@rolf sleeps"))
    board = cast_board(Storyboard(cards, 4), 8.0)
    assert [card.image for card in board.cards] == [None] * 3
    assert [card.character for card in board.cards] == [str(rolf.picture), None, str(rolf.picture)]
    assert board.cards[1].prompt == "a small red ball falls"


def test_what_is_no_character(picture: Path) -> None:
    with pytest.raises(InputError, match=r"no character @rolf; add it"):
        named("@rolf rolls")
    add_character("Rolf", picture, "a small red ball")
    with pytest.raises(InputError, match=r"no character @rulf; did you mean 'Rolf'"):
        named("@rulf rolls")
    with pytest.raises(InputError, match="no name of a character"):
        add_character("../x", picture, "a ball")
    with pytest.raises(InputError, match="no description"):
        add_character("x", picture, " ")
    with pytest.raises(InputError, match=r"none\.png"):
        add_character("x", picture.with_name("none.png"), "a ball")
