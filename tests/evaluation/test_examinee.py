"""A model that answers every kind of question: clips of the asked shape, the given frames in their place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mutoscope.evaluation.examinee import answers_of, codec_of, ideal_clips, true_clips
from mutoscope.evaluation.exams import SUITES, Exam, questions
from mutoscope.evaluation.seams import seam_ratio
from mutoscope.generation.generate import generate
from mutoscope.generation.request import Request
from mutoscope.video import Video, write_video
from mutoscope.weights.store import Model, load
from mutoscope.world.scene import View

VIEW = View(32, 32, 9)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, "cpu")


def test_a_plain_answer_is_what_generate_makes(model: Model) -> None:
    (question,) = questions(Exam("P0", 1), VIEW, 1)
    (clip,) = answers_of(model)([question])
    alone = generate(model, Request(question.prompt, 32, 32, 9, 8.0, seed=question.seed)).frames_THWC
    assert np.abs(clip.astype(int) - alone).max() <= 1


def test_known_frames_come_first_and_decide_the_rest(model: Model) -> None:
    for known in (1, 5):
        asked = questions(Exam("P10", 2, known=known), VIEW, 1)
        clips = answers_of(model)(asked)
        for clip, real in zip(clips, true_clips(asked), strict=True):
            assert clip.shape == real.shape
            given = codec_of(model)(real[:1]) if known == 1 else real[:5]
            assert np.abs(clip[:known].astype(int) - given).max() <= 1
        (blind,) = answers_of(model)([replace(asked[0], exam=Exam("P10", 2))])
        assert np.abs(blind[known:].astype(int) - clips[0][known:]).mean() > 1


def test_a_picture_that_comes_alive_is_what_generate_makes(model: Model, tmp_path: Path) -> None:
    (question,) = questions(Exam("P10", 1, known=1), VIEW, 1)
    (clip,), (real,) = answers_of(model)([question]), true_clips([question])
    picture = write_video(tmp_path / "first.png", Video(real[:1], 1.0))
    alone = generate(model, Request(question.prompt, 32, 32, 9, 8.0, seed=question.seed, image=picture))
    assert np.abs(clip.astype(int) - alone.frames_THWC).max() <= 1


def test_extensions_and_loops_keep_the_clip(model: Model) -> None:
    (longer,) = questions(Exam("P10", 1, known=5, task="extend"), VIEW, 2)
    (clip,) = answers_of(model)([longer])
    (real,) = true_clips([longer])
    assert clip.shape == real.shape
    assert np.array_equal(clip[:5], real[:5])
    (round_one,) = questions(Exam("P10", 1, task="loop"), VIEW, 2)
    (loop,) = answers_of(model)([round_one])
    assert np.array_equal(loop[:9], true_clips([round_one])[0])
    assert len(loop) == 9 + 15
    assert round_one.told == ()


def test_long_clips_are_made_window_after_window(model: Model) -> None:
    (question,) = questions(Exam("P9", 1, length=5.0), VIEW, 3)
    assert question.view.frames == 41  # longer than 2 windows of this model
    (clip,) = answers_of(model)([question])
    assert clip.shape == (41, 32, 32, 3)


def test_an_ideal_loop_closes() -> None:
    exam = replace(next(exam for exam in SUITES["full"] if exam.name == "P10_loop"), count=1)
    asked = questions(exam, View(32, 32, 17), 4)
    assert seam_ratio(ideal_clips(asked)[0]) == pytest.approx(1.0, abs=0.4)
