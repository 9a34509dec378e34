"""Prompts that people type, read as facts."""

import pytest

from mutoscope.world.captions import HELD_OUT_SYNONYMS, Fact, parse


def read(text: str) -> set[tuple[str, int | None, str]]:
    return {(fact.kind, fact.subject, fact.value) for fact in parse(text)[0]}


RED_BALL = {("colour", 0, "red"), ("shape", 0, "ball")}
BLUE_BOX = {("colour", 1, "blue"), ("shape", 1, "box")}


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a red ball rolls to the right", RED_BALL | {("direction", 0, "right")}),
        ("a red ball and a blue box", RED_BALL | BLUE_BOX),
        ("a red ball rolls behind a blue box", RED_BALL | BLUE_BOX | {("relation", 0, "behind 1")}),
        (
            "a red ball rolls behind a blue box to the left",
            RED_BALL | BLUE_BOX | {("relation", 0, "behind 1"), ("direction", 0, "left")},
        ),
        (
            "a red ball hits a blue box",
            RED_BALL | BLUE_BOX | {("event", 0, "collide 1"), ("event", 1, "collide 0")},
        ),
        ("The red ball is left of the blue box.", RED_BALL | BLUE_BOX | {("relation", 0, "left of 1")}),
        (
            "a red ball moves up. a blue box stands still. the ball is above the box",
            RED_BALL
            | BLUE_BOX
            | {("direction", 0, "up"), ("direction", 1, "still"), ("relation", 0, "above 1")},
        ),
        (
            "RED BALL FLOATS UP AT NIGHT!!!",
            RED_BALL | {("direction", 0, "up"), ("background", None, "night")},
        ),
        ("a crimson sphere", RED_BALL),
        (
            "a red rubber ball falls and bounces",
            RED_BALL | {("material", 0, "rubber"), ("event", 0, "bounce")},
        ),
        (
            "a red ball with a blue star hat and two eyes",
            RED_BALL | {("hat", 0, "blue star"), ("eyes", 0, "2")},
        ),
        ("a red ball slides in from the left", RED_BALL | {("event", 0, "enter left")}),
        ("a red ball, the camera zooms in", RED_BALL | {("camera", None, "zoom in")}),
        ("a red ball in glowing neon", RED_BALL | {("style", None, "neon")}),
        (
            "Shot 1: a red ball in a meadow. Shot 2: the red ball at night.",
            RED_BALL | {("shots", None, "2"), ("background", None, "meadow"), ("background", None, "night")},
        ),
        ("two objects: a red ball and a blue box", RED_BALL | BLUE_BOX | {("count", None, "2")}),
        ("", set()),
    ],
)
def test_prompts(text: str, facts: set[tuple[str, int | None, str]]) -> None:
    assert read(text) == facts
    assert parse(text)[1] == ()


@pytest.mark.parametrize(
    "text", ["a gren triangle", "a greeen triangle", "a green trianlge", "a grean trianglee"]
)
def test_typos_of_one_edit_are_read(text: str) -> None:
    stated, unknown = parse(text.replace("gren ", "green "))
    assert stated == (Fact("colour", 0, "green"), Fact("shape", 0, "triangle"))
    assert unknown == ()


def test_short_words_are_not_guessed() -> None:
    assert parse("a rad bell")[1] == ("rad", "bell")


@pytest.mark.parametrize("word", sorted(HELD_OUT_SYNONYMS))
def test_held_out_synonyms_are_understood(word: str) -> None:
    kind, value = HELD_OUT_SYNONYMS[word]
    text = {
        "colour": f"a {word} ring",
        "shape": f"a red {word}",
        "size": f"a {word} ring",
        "direction": f"a ring {word}",
        "background": f"a ring at {word}",
    }[kind]
    stated, unknown = parse(text)
    assert Fact(kind, None if kind == "background" else 0, value) in stated
    assert unknown == ()


@pytest.mark.parametrize("word", ["giraffe", "whale", "plane", "brown", "café", "球", "train"])
def test_what_the_world_does_not_have_is_named(word: str) -> None:
    assert parse(f"a red ball and a {word}")[1] == (word,)


def test_any_text_can_be_read() -> None:
    for text in (
        "hat hat the the",
        "behind behind",
        "shot 2 shot 9",
        "a" * 5000,
        "left of of",
        "\x00 \ud800 🎈",
    ):
        parse(text)


@pytest.mark.parametrize(
    ("text", "size", "colour"),
    [
        ("a big fluffy red ball", "large", "red"),
        ("a big jet back ball", "large", "black"),
        ("a big giraffe and a red ball", None, "red"),
    ],
)
def test_a_strange_adjective_parts_no_other_from_its_noun(text: str, size: str | None, colour: str) -> None:
    found = {fact.kind: fact.value for fact in parse(text)[0]}
    assert found == {"shape": "ball", "colour": colour} | ({"size": size} if size else {})
