"""Scores of captions: the world's own are nearly perfect, each kind of lie costs what it should."""

import pytest

from mutoscope.evaluation.caption_facts import f1_scores, judge_caption, not_taught, taught
from mutoscope.world.captions import Fact, caption, facts, parse, truth
from mutoscope.world.scene import sample_scene
from mutoscope.world.stage import EVERYTHING, View

VIEW = View(64, 64, 17)


def true_facts(text: str) -> tuple[Fact, ...]:
    return parse(text)[0]


def test_the_worlds_own_captions_are_true() -> None:
    scenes = [sample_scene(seed) for seed in range(60)]
    verdicts = [
        judge_caption(caption(scene, VIEW, "detailed", 0), facts(truth(scene, VIEW))) for scene in scenes
    ]
    scores = f1_scores(verdicts)
    assert scores["all"]["f1"] > 0.98
    assert scores["all"]["interval"][0] <= scores["all"]["f1"] <= scores["all"]["interval"][1]
    assert {"colour", "shape", "size", "direction", "background", "count", "relation"} <= set(scores)


def test_events_cameras_and_stories_are_judged_too() -> None:
    scenes = [sample_scene(seed, EVERYTHING) for seed in range(60)]
    verdicts = [
        judge_caption(caption(scene, VIEW, "detailed", 0), facts(truth(scene, VIEW))) for scene in scenes
    ]
    scores = f1_scores(verdicts)
    assert scores["all"]["precision"] > 0.9
    assert {"camera", "event", "style"} <= set(scores)


@pytest.mark.parametrize(
    ("text", "right", "stated", "true"),
    [
        ("a red ball rolls left and a blue box stands still", 6, 6, 6),
        ("a blue box stands still and a red ball rolls left", 6, 6, 6),  # the order is free
        ("a blue ball rolls left and a red box stands still", 4, 6, 6),  # colours exchanged
        ("a red ball rolls left", 3, 3, 6),
        ("a red ball rolls left and a blue box stands still and a pink star floats up", 6, 9, 6),
        ("an empty stage", 0, 0, 6),
    ],
)
def test_what_a_caption_gets(text: str, right: int, stated: int, true: int) -> None:
    verdict = judge_caption(text, true_facts("a red ball rolls left and a blue box stands still"))
    assert tuple(sum(counts.values()) for counts in (verdict.right, verdict.stated, verdict.true)) == (
        right, stated, true
    )  # fmt: skip


def test_a_relation_counts_once_from_either_side() -> None:
    both = "a red ball and a blue box. "
    true = [*true_facts(both), Fact("relation", 0, "left of 1"), Fact("relation", 1, "right of 0")]
    for told, right in (
        ("the red ball is left of the blue box", 1),
        ("the blue box is to the right of the red ball", 1),
        ("the blue box is left of the red ball", 0),
    ):
        verdict = judge_caption(both + told, true)
        assert (verdict.right["relation"], verdict.stated["relation"], verdict.true["relation"]) == (
            right,
            1,
            1,
        )


def test_many_invented_things_cost_precision_and_no_time() -> None:
    text = " and ".join(f"a {colour} ball" for colour in ("red", "blue", "green", "pink", "white", "black"))
    verdict = judge_caption(text, true_facts("a red ball"))
    assert sum(verdict.right.values()) == 2
    assert sum(verdict.stated.values()) == 12


def test_what_no_caption_told_cannot_be_known() -> None:
    known = taught(["a red ball is left of a blue box by day", "a red ball rolls left"])
    assert known["colour"] == ["blue", "red"]
    assert known["relation"] == ["left of"]
    missing = not_taught(known)
    assert "camera" in missing
    assert "colour" not in missing
