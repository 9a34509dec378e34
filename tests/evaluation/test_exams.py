"""Questions: fresh, true, of their kind, and put in other words without becoming others."""

from dataclasses import replace

import numpy as np
import pytest

from mutoscope.evaluation.exams import (
    FRESH,
    SUITES,
    Exam,
    questions,
    running_on,
    stated,
    view_of,
    with_strange_words,
    with_typos,
)
from mutoscope.world.captions import HELD_OUT_SYNONYMS, facts, parse, truth
from mutoscope.world.scene import COLOURS, View, is_hole

VIEW = View(64, 64, 17)


def test_prompts_state_true_facts() -> None:
    for exam in SUITES["full"]:
        for question in questions(replace(exam, count=6), VIEW, 2):
            values = {(fact.kind, fact.value) for fact in facts(truth(question.scene, question.view))}
            told = {
                (fact.kind, fact.value) for fact in question.told if fact.kind not in ("relation", "event")
            }
            assert told <= values, (exam.name, question.prompt)
            assert question.prompt or exam.words == "odd"
            assert question.seed >= FRESH


def test_exams_are_of_their_kind() -> None:
    for question in questions(Exam("P1", 12, holes=True), VIEW, 3):
        things = truth(question.scene, VIEW).things
        assert any(is_hole(thing.colour, thing.shape, thing.direction) for thing in things)
    others = questions(Exam("P4", 20, words="strange"), VIEW, 4)
    assert sum(any(word in one.prompt for word in HELD_OUT_SYNONYMS) for one in others) >= 15
    counts = questions(replace(next(exam for exam in SUITES["full"] if exam.name == "P3"), count=6), VIEW, 1)
    assert all(len(one.scene.shots[0].bodies) >= 5 for one in counts)
    stories = questions(replace(next(exam for exam in SUITES["full"] if exam.name == "P7"), count=6), VIEW, 1)
    assert all(len(one.scene.takes(one.view)) >= 2 for one in stories)


def test_a_pair_differs_in_the_relation_and_in_the_truth() -> None:
    asked = questions(Exam("P2", 16, pairs=True), VIEW, 5)
    assert len(asked) == 16
    for one, other in zip(asked[::2], asked[1::2], strict=True):
        assert one.pair == other.pair
        assert sorted(set(one.prompt.split()) ^ set(other.prompt.split())) in (
            ["left", "right"],
            ["above", "below"],
        )
        relations = [{fact for fact in each.told if fact.kind == "relation"} for each in (one, other)]
        assert relations[0]
        assert relations[0] != relations[1]
        for each in (one, other):
            assert {fact for fact in each.told if fact.kind == "relation"} <= set(
                facts(truth(each.scene, VIEW))
            )


@pytest.mark.parametrize(
    ("exam", "size"),
    [
        (Exam("a", 1, aspect=21 / 9), (112, 48, 17)),
        (Exam("a", 1, aspect=9 / 16), (48, 80, 17)),
        (Exam("a", 1, scale=(2.0, 2.0)), (128, 128, 17)),
        (Exam("a", 1, length=10.0), (64, 64, 161)),
        (Exam("a", 1, fps=24.0), (64, 64, 49)),
        (Exam("a", 1), (64, 64, 17)),
    ],
)
def test_views(exam: Exam, size: tuple[int, int, int]) -> None:
    view = view_of(exam, VIEW)
    assert (view.width, view.height, view.frames) == size


def test_other_words_say_the_same() -> None:
    text = "A small purple triangle slides to the left and a yellow ball rises at sunset."
    assert "sphere" in with_strange_words(text)
    assert set(stated(with_strange_words(text))) == set(stated(text))
    for seed in range(20):
        mistyped = with_typos(text, np.random.default_rng(seed))
        assert mistyped != text
        assert sum(a != b for a, b in zip(mistyped.split(), text.split(), strict=True)) <= 2
    long = running_on("A red ball rolls to the right. The scene is set at night.")
    assert "." not in long
    assert ("background", "night") in {(fact.kind, fact.value) for fact in parse(long)[0]}


def test_terse_prompts_keep_what_they_say() -> None:
    for question in questions(Exam("P4", 12, words="terse"), VIEW, 6):
        assert len(question.prompt.split()) <= 3 * len(question.prompt.split(", "))
        assert set(stated(question.prompt)) == set(question.told)


def test_odd_prompts_are_of_four_kinds() -> None:
    asked = questions(Exam("P11", 16, words="odd"), VIEW, 1)
    empty, endless, foreign, contradictory = (asked[kind::4] for kind in range(4))
    assert all(not one.prompt.strip() and not one.told for one in (*empty,))
    assert all(len(one.prompt) == 5000 and stated(one.prompt) == one.told for one in endless)
    assert len({one.prompt for one in foreign}) == 4
    assert not any(one.told for one in foreign)
    for one in contradictory:
        colours = [word for word in one.prompt.split() if word in COLOURS]
        assert len(set(colours)) == 2
        assert [fact.value for fact in one.told if fact.kind == "colour"] == colours[1:]


def test_an_edit_changes_one_colour_and_no_more() -> None:
    exam = next(exam for exam in SUITES["full"] if exam.name == "P10_recolour")
    for question in questions(replace(exam, count=8), VIEW, 1):
        assert question.source is not None
        (old,), (new,) = (scene.shots[0].bodies for scene in (question.source, question.scene))
        assert old.colour != new.colour
        assert replace(old, colour=new.colour) == new
        assert not is_hole(new.colour, new.shape, "")
        assert new.colour in {fact.value for fact in stated(question.prompt)}


def test_detailed_prompts_are_judged_by_what_the_short_ones_state() -> None:
    short, detailed = (questions(Exam("P4", 12, words=words), VIEW, 3) for words in ("short", "detailed"))
    for one, other in zip(short, detailed, strict=True):
        assert (one.scene, one.told) == (other.scene, other.told)
        assert len(one.prompt) < len(other.prompt)
        assert {(fact.kind, fact.value) for fact in one.told} <= {
            (fact.kind, fact.value) for fact in stated(other.prompt)
        }


def test_expanded_prompts_say_at_least_what_is_told() -> None:
    for wording in ("strange", "typos", "terse"):
        raw, longer = (
            questions(Exam("P4", 8, words=wording, expanded=kind), VIEW, 2) for kind in (None, "medium")
        )
        for one, other in zip(raw, longer, strict=True):
            assert one.told == other.told
            said = {(fact.kind, fact.value) for fact in stated(other.prompt)}
            assert {(fact.kind, fact.value) for fact in one.told if fact.kind == "colour"} <= said
        assert any(one.prompt != other.prompt for one, other in zip(raw, longer, strict=True))


def test_short_prompts_can_become_detailed_captions() -> None:
    short, long = (
        questions(Exam("P4", 8, words="short", expanded=kind), VIEW, 2) for kind in (None, "detailed")
    )
    for one, other in zip(short, long, strict=True):
        assert one.told == other.told
        assert len(other.prompt) > 1.5 * len(one.prompt)
