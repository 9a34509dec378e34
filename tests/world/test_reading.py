"""Prompts that people type, read as facts."""

import pytest

from mutoscope.world.captions import HELD_OUT_SYNONYMS, Fact, parse
from mutoscope.world.lexicon import FUNCTION_WORDS, NO_TYPOS
from mutoscope.world.reading import read as listen


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


def said(text: str) -> str:
    """ "red ball (left, above 1) + blue box @ night"."""
    things: dict[int, tuple[list[str], list[str]]] = {}
    clip = []
    for kind, subject, value in ((fact.kind, fact.subject, fact.value) for fact in parse(text)[0]):
        if subject is None:
            clip.append(f"{kind} {value}" if kind in ("count", "shots") else value)
        else:
            looks, does = things.setdefault(subject, ([], []))
            looks += [value] if kind in ("size", "colour", "material", "shape") else []
            does += [value] if kind in ("direction", "event", "relation", "eyes") else []
            does += [f"{value} hat".strip()] if kind == "hat" else []
    order = ("small", "medium", "large")
    told = [
        " ".join(sorted(looks, key=lambda word: (word in SHAPED, word not in order)))
        + (f" ({', '.join(does)})" if does else "")
        for _, (looks, does) in sorted(things.items())
    ]
    return " + ".join(told) + (f" @ {', '.join(clip)}" if clip else "")


SHAPED = ("ball", "box", "triangle", "star", "ring", "capsule")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("two boxes, one red and one blue", "red box + blue box"),
        ("3x red ball", "red ball + red ball + red ball"),
        ("two yellow stars dancing at night", "yellow star + yellow star @ night"),
        ("my ball is green and it rolls away", "green ball"),
        ("crane up, a blue ball sinks", "blue ball (down) @ tilt up"),
        ("EXT. BEACH - DAY. A red ball rolls in from the left.", "red ball (enter left) @ ocean, day"),
        ("pull back to reveal two boxes, red and blue", "red box + blue box @ zoom out"),
        ("push-in on a huge magenta star", "large pink star @ zoom in"),
        ("the star yellow go up in the night", "yellow star (up) @ night"),
        ("a box who is small and orange, it doesn't move", "small orange box (still)"),
        ("three ball blue, they move up", "blue ball (up) + blue ball (up) + blue ball (up)"),
        ("ball very big white on night", "large white ball @ night"),
        ("a small blue box, motionless, waiting in the falling snow", "small blue box (still) @ snow"),
        ("softly, a lavender star rises over the meadow", "purple star (up) @ meadow"),
        ("two identical black boxes standing still", "black box (still) + black box (still)"),
        ("both balls are red", "red ball + red ball"),
        ("many red balls", "red ball + red ball + red ball"),
        (
            "two red balls roll left and a blue box stands still",
            "red ball (left) + red ball (left) + blue box (still)",
        ),
        ("a red and a blue ball", "red ball + blue ball"),
        ("a red, a green, and a blue box", "red box + green box + blue box"),
        ("red, green and yellow stars", "red star + green star + yellow star"),
        ("twin stars rising", "star (up) + star (up)"),
        (
            "a green ring that rolls left while a red box stays where it is",
            "green ring (left) + red box (still)",
        ),
        (
            "there's a capsule. it's black. it's sliding to the right. it's night.",
            "black capsule (right) @ night",
        ),
        (
            "a red ball and a blue ball. The red one rolls left, the blue one stands still.",
            "red ball (left) + blue ball (still)",
        ),
        ("a red ball with a blue one above it", "red ball + blue ball (above 0)"),
        ("a big star and a small one", "large star + small star"),
        ("two boxes. the first is red, the second is green", "red box + green box"),
        ("two balls. one rolls left, the other stands still", "ball (left) + ball (still)"),
        ("a red ball between two blue boxes", "red ball (right of 1, left of 2) + blue box + blue box"),
        ("a ball between a box and a ring", "ball (right of 1, left of 2) + box + ring"),
        ("a star over a meadow", "star @ meadow"),
        ("star over box", "star (above 1) + box"),
        ("to the left of the blue box there is a red ball", "blue box + red ball (left of 0)"),
        ("above the green box a pink star hangs", "green box + pink star (above 0, still)"),
        ("a box with a ball on top", "box + ball (above 0)"),
        ("a ball, a box to its left", "ball + box (left of 0)"),
        ("a blue box with a red ball in front of it", "blue box + red ball (in front of 0)"),
        (
            "a small yellow star floats up and next to it there is a big ring",
            "small yellow star (up) + large ring",
        ),
        (
            "a red ball stands to the left of a blue box which stands to the left of a green star",
            "red ball (still, left of 1) + blue box (still, left of 2) + green star",
        ),
        ("a red ball and a blue ball crash into each other", "red ball (collide 1) + blue ball (collide 0)"),
        ("blue ball hit by red ball", "blue ball (collide 1) + red ball (collide 0)"),
        ("A red ball and a blue box go up together", "red ball (up) + blue box (up)"),
        ("a red ball and a blue box rolls left", "red ball + blue box (left)"),
        (
            "a red ball, a blue box and a green star move left",
            "red ball (left) + blue box (left) + green star (left)",
        ),
        ("no ball, just a box", "box"),
        ("a ball not moving", "ball (still)"),
        ("a box that isn't red", "box"),
        ("don't show a ball; show a yellow star", "yellow star"),
        ("not a red ball but a green one", "green ball"),
        (
            "the giraffe isn't here but tiny red balls roll left",
            "small red ball (left) + small red ball (left)",
        ),
        ("a red ball or a blue ball", "red ball"),
        ("a red or blue ball", "red ball"),
        ("nothing moves. a blue box.", "blue box (still)"),
        ("a box without a hat", "box"),
        ("the red ball isn't rolling", "red ball (still)"),
        ("a ball which never moves left", "ball"),
        ("an itty-bitty blue triangle", "small blue triangle"),
        ("not so big ball", "ball"),
        ("a lemon-yellow disc", "yellow ball"),
        ("a blood-red ring at night", "red ring @ night"),
        ("sea green ring", "green ring"),
        ("a midnight blue ball", "blue ball"),
        ("a light blue ball", "cyan ball"),
        ("a cyan box on a white background", "cyan box"),
        ("a star against a black background", "star"),
        ("a yellow star in a red desert", "yellow star @ desert"),
        ("a violet-coloured triangle", "purple triangle"),
        ("a round red thing", "red ball"),
        ("a ball-shaped blue thing", "blue ball"),
        ("a square ball", "ball"),
        ("a blue ball with a red triangular hat and one eye", "blue ball (red triangle hat, 1)"),
        ("a one-eyed blue ball", "blue ball (1)"),
        ("a ball goes to the east", "ball (right)"),
        ("a star heading north", "star (up)"),
        ("upward moving green box", "green box (up)"),
        ("a red ball and a falling blue box", "red ball + blue box (down)"),
        ("a ball comes from the left", "ball (enter left)"),
        ("a ball leaves the frame to the right", "ball (leave right)"),
        ("a ball moves to the left of the screen", "ball (left)"),
        ("a red ball moving right-to-left", "red ball (left)"),
        ("a ball that goes from the left to the right", "ball (right)"),
        ("a box descends slowly, camera static", "box (down)"),
        ("camera pans slowly to the right while a green ball stays still", "green ball (still) @ pan right"),
        ("the camera slowly zooms in on a red box", "red box @ zoom in"),
        ("follow the red ball with the camera", "red ball @ follow"),
        ("close up of a red ball", "red ball"),
        ("ball red left box blue right", "red ball (left) + blue box (right)"),
        ("star yellow, box green", "yellow star + green box"),
        ("big, red ball", "large red ball"),
        ("BALL RED NIGHT", "red ball @ night"),
        ("box blue still snow", "blue box (still) @ snow"),
        ("redball", "red ball"),
        ('{"shape": "star", "color": "yellow"}', "yellow star"),
        ("color=red shape=ball direction=left", "red ball (left)"),
        ("1. a red ball 2. a blue box 3. at sunset", "red ball + blue box @ sunset"),
        ("a red ball and a black cat rolling left", "red ball"),
        ("a pumpkin rolls left", ""),
        ("a red ball with white stripes", "red ball"),
        ("up goes the balloon, down goes the box", "box (down)"),
        ("three shapes moving left", " (left) +  (left) +  (left) @ count 3"),
        ("two things: a ball and a star", "ball + star @ count 2"),
        ("the thing is that a red ball rolls left", "red ball (left)"),
        ("something red", "red"),
        ("night", " @ night"),
        ("ball wears hat", "ball (hat)"),
        ("one ball goes up, another goes down", "ball (up) + ball (down)"),
        ("neither of the two balls moves", "ball (still) + ball (still)"),
        ("ball = red, box = blue", "red ball + blue box"),
        (
            "two rubber balls collide in the meadow",
            "rubber ball (collide 1) + rubber ball (collide 0) @ meadow",
        ),
        ("a lavender-coloured room with a red ball inside", "red ball @ lavender"),
        ("up", " (up)"),
    ],
)
def test_prompts_as_people_type_them(text: str, told: str) -> None:
    assert said(text) == told


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a ball on a white background", ("white background",)),
        ("a yellow star in a red desert", ("red desert",)),
        ("a yellow star on golden dunes", ()),
        ("a ball inside a ring", ("inside",)),
        ("a ball rolls towards a box", ("towards",)),
        ("a wide shot of a red ball", ("wide shot",)),
        ("a ball that stops", ("stops",)),
        ("a ball that never stops", ()),
        ("a red ball, no text, no people", ()),
        ("a fast red ball", ("fast",)),
        ("a ball follows a box", ("follows",)),
        ("a dozen stars", ("dozen",)),
        ("an orange and a lemon", ("orange", "lemon")),
        ("a blue ball on a table at dawn in a cartoon", ("table", "dawn", "cartoon")),
    ],
)
def test_what_cannot_be_shown_is_named_and_nothing_else(text: str, names: tuple[str, ...]) -> None:
    assert parse(text)[1] == names


def test_common_words_are_not_taken_for_slips() -> None:
    for word in sorted(NO_TYPOS - FUNCTION_WORDS):
        stated, unknown = parse(f"a red ball and the {word}")
        assert [fact.value for fact in stated] == ["red", "ball"], word
        assert unknown == (word,)


def test_what_is_open_or_denied_is_told_apart_from_facts() -> None:
    assert listen("a red ball rolls and a box moves").open_ways == ((0, "sideways"), (1, "any"))
    assert listen("a red ball rolls left").open_ways == ()
    assert listen("a floating box").open_ways == ((0, "aloft"),)
    assert listen("a ball next to a box").beside == ((0, 1),)
    assert listen("three rings side by side").beside == ((0, 1), (1, 2))
    assert listen("a ball on the left and a box on the right").places == ((0, "left"), (1, "right"))
    assert listen("left: a ball, right: a box").places == ((0, "left"), (1, "right"))
    assert listen("a small red ball rolls left, on the left.").places == ()  # as in captions
    assert listen("a ball, not red, without a hat").denied == {("colour", "red"), ("hat", "")}
    assert listen("a red blue ball").overruled == (("red", "blue"),)
    assert listen("a red ball that is blue").overruled == (("blue", "red"),)


def test_each_shot_of_a_story_has_its_own_facts() -> None:
    first, second = listen("Shot 1: a red ball rolls left. Shot 2: it meets a blue box at night.").shots
    assert {fact.value for fact in first} == {"red", "ball", "left"}
    assert {fact.value for fact in second} == {"blue", "box", "night"}


@pytest.mark.parametrize(
    "text",
    ["ｒｅｄ ｂａｌｌ", "a red ball\u200b", "a red\x00 ball", "a red ball’s", "RED-BALL!", "\ufeffred ball"],
)
def test_signs_that_nobody_sees_do_not_matter(text: str) -> None:
    assert {fact.value for fact in parse(text)[0]} == {"red", "ball"}
    assert parse(text)[1] == ()
