"""What a job makes of a clip: edits, extensions both ways, loops; with a real, tiny model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from mutoscope.config import to_dict
from mutoscope.errors import InputError
from mutoscope.generation.cards import Card, Storyboard
from mutoscope.generation.journal import Journal
from mutoscope.generation.reproduce import differences, read_record, remake, unsigned
from mutoscope.serving.orders import Order
from mutoscope.serving.provenance import open_authority, seal
from mutoscope.serving.tasks import Stopped, make
from mutoscope.video import Video, read_recipe, read_video, write_video
from mutoscope.weights.store import Model, load

Made = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A clip of 9 frames: a bright half that moves down."""
    frames_THWC = np.zeros((9, 48, 48, 3), np.uint8)
    for index, frame_HWC in enumerate(frames_THWC):
        frame_HWC[: 16 + 2 * index] = 255
    write_video(tmp_path / "video.mp4", Video(frames_THWC, 8.0))
    return tmp_path


@pytest.fixture
def made(model: Model, inputs: Path, order: Order) -> Made:
    def draw(**changes: Any) -> np.ndarray:
        sides = {"width": 48, "height": 48, "drawn_width": 48, "drawn_height": 48}
        asked = Order(**{**vars(order), **sides, **changes})
        folder = inputs / "made"
        folder.mkdir(exist_ok=True)
        make(model, asked, inputs, folder, lambda percent, x0: True, Journal(Path(mkdtemp(dir=inputs))))
        frames_THWC = read_video(folder / "video.mp4").frames_THWC.astype(int)
        assert len(frames_THWC) == asked.all_frames
        return frames_THWC

    return draw


def far(one_THWC: np.ndarray, other_THWC: np.ndarray) -> float:
    return float(np.abs(one_THWC - other_THWC).mean())


def test_a_stronger_edit_goes_further_from_the_clip(made: Made, inputs: Path) -> None:
    nothing, weak, strong = (
        made(task="edit", strength=strength, source="video_x") for strength in (0.001, 0.05, 1.0)
    )
    assert far(weak, nothing) < far(strong, nothing) / 2  # the random model's own picture of the clip
    recipe = read_recipe(inputs / "made" / "video.mp4")
    assert recipe is not None
    assert recipe["served"]["edited_from"] == "video_x"
    assert recipe["recipe"]["task"]["clip"] == "video.mp4"  # no place of this server


@pytest.mark.parametrize("backward", [False, True])
def test_an_extension_holds_its_source(made: Made, inputs: Path, backward: bool) -> None:
    source = read_video(inputs / "video.mp4").frames_THWC.astype(int)
    both = made(task="extend", source_frames=9, frames=6, backward=backward)
    kept = both[-9:] if backward else both[:9]
    assert far(kept, source) < 4
    assert far(kept, source[::-1]) > 16


def test_a_loop_leads_from_the_end_to_the_start(made: Made, inputs: Path) -> None:
    source = read_video(inputs / "video.mp4").frames_THWC.astype(int)
    assert far(made(task="extend", source_frames=9, frames=7, loop=True)[:9], source) < 4
    assert len(made(frames=17, loop=True)) == 17
    assert len(made(frames=10, loop=True)) == 10
    first = (inputs / "made" / "video.mp4").read_bytes()
    made(frames=10, loop=True)
    assert (inputs / "made" / "video.mp4").read_bytes() == first


def test_a_storyboard_is_made_and_its_shots_are_not_made_twice(
    model: Model, inputs: Path, order: Order
) -> None:
    (inputs / "card-0.mp4").write_bytes((inputs / "video.mp4").read_bytes())
    cards = (Card(0, clip="card-0.mp4"), Card(1.25, "a box", cut=True, expanded="a red box"))
    text = json.dumps(to_dict(Storyboard(cards, 17 / 8, 48, 48, 8.0, 2, 3.0, 7, "", "euler")))
    sides = {"width": 48, "height": 48, "drawn_width": 48, "drawn_height": 48}
    asked = Order(**{**vars(order), **sides, "frames": 17, "storyboard": text})
    folder, journal = inputs / "made", Journal(inputs / "steps")
    folder.mkdir()
    with pytest.raises(Stopped):
        make(model, asked, inputs, folder, lambda percent, x0: percent < 60, journal)
    told: list[int] = []
    make(model, asked, inputs, folder, lambda percent, x0: told.append(percent) or True, journal)
    assert told == sorted(told)
    assert told[0] > 45  # the first shot was there
    frames_THWC = read_video(folder / "video.mp4").frames_THWC.astype(int)
    assert len(frames_THWC) == 17
    assert far(frames_THWC[:9], read_video(inputs / "video.mp4").frames_THWC.astype(int)) < 4
    recipe = read_recipe(folder / "video.mp4")
    assert recipe is not None
    assert recipe["storyboard"]["cards"][1]["expanded"] == "a red box"


def test_what_the_model_is_told_is_recorded(made: Made, inputs: Path) -> None:
    plain = made(seed=1)
    other = made(seed=1, expanded="a blue box")
    assert far(plain, other) > 0
    recipe = read_recipe(inputs / "made" / "video.mp4")
    assert recipe is not None
    assert (recipe["recipe"]["prompt"], recipe["recipe"]["expanded_prompt"]) == ("a red ball", "a blue box")


def test_an_edit_stops_when_told(model: Model, inputs: Path, order: Order) -> None:
    asked = Order(**{**vars(order), "task": "edit", "strength": 1.0})
    with pytest.raises(Stopped):
        make(model, asked, inputs, inputs, lambda percent, x0: False, Journal(inputs))
    assert not (inputs / "recipe.json").exists()


BOARD = Storyboard(
    (Card(0, image="card-0.png"), Card(1.25, "a box", cut=True, expanded="a red box")),
    *(17 / 8, 48, 48, 8.0, 2, 3.0, 7, "", "euler"),
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"width": 96, "height": 96, "first_picture": True},
        {"width": 16, "height": 16, "drawn_width": 16, "drawn_height": 16},
        {"frames": 17, "loop": True, "source": "video_x", "task": "remix"},
        {"frames": 17, "loop": True, "last_picture": True},
        {"frames": 17, "storyboard": json.dumps(to_dict(BOARD))},
        {"task": "edit", "strength": 0.5, "source": "video_x", "width": 64, "height": 64},
        {"task": "extend", "source_frames": 9, "frames": 6, "source": "video_x"},
        {"task": "extend", "source_frames": 9, "frames": 6, "backward": True},
        {"task": "extend", "source_frames": 9, "frames": 7, "loop": True},
    ],
    ids=[
        "plain",
        "larger",
        "unmarked",
        "loop",
        "loop to picture",
        "board",
        "edit",
        "after",
        "before",
        "back",
    ],
)
def test_what_a_server_made_is_made_again(
    made: Made, model: Model, inputs: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.full((1, 48, 48, 3), 90, np.uint8)
    for name in ("first.png", "last.png", "card-0.png"):
        write_video(inputs / name, Video(picture, 8.0))
    made(**changes)
    path, again = inputs / "made" / "video.mp4", inputs / "again.mp4"
    monkeypatch.chdir(inputs)  # a server names its files without their place
    record = read_record(path)
    remake(model, record, again)
    assert path.read_bytes() == again.read_bytes()
    monkeypatch.chdir(inputs / "made")
    needs = any("picture" in name for name in changes) or changes.get("task") in ("edit", "extend")
    if needs or "storyboard" in changes:
        (inputs / "made" / "video.mp4").rename(inputs / "moved.mp4")
        with pytest.raises(InputError, match="put it into this folder"):
            remake(model, record, again)


def test_a_signed_clip_is_compared_as_it_was_before(made: Made, model: Model, inputs: Path) -> None:
    authority = open_authority(inputs / "keys")
    if authority is None:
        pytest.skip("needs the extra provenance")
    made()
    path, again = inputs / "made" / "video.mp4", inputs / "again.mp4"
    before = path.read_bytes()
    assert unsigned(before) == before
    seal(path.parent, "video_x", authority)
    assert path.read_bytes() != before
    assert unsigned(path.read_bytes()) == before
    record = read_record(path)
    remake(model, record, again)
    assert differences(model, record, path, again) == []
    changed = bytearray(path.read_bytes())
    changed[-1000] ^= 1
    path.write_bytes(changed)
    assert unsigned(path.read_bytes()) != before


def test_characters_are_told_in_words_and_shown(model: Model, inputs: Path, order: Order) -> None:
    """By a model with a captioner; the one here says the same of everybody."""

    def narrator(latent_BCTHW: Tensor, kind: str) -> list[str]:
        return ["a small green box slides to the left"] * len(latent_BCTHW)

    for name in ("first.png", "last.png", "character-0.png", "character-1.png"):
        write_video(inputs / name, Video(np.full((1, 48, 48, 3), 90, np.uint8), 8.0))
    seeing = replace(model, narrator=narrator)

    def recipe_of(**asked: Any) -> dict[str, Any]:
        """What is in the file that is made of an order: the recipe of what was drawn."""
        folder = Path(mkdtemp(dir=inputs))
        named = replace(order, prompt="Ana rolls", **{"characters": ("Ana",)} | asked)
        make(seeing, named, inputs, folder, lambda percent, x0: True, Journal(Path(mkdtemp(dir=inputs))))
        record = read_recipe(folder / "video.mp4")
        assert record is not None
        return dict(record["served"].get("opened") or record["recipe"])

    alone = recipe_of()
    assert alone["prompt"] == "Ana rolls"
    assert alone["expanded_prompt"] == "a small green box rolls"
    assert [reference["image"] for reference in alone["references"]] == ["character-0.png"]
    assert alone["lead"] > 0
    assert alone["image"] is None
    looped = recipe_of(loop=True, frames=12)
    assert [reference["image"] for reference in looped["references"]] == ["character-0.png"]
    assert looped["expanded_prompt"] == "a small green box rolls"
    first = recipe_of(first_picture=True)
    assert (first["image"], first["references"]) == ("first.png", [])
    last = recipe_of(last_picture=True)
    assert (last["image"], last["last_image"], last["references"]) == ("character-0.png", "last.png", [])
    two = recipe_of(characters=("Ana", "Bo"))
    assert (two["image"], two["references"]) == (None, [])
