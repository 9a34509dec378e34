"""Text back to facts: what a prompt states about the world, and which of its words the world does not have."""

import re
from collections.abc import Sequence

from mutoscope.world.facts import Fact
from mutoscope.world.words import (
    COUNT_WORDS,
    ELSEWHERE,
    FUNCTION_WORDS,
    NO_TYPOS,
    NUMBER_WORDS,
    READING,
    RELATIONS_READ,
)

WORD = re.compile(r"[^\W_]+(?:-[^\W\d_]+)*")
DESCRIBED = ("colour", "size", "material", "shape")  # what may follow an adjective
Token = tuple[str, str]


def parse(text: str) -> tuple[tuple[Fact, ...], tuple[str, ...]]:
    """(facts stated, content words not known). Typos are read where they can be told from other words.

    Colours and sizes belong to the next shape, or to the last one if none follows; motion to the last subject: in
    "a ball rolls behind a box to the left" that is the ball. A noun repeated with "the" is the same object; of
    "two balls", and of "they", everyone moves.
    """
    tokens = _counted(_with_hats(list(_tokens(text.lower()))))
    nouns, found = _read_nouns(tokens)
    unknown: list[str] = []
    stated: list[Fact] = []
    shots = 0
    subjects: tuple[int, ...] = ()
    pending: tuple[int, str] | None = None
    together = False
    for position, (kind, value) in enumerate(tokens):
        match kind:
            case "shape":
                if pending is None or pending[0] == nouns[position]:
                    subjects = (*subjects, nouns[position]) if together else (nouns[position],)
                else:
                    subject, link = pending
                    subjects = (subject,)
                    kinds = "event" if link == "collide" else "relation"
                    stated.append(Fact(kinds, subject, f"{link} {nouns[position]}"))
                    if link == "collide":
                        stated.append(Fact(kinds, nouns[position], f"{link} {subject}"))
                pending, together = None, False
            case "also":
                together = True
            case "all":
                subjects = tuple(sorted({nouns[place] for place in nouns if place < position}))
            case "direction" | "event" | "hat" | "eyes":
                stated += [Fact(kind, subject, value) for subject in subjects]
            case "relation" | "link" if subjects:
                pending = (subjects[-1], value)
            case "background" | "count" | "camera" | "style":
                stated.append(Fact(kind, None, value))
            case "shot":
                shots = max(shots, int(value))
            case "unknown":
                unknown.append(value)
    if shots > 1:
        stated.append(Fact("shots", None, str(shots)))
    bounced = {fact.subject for fact in stated if fact.value == "bounce"}  # down and up again is no direction
    stated = [fact for fact in stated if fact.value != "down" or fact.subject not in bounced]
    return tuple(dict.fromkeys([*found, *stated])), tuple(dict.fromkeys(unknown))


def _counted(tokens: Sequence[Token]) -> list[Token]:
    """ "two red balls" is "a red ball also a red ball"."""
    kept: list[Token] = []
    position = 0
    while position < len(tokens):
        kind, value = tokens[position]
        position += 1
        if kind != "number":
            kept.append((kind, value))
            continue
        end = position
        while end < len(tokens) and tokens[end][0] in ("colour", "size", "material"):
            end += 1
        if end < len(tokens) and tokens[end][0] == "shape":
            noun = [("article", "a"), *tokens[position : end + 1]]
            kept += noun + [("also", ""), *noun] * (int(value) - 1)
            position = end + 1
    return kept


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
    definite, latest = False, 0
    for position, (kind, value) in enumerate(tokens):
        if kind == "unknown" and tokens[position + 1 : position + 2] and tokens[position + 1][0] in DESCRIBED:
            continue  # an adjective more: "a big fluffy red ball"
        if kind in ("article", "background", "unknown", "elsewhere"):
            if kind == "article" and things:  # "the ball is red, a box ..."
                things[latest] = adjectives | things[latest]
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
            nouns[position] = latest = same
            if not definite:
                announced.discard(same)
            adjectives, definite = {}, False
    if things:
        things[latest] = adjectives | things[latest]
    facts_found = [Fact(kind, i, value) for i, thing in enumerate(things) for kind, value in thing.items()]
    return nouns, facts_found


def _agrees(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(other.get(kind, value) == value for kind, value in one.items())


def _tokens(text: str) -> list[Token]:
    """(kind, value) of every phrase, longest first; function words are dropped, articles kept."""
    words = [_spelt(word) for word in WORD.findall(text)]
    words = [_continued(one, word) for one, word in zip(["", *words], words)]
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
    if word in NUMBER_WORDS:
        return "number", str(NUMBER_WORDS[word])
    if word in ("they", "both"):
        return "all", word
    if word in ELSEWHERE:
        return "elsewhere", word
    if word in FUNCTION_WORDS:
        return "function", word
    if word.endswith("s") and READING.get(word[:-1], ("", ""))[0] == "shape":
        return READING[word[:-1]]
    meant = _meant(word)
    if meant is None and word.endswith("s"):
        meant = _meant(word[:-1])
    return READING.get(meant, ("function", word)) if meant is not None else ("unknown", word)


def _spelt(word: str) -> str:
    """The word, or the word of any phrase that fingers slipped from."""
    if len(word) < 4 or len(word) > 20 or word in _VOCABULARY or word in NO_TYPOS:
        return word
    return next((known for known in _VOCABULARY if len(known) >= 4 and _slip(word, known)), word)


def _continued(one: str, word: str) -> str:
    """The second word of a phrase of two that fingers slipped from to another word: "jet back"."""
    return next((known for known in _SECOND.get(one, ()) if word in NO_TYPOS and _slip(word, known)), word)


def _meant(word: str) -> str | None:
    """The known word of which this one is a typo, if it can hardly be another word."""
    if word in NO_TYPOS or not 3 <= len(word) <= 20:
        return None
    if len(word) >= 5:
        close = (known for known in _SINGLE_WORDS if abs(len(known) - len(word)) <= 1)
        if meant := next((known for known in close if _one_edit(word, known)), None):
            return meant
    if meant := next((known for known in _SHORT_WORDS if _slip(word, known)), None):
        return meant
    if len(word) >= 7:
        same_start = (known for known in _SINGLE_WORDS if known[0] == word[0] and len(known) >= 7)
        return next((known for known in same_start if known in READING and _edits(word, known) <= 2), None)
    return None


_SINGLE_WORDS = tuple(
    sorted(
        {word for word in READING if " " not in word and len(word) >= 4}
        | {word for word in FUNCTION_WORDS if len(word) >= 7}  # shorter ones would swallow whales (while)
    )
)
_VOCABULARY = dict.fromkeys(  # in order of preference
    [phrase for phrase in READING if " " not in phrase]
    + [word for phrase in (*READING, *RELATIONS_READ, *COUNT_WORDS) for word in phrase.split()]
    + sorted({*FUNCTION_WORDS, *ELSEWHERE, *NUMBER_WORDS, "they", "both"})
)
_SECOND: dict[str, list[str]] = {}
for _one, _two in (phrase.split() for phrase in READING if phrase.count(" ") == 1):
    _SECOND.setdefault(_one, []).append(_two)
_SHORT_WORDS = (
    "red", "green", "blue", "pink", "white", "black", "cyan", "ball", "box", "star", "ring", "left", "right", "down",
    "night", "snow", "neon",
)  # fmt: skip


def _slip(word: str, known: str) -> bool:
    """Whether fingers slipped: two neighbours swapped, a letter after the first left out or doubled."""
    if word[0] != known[0] or abs(len(word) - len(known)) > 1:
        return False
    if len(word) == len(known):
        return sorted(word) == sorted(known) and _one_edit(word, known)
    if len(word) < len(known):
        return _one_edit(word, known)
    return any(word == known[: k + 1] + known[k:] for k in range(len(known)))


def _edits(one: str, other: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours from one to the other (optimal alignment)."""
    if abs(len(one) - len(other)) > 2:
        return 3
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, match in enumerate(other, 1):
            cost = min(row[j - 1] + 1, rows[-1][j] + 1, rows[-1][j - 1] + (letter != match))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == match:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]


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
