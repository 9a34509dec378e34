"""A character in words: what the captioner says, cut to how it looks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.generation.characters import told
from mutoscope.generation.description import described, noun
from mutoscope.video import Video, write_video
from mutoscope.weights.store import Model, load
from mutoscope.world.captions import parse


@dataclass
class Sayer:
    """Stands for a captioner: says one thing, and remembers what it was shown."""

    caption: str
    shape: tuple[int, ...] = ()

    def __call__(self, latent_BCTHW: torch.Tensor, kind: str) -> list[str]:
        self.shape = tuple(latent_BCTHW.shape)
        return [self.caption] * len(latent_BCTHW)


@pytest.fixture
def model(model_folder: Path) -> Model:
    return load(model_folder)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    frames_THWC = np.random.default_rng(0).integers(0, 255, (6, 50, 90, 3), np.uint8)
    return write_video(tmp_path / "clip.mp4", Video(frames_THWC, 8.0))


def test_who_is_in_the_first_frame(model: Model, picture: Path) -> None:
    sayer = Sayer("A large orange ball hangs still in the air, and a blue box sinks by the ocean.")
    model.narrator = sayer  # type: ignore[assignment]
    assert described(model, picture) == "a large orange ball"
    assert sayer.shape == (1, 16, 1, 8, 8)  # one frame, of the model's own size


def test_nobody_there_and_nobody_to_look(model: Model, picture: Path) -> None:
    with pytest.raises(InputError, match="has no captioner to describe"):
        described(model, picture)
    model.narrator = Sayer("At night.")  # type: ignore[assignment]
    with pytest.raises(InputError, match="sees nobody in"):
        described(model, picture)


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a red ball rolls to the right", "a red ball"),
        ("A medium-sized orange star floats up.", "an orange star"),
        ("A tiny black ring.", "a small black ring"),
        ("It takes place at sunset.", ""),
    ],
)
def test_only_looks_are_said(caption: str, words: str) -> None:
    assert noun(parse(caption)[0]) == words


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Red rolls", "a red ball rolls"),
        ("@red rolls past RED", "a red ball rolls past a red ball"),
        ("a Redder thing rolls", "a Redder thing rolls, a red ball"),
        ("hundred", "hundred, a red ball"),
        ("Red's friend", "a red ball's friend"),
    ],
)
def test_looks_take_the_place_of_names(prompt: str, words: str) -> None:
    assert told(prompt, {"Red": "a red ball"}) == words


def test_names_with_signs_are_names() -> None:
    assert (
        told("C3-PO (x) meets Ana.", {"C3-PO (x)": "a box", "Ana": r"a \1 ball"}) == r"a box meets a \1 ball."
    )
