"""The second judge: it reads clips of any shape, matches objects to subjects, keeps its file, and is compared."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.evaluation.examinee import ideal_clips
from mutoscope.evaluation.exams import Exam, questions
from mutoscope.evaluation.judge import (
    MOMENTS,
    MOST,
    Judge,
    JudgeConfig,
    Logits,
    Reading,
    Seen,
    agreement,
    load_judge,
    moments_of,
    save_judge,
    verdicts,
)
from mutoscope.evaluation.report import Answer
from mutoscope.evaluation.truth import judge as oracle
from mutoscope.evaluation.truth import observe
from mutoscope.world.facts import Fact, truth
from mutoscope.world.scene import BACKGROUNDS, COLOURS, View

VIEW = View(64, 64, 17)
RED, BLUE = Seen("red", "ball", "small", "left"), Seen("blue", "box", "large", "up")


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeConfig()).eval()


def test_facts_are_matched_to_the_objects_that_fit_best() -> None:
    told = [
        Fact("colour", 0, "blue"), Fact("shape", 0, "box"), Fact("colour", 1, "red"), Fact("direction", 1, "right"),
        Fact("count", None, "2"), Fact("background", None, "night"), Fact("relation", 0, "left of 1"),
    ]  # fmt: skip
    found = verdicts(Reading("night", (RED, BLUE)), told)
    assert [found[fact] for fact in told[:6]] == [True, True, True, False, True, True]
    assert told[6] not in found
    assert not any(verdicts(Reading("day", ()), told).values())
    one = verdicts(Reading("day", (BLUE,)), told)
    assert sum(one.values()) == 2
    bound = [Fact("colour", 0, "red"), Fact("shape", 0, "box")]  # of two objects, each has one of the two
    assert sum(verdicts(Reading("day", (RED, BLUE)), bound).values()) == 1


def test_logits_are_read_at_their_peaks() -> None:
    place = torch.full((1, 6, 6), -5.0)
    place[0, 1, 1], place[0, 1, 2], place[0, 4, 5] = 3.0, 2.9, 1.0  # the second is on the slope of the first
    looks = {
        kind: torch.zeros(1, n, 6, 6)
        for kind, n in (("colour", 10), ("shape", 6), ("size", 3), ("direction", 5))
    }
    looks["colour"][0, COLOURS.index("green"), 1, 1] = 1.0
    looks["colour"][0, COLOURS.index("white"), 4, 5] = 1.0
    count, background = torch.zeros(1, MOST + 1), torch.zeros(1, len(BACKGROUNDS))
    count[0, 2], background[0, 3] = 1.0, 1.0
    reading = Judge(JudgeConfig())._reading(Logits(place, looks, count, background))
    assert [seen.colour for seen in reading.things] == ["green", "white"]
    assert reading.background == BACKGROUNDS[3]


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(17, 64, 64), (1, 48, 80), (33, 128, 96), (5, 130, 70)]
)
def test_clips_of_any_shape_are_read(judge: Judge, frames: int, height: int, width: int) -> None:
    clip = np.random.default_rng(0).integers(0, 255, (frames, height, width, 3), dtype=np.uint8)
    channels, rows, columns = moments_of(clip).shape
    assert channels == 3 * MOMENTS
    assert min(rows, columns) == 64
    assert rows % 8 == columns % 8 == 0
    (reading,) = judge.read([clip])
    assert reading.background in BACKGROUNDS
    assert len(reading.things) <= MOST


def test_its_file_is_small_and_comes_back(judge: Judge, tmp_path: Path) -> None:
    save_judge(judge, tmp_path / "judge.safetensors", {"steps": 1})
    assert (tmp_path / "judge.safetensors").stat().st_size <= 1e6
    back = load_judge(tmp_path / "judge.safetensors")
    for name, weight in judge.state_dict().items():
        assert torch.allclose(weight, back.state_dict()[name], atol=1e-3), name
    with pytest.raises(InputError, match="train judge"):
        load_judge(tmp_path / "nothing")
    (tmp_path / "broken").write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="train judge"):
        load_judge(tmp_path / "broken")


class Perfect(Judge):
    """Reads the truth of the clips that it was told of, whatever their pixels."""

    def __init__(self, readings: dict[bytes, Reading]) -> None:
        super().__init__(JudgeConfig(wide=8, middle=8, deep=8))
        self.readings = readings

    def read(self, clips):  # type: ignore[no-untyped-def]
        return [self.readings[clip.tobytes()] for clip in clips]


def test_agreement_counts_facts_in_clips_and_in_the_truth() -> None:
    asked = questions(Exam("P0", 6), VIEW, 3)
    clips = ideal_clips(asked)
    readings = {}
    for question, clip in zip(asked, clips, strict=True):
        shown = truth(question.scene, VIEW)
        things = tuple(Seen(one.colour, one.shape, one.size, one.direction) for one in shown.things)
        readings[clip.tobytes()] = Reading(shown.background, things)
    answers = []
    for i, (question, clip) in enumerate(zip(asked, clips, strict=True)):
        made = clips[(i + 1) % len(clips)]  # everyone gets the clip of another
        verdict = oracle(observe(made, VIEW.fps), question.told)
        answers.append(Answer(question, made, verdict, oracle(observe(clip, VIEW.fps), question.told), {}))
    result = agreement(Perfect(readings), answers)
    assert result["floor"] == result["truth"] == 1.0
    assert result["agree"] >= 0.9  # type: ignore[operator]
    assert result["sets"] == {"P0": result["agree"]}
    assert result["right"] == result["oracle"] == 0.0
    blind = {key: replace(one, background="none", things=()) for key, one in readings.items()}
    assert agreement(Perfect(blind), answers)["floor"] == 0.0
    assert agreement(Perfect(readings), []) == {"n": 0}
