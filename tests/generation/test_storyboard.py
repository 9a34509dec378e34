"""Storyboards: cards become shots, what is given stays, what was made is not made again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mutoscope.errors import InputError
from mutoscope.generation.request import Request, file_sha256, fill
from mutoscope.generation.storyboard import (
    Card,
    Storyboard,
    make_storyboard,
    plan_shots,
    read_storyboard,
    settled,
    shares,
    shots_of,
)
from mutoscope.video import Video, read_video, write_video
from mutoscope.weights.store import Model, load


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames_THWC = np.random.default_rng(0).integers(60, 200, (9, 32, 32, 3), np.uint8)
    return write_video(tmp_path / "clip.mp4", Video(frames_THWC, 8.0))


def test_spacing_cuts_or_morphs() -> None:
    cards = (Card(0, "a"), Card(0.5, "b"), Card(2, "c"), Card(4, "d", cut=True), Card(4.5, "e", cut=False))
    shots = shots_of(Storyboard(cards, 6), 8.0)
    assert [[card.prompt for card in shot.cards] for shot in shots] == [["a"], ["b", "c"], ["d", "e"]]
    assert [(shot.start, shot.stop) for shot in shots] == [(0, 4), (4, 32), (32, 48)]


def test_prompts_pass_into_one_another() -> None:
    (shot,) = shots_of(Storyboard((Card(0, "a"), Card(2, "b")), 4), 8.0)
    share_PT, prompts = shares(shot, 9, 4, 8.0)
    assert prompts == ["a", "b"]
    assert share_PT.sum(0).tolist() == [1.0] * 9
    assert share_PT[0, 0] == 1
    assert share_PT[1, 5:].tolist() == [1.0] * 4
    assert (share_PT[1].diff() >= 0).all()


def test_a_long_prompt_is_planned() -> None:
    board = plan_shots("First, a red ball rolls. Then a blue box falls; finally, cut to a star at night.", 6)
    assert [(card.at, card.prompt) for card in board.cards] == [
        (0, "a red ball rolls"),
        (2, "a blue box falls"),
        (4, "a star at night"),
    ]
    assert [card.cut for card in board.cards] == [None, None, True]
    board = plan_shots("A red ball and a box roll. Then they stop, then it is at night, cut to: it falls", 8)
    assert [card.prompt for card in board.cards] == [
        "A red ball and a box roll",
        "A red ball and a box stop",
        "A red ball is at night",
        "A red ball falls",
    ]
    assert [card.prompt for card in plan_shots("a dog runs, then it sleeps", 4).cards] == [
        "a dog runs",
        "it sleeps",
    ]
    with pytest.raises(InputError, match="no shot"):
        plan_shots("Then.", 3)


@pytest.mark.parametrize("begin", [0.0, 0.25, 1.0])
def test_a_clip_stays_bit_for_bit_and_shots_are_kept(
    model: Model, clip: Path, tmp_path: Path, begin: float
) -> None:
    cards = (
        (Card(0, "a ball"), Card(begin, clip=str(clip), cut=False)) if begin else (Card(0, clip=str(clip)),)
    )
    board = Storyboard((*cards, Card(2.5, "a box", cut=True)), 3.5, 32, 32, 8.0, steps=2)
    told: list[tuple[int, int, bool]] = []
    video = make_storyboard(model, board, tmp_path / "parts", on_shot=lambda *words: told.append(words))
    start = round(begin * 8)
    assert video.frames_THWC.shape == (28, 32, 32, 3)
    assert np.array_equal(video.frames_THWC[start : start + 9], read_video(clip).frames_THWC)
    other = replace(board, cards=(*cards, Card(2.5, "a blue box", cut=True)))
    again = make_storyboard(model, other, tmp_path / "parts", on_shot=lambda *words: told.append(words))
    assert told == [(1, 2, False), (2, 2, False), (1, 2, True), (2, 2, False)]
    assert np.array_equal(again.frames_THWC[:20], video.frames_THWC[:20])
    assert not np.array_equal(again.frames_THWC[20:], video.frames_THWC[20:])


def test_a_character_leads_its_shot(model: Model, clip: Path, tmp_path: Path) -> None:
    """It is no frame of the shot, changes what is made there, and nothing before."""
    cards = (Card(0, "a ball"), Card(1, "a box", cut=True), Card(2, clip=str(clip), cut=False))
    board = Storyboard(cards, 3.5, 32, 32, 8.0, steps=2)
    picture = write_video(tmp_path / "somebody.png", Video(read_video(clip).frames_THWC[:1], 1.0))
    led = replace(board, cards=(cards[0], replace(cards[1], character=str(picture)), cards[2]))
    plain, shown = (
        make_storyboard(model, board, tmp_path / "parts"),
        make_storyboard(model, led, tmp_path / "parts"),
    )
    assert shown.frames_THWC.shape == plain.frames_THWC.shape == (28, 32, 32, 3)
    assert np.array_equal(shown.frames_THWC[:8], plain.frames_THWC[:8])
    assert not np.array_equal(shown.frames_THWC[8:16], plain.frames_THWC[8:16])
    assert np.array_equal(shown.frames_THWC[16:25], read_video(clip).frames_THWC)
    assert shown.recipe is not None
    told = shown.recipe["storyboard"]["cards"][1]
    assert (told["character"], told["sha256"]) == (str(picture), file_sha256(picture))
    assert len(list((tmp_path / "parts").iterdir())) == 3  # the first shot is the same in both
    elsewhere = replace(model, card=replace(model.card, led=False))
    (_, card, _) = settled(elsewhere, led, fill(Request(width=32, height=32), model.card.defaults)).cards
    assert (card.image, card.character) == (str(picture), None)


def test_a_lead_moves_what_is_told() -> None:
    (shot,) = shots_of(Storyboard((Card(0, "a"), Card(2, "b")), 4), 8.0)
    alone_PT, _ = shares(shot, 9, 4, 8.0)
    led_PT, _ = shares(shot, 12, 4, 8.0, lead=12)
    assert led_PT[:, 3:].tolist() == alone_PT.tolist()
    assert led_PT[0, :3].tolist() == [1.0] * 3


def test_files_are_named_from_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    for name in ("image", "clip", "character"):
        path.write_text(f'seconds = 2.0\n[[cards]]\nat = 0.0\n{name} = "a.png"\n')
        assert read_storyboard(path).cards == (Card(0, **{name: str(tmp_path / "a.png")}),)
    path.write_text('seconds = 2.0\n[[cards]]\nat = 0.0\npromt = "a"\n')
    with pytest.raises(InputError, match=r"board\.toml: unknown key cards\[0\]\.promt"):
        read_storyboard(path)


def test_boards_that_cannot_be_made(model: Model, clip: Path) -> None:
    with pytest.raises(InputError, match="overlap"):
        Storyboard((Card(0, "a"), Card(0, "b")), 2)
    with pytest.raises(InputError, match="outside the storyboard of 2 s"):
        Storyboard((Card(0, "a"), Card(3, "b")), 2)
    with pytest.raises(InputError, match="begins at 0 s"):
        Storyboard((Card(1, "a"),), 2)
    with pytest.raises(InputError, match="is empty"):
        Card(0)
    with pytest.raises(InputError, match="has a clip and a character; give it one of them"):
        Card(0, "a", clip="a.mp4", character="a.png")
    with pytest.raises(InputError, match="at 2 s has a character and begins no shot"):
        shots_of(Storyboard((Card(0, "a"), Card(2, "b", character="a.png")), 4), 8.0)
    with pytest.raises(InputError, match=r"of 1\.125 s at 0 s overlaps what comes at 1 s"):
        make_storyboard(model, Storyboard((Card(0, clip=str(clip)), Card(1, "b", cut=False)), 2, 32, 32, 8.0))
