"""Text back to facts: what a prompt states about the world, and which of its words the world does not have."""

import re
from collections.abc import Sequence

from mutoscope.world.facts import Fact
from mutoscope.world.words import COUNT_WORDS, FUNCTION_WORDS, READING, RELATIONS_READ

WORD = re.compile(r"[^\W_]+(?:-[^\W\d_]+)*")
Token = tuple[str, str]


def parse(text: str) -> tuple[tuple[Fact, ...], tuple[str, ...]]:
    """(facts stated, content words not known). Typos at edit distance 1 in words of 5 letters and more are read.

    Colours and sizes belong to the next shape, motion to the last subject: in "a ball rolls behind a box to the
    left" that is the ball. A noun repeated with "the" is the same object.
    """
    tokens = _with_hats(list(_tokens(text.lower())))
    nouns, found = _read_nouns(tokens)
    unknown: list[str] = []
    stated: list[Fact] = []
    shots = 0
    subject: int | None = None
    pending: tuple[int, str] | None = None
    for position, (kind, value) in enumerate(tokens):
        match kind:
            case "shape":
                if pending is None or pending[0] == nouns[position]:
                    subject = nouns[position]
                else:
                    subject, link = pending
                    kinds = "event" if link == "collide" else "relation"
                    stated.append(Fact(kinds, subject, f"{link} {nouns[position]}"))
                    if link == "collide":
                        stated.append(Fact(kinds, nouns[position], f"{link} {subject}"))
                pending = None
            case "direction" | "event" | "hat" | "eyes" if subject is not None:
                stated.append(Fact(kind, subject, value))
            case "relation" | "link" if subject is not None:
                pending = (subject, value)
            case "background" | "count" | "camera" | "style":
                stated.append(Fact(kind, None, value))
            case "shot":
                shots = max(shots, int(value))
            case "unknown":
                unknown.append(value)
    if shots > 1:
        stated.append(Fact("shots", None, str(shots)))
    return tuple(dict.fromkeys([*found, *stated])), tuple(dict.fromkeys(unknown))


def _with_hats(tokens: Sequence[Token]) -> list[Token]:
    """ "a blue triangle hat" is one token, not an object; so is "a blue hat", of no shape that is named."""
    kept: list[Token] = []
    for token in tokens:
        if token[0] != "hat":
            kept.append(token)
            continue
        words: list[str] = []
        while kept and kept[-1][0] in ("shape", "colour", "size"):
            words.insert(0, kept.pop()[1])
        if kept and kept[-1][0] == "article":
            kept.pop()
        kept.append(("hat", " ".join(words)))
    return kept


def _read_nouns(tokens: Sequence[Token]) -> tuple[dict[int, int], list[Fact]]:
    """Object index of every shape word by position, and the facts its adjectives state."""
    nouns: dict[int, int] = {}
    things: list[dict[str, str]] = []
    announced: set[int] = set()  # spoken of with "the" and not yet introduced with "a"
    adjectives: dict[str, str] = {}
    definite = False
    for position, (kind, value) in enumerate(tokens):
        if kind == "article":
            adjectives, definite = {}, value == "the"
        elif kind in ("colour", "size", "material"):
            adjectives[kind] = value
        elif kind == "shape":
            thing = {**adjectives, "shape": value}
            candidates = range(len(things)) if definite else sorted(announced)
            same = next((i for i in candidates if _agrees(thing, things[i])), len(things))
            if same == len(things):
                things.append({})
                if definite:
                    announced.add(same)
            things[same] |= thing
            nouns[position] = same
            if not definite:
                announced.discard(same)
            adjectives, definite = {}, False
    facts_found = [Fact(kind, i, value) for i, thing in enumerate(things) for kind, value in thing.items()]
    return nouns, facts_found


def _agrees(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(other.get(kind, value) == value for kind, value in one.items())


def _tokens(text: str) -> list[Token]:
    """(kind, value) of every phrase, longest first; function words are dropped, articles kept."""
    words = WORD.findall(text)
    tokens, position = [], 0
    while position < len(words):
        for length in range(min(6, len(words) - position), 0, -1):
            phrase = " ".join(words[position : position + length])
            token = _phrase(phrase, alone=length == 1)
            if token is not None:
                break
        else:
            length, token = 1, _single(words[position])
        if token[0] != "function":
            tokens.append(token)
        position += length
    return tokens


def _phrase(phrase: str, alone: bool) -> Token | None:
    if phrase in RELATIONS_READ and not (alone and phrase in ("left of", "right of")):
        return "relation", RELATIONS_READ[phrase]
    if phrase in COUNT_WORDS:
        return "count", str(COUNT_WORDS[phrase])
    return READING.get(phrase)


def _single(word: str) -> Token:
    """A word that begins no known phrase."""
    if word in ("a", "an", "the"):
        return "article", word
    if word in FUNCTION_WORDS:
        return "function", word
    if word.endswith("s") and READING.get(word[:-1], ("", ""))[0] == "shape":
        return READING[word[:-1]]
    if len(word) >= 5:
        close = [
            known for known in _SINGLE_WORDS if abs(len(known) - len(word)) <= 1 and _one_edit(word, known)
        ]
        if close:
            return READING.get(close[0], ("function", word))
    return "unknown", word


_SINGLE_WORDS = tuple(
    sorted(
        {word for word in READING if " " not in word and len(word) >= 4}
        | {word for word in FUNCTION_WORDS if len(word) >= 7}  # shorter ones would swallow whales (while)
    )
)


def _one_edit(one: str, other: str) -> bool:
    """Whether one insertion, deletion, substitution or swap of neighbours turns `one` into `other`."""
    if one == other:
        return True
    if len(one) > len(other):
        one, other = other, one
    i = next((k for k in range(len(one)) if one[k] != other[k]), len(one))
    if len(one) < len(other):
        return one[i:] == other[i + 1 :]
    swapped = one[:i] + one[i : i + 2][::-1] + one[i + 2 :]
    return one[i + 1 :] == other[i + 1 :] or swapped == other
