"""What a prompt states: facts object by object, which of them a text has lost, and all of them in plain words."""

import itertools
from collections.abc import Iterable, Sequence

from mutoscope.world.captions import parse
from mutoscope.world.facts import OPPOSITE, Fact, Truth
from mutoscope.world.stage import SIZES
from mutoscope.world.words import (
    BACKGROUND_WORDS,
    CAMERA_WORDS,
    EYES,
    MATERIAL_WORDS,
    NUMBERS,
    RELATION_WORDS,
    STYLE_WORDS,
)

MATCHED = 4  # things up to which every way of pairing them is tried
MOVES = {
    "left": "moves to the left", "right": "moves to the right", "up": "moves up", "down": "moves down",
    "still": "stays still", "bounce": "bounces", "enter left": "slides in from the left",
    "enter right": "slides in from the right", "leave left": "slides out to the left",
    "leave right": "slides out to the right",
}  # fmt: skip

RANKS = ("first", "second", "third", "fourth")

Drafts = dict[int, dict[str, list[str]]]
"""Per object of the prompt, the stated values of each kind of fact."""


def draft(stated: Iterable[Fact]) -> Drafts:
    """What is stated of each object, in the order of the prompt."""
    drafts: Drafts = {}
    for fact in stated:
        if fact.subject is not None:
            drafts.setdefault(fact.subject, {}).setdefault(fact.kind, []).append(fact.value)
    return drafts


def lost(stated: Sequence[Fact], told: Sequence[Fact]) -> tuple[Fact, ...]:
    """The stated facts that `told` does not contain, for the best way to pair the objects of both."""
    theirs, ours, there = _both_ways(told), objects(stated), objects(told)
    most = max(ours, there)
    if most > MATCHED:
        order: Sequence[int] = _likely(stated, told, most)
        return tuple(fact for fact in stated if not _is_told(fact, order, theirs, there))
    paired = [fact for fact in stated if fact.kind == "relation" or fact.value.startswith("collide")]
    alone = [fact for fact in stated if fact.subject is not None and fact not in paired]
    misses = [[0] * most for _ in range(ours)]  # by subject, and by the object told that it might be
    for fact in alone:
        for other in range(most):
            misses[fact.subject or 0][other] += not _is_told(fact, [other] * ours, theirs, there)

    def cost(order: Sequence[int]) -> int:
        pairs = sum(not _is_told(fact, order, theirs, there) for fact in paired)
        return pairs + sum(row[other] for row, other in zip(misses, order))

    order = min(itertools.permutations(range(most), ours), key=cost)
    return tuple(fact for fact in stated if not _is_told(fact, order, theirs, there))


def _likely(stated: Sequence[Fact], told: Sequence[Fact], number: int) -> list[int]:
    """For each object that is stated, the one of those told that is most like it and not taken."""
    said = [{(fact.kind, fact.value) for fact in told if fact.subject == index} for index in range(number)]
    free, order = list(range(number)), []
    for subject in range(objects(stated)):
        mine = {(fact.kind, fact.value) for fact in stated if fact.subject == subject}
        order.append(max(free, key=lambda index: len(mine & said[index])))
        free.remove(order[-1])
    return order


def objects(told: Iterable[Fact]) -> int:
    """The number of objects that the facts are about."""
    named = [0]
    for fact in told:
        if fact.subject is not None:
            other = fact.value.rsplit(" ", 1)[-1] if fact.kind in ("relation", "event") else ""
            named += [1 + fact.subject, 1 + int(other) if other.isdigit() else 0]
    return max(named)


def _both_ways(told: Iterable[Fact]) -> set[Fact]:
    """The facts, and each relation from the other side too."""
    found = set(told)
    for fact in told:
        if fact.kind == "relation":
            word, other = fact.value.rsplit(" ", 1)
            found.add(Fact("relation", int(other), f"{OPPOSITE[word]} {fact.subject}"))
    return found


def _is_told(fact: Fact, order: Sequence[int], told: set[Fact], there: int) -> bool:
    if fact.kind == "count":
        return fact in told or there == int(fact.value)
    if fact.subject is None:
        return fact in told
    subject, value = order[fact.subject], fact.value
    if fact.kind == "hat":
        hats = [
            set(other.value.split()) for other in told if other.kind == "hat" and other.subject == subject
        ]
        return any(set(value.split()) - set(SIZES) <= hat for hat in hats)
    if fact.kind == "relation" or value.startswith("collide"):
        words, other_one = value.rsplit(" ", 1)
        value = f"{words} {order[int(other_one)]}"
    return Fact(fact.kind, subject, value) in told


def relations(drafts: Drafts) -> list[tuple[int, str, int]]:
    pairs = ((i, value.rsplit(" ", 1)) for i, each in drafts.items() for value in each.get("relation", ()))
    return [(i, word, int(other)) for i, (word, other) in pairs]


# --- plain words


def plainly(stated: Sequence[Fact]) -> str | None:
    """Every stated fact in canonical words and nothing else; None when that cannot be, as for the shots of a story."""
    text = render_facts(stated)
    return text if objects(stated) and not lost(stated, parse(text)[0]) else None


def render_facts(stated: Sequence[Fact], told: Truth | None = None) -> str:
    """Every stated fact in canonical words, one after the other; colours and faces from a completed truth if given."""
    drafts = draft(stated)
    count = len(told.things) if told else max(drafts, default=-1) + 1
    nouns = [_noun(drafts, i, told) for i in range(count)]
    sentences = []
    for i, noun in enumerate(nouns):
        mine = drafts.get(i, {})
        ways = [value for value in (*mine.get("direction", ()), *mine.get("event", ())) if value in MOVES]
        if told and not ways and not told.shots and told.things[i].direction in MOVES:
            ways = [told.things[i].direction]
        sentences.append(f"{with_article(noun)}{_face(drafts, i, told)} {_moves(ways)}".rstrip())
    names = [_told_apart(nouns, i) for i in range(count)]
    for i, word, j in relations(drafts):
        if max(i, j) < count:  # the world holds so many things, a prompt may name more
            sentences.append(f"{names[i]} is {RELATION_WORDS[word][0]} {names[j]}")
    for i, each in drafts.items():
        struck = [int(event.split()[1]) for event in each.get("event", ()) if event.startswith("collide")]
        sentences += [f"{names[i]} hits {names[j]}" for j in struck if i < j < count]
    places = [fact.value for fact in stated if fact.kind == "background"]
    for fact in stated:
        match fact.kind:
            case "background" if fact.value == places[0]:
                sentences.append(
                    f"the scene is set {', '.join(BACKGROUND_WORDS[place][0] for place in places)}"
                )
            case "camera":
                sentences.append(CAMERA_WORDS[fact.value][0])
            case "style":
                sentences.append(STYLE_WORDS[fact.value][0])
            case "count" if int(fact.value) in NUMBERS:
                verb = "is" if fact.value == "1" else "are"
                sentences.append(f"there {verb} {NUMBERS[int(fact.value)][0]} in the picture")
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def _moves(ways: Sequence[str]) -> str:
    """ "moves up and then down", "bounces and slides out to the left"."""
    if len(ways) > 1 and set(ways) in ({"left", "right"}, {"up", "down"}):
        return f"{MOVES[ways[0]]} and then {MOVES[ways[1]].removeprefix('moves ')}"
    return " and ".join(MOVES[way] for way in ways)


def _told_apart(nouns: Sequence[str], index: int) -> str:
    """ "the red ball"; "the second red ball" where there are two."""
    alike = [i for i, noun in enumerate(nouns) if noun == nouns[index]]
    rank = f"{RANKS[alike.index(index)]} " if 1 < len(alike) <= len(RANKS) else ""
    return f"the {rank}{nouns[index]}"


def with_article(words: str) -> str:
    return f"{'an' if words[:1] in tuple('aeiou') else 'a'} {words}"


def _noun(drafts: Drafts, index: int, told: Truth | None) -> str:
    """ "small red wooden box"."""
    colour, shape = _stated(drafts, index, "colour"), _stated(drafts, index, "shape") or "ball"
    if told:
        colour, shape = told.things[index].colour, told.things[index].shape
    material = _stated(drafts, index, "material")
    wooden = MATERIAL_WORDS[material][0] if material else ""
    return " ".join(filter(None, (_stated(drafts, index, "size"), colour, wooden, shape)))


def _face(drafts: Drafts, index: int, told: Truth | None) -> str:
    """ " with a blue star hat and two eyes"; "" without a face."""
    mine = drafts.get(index, {})
    worn = [f"{word} hat".strip() for word in mine.get("hat", ())[:1]]
    eyes = [EYES[int(number)] for number in mine.get("eyes", ())[:1]]
    if told and (hat := told.things[index].hat) is not None:
        worn, eyes = [f"{hat[1]} {hat[0]} hat"], [EYES[told.things[index].eyes]]
    parts = [with_article(hat) for hat in worn] + eyes
    return f" with {' and '.join(parts)}" if parts else ""


def _stated(drafts: Drafts, index: int, kind: str) -> str:
    return drafts.get(index, {}).get(kind, [""])[0]
