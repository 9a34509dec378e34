"""Text to tokens: the longest phrases that mean something, typos read where they can be told from other words."""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from mutoscope.world.lexicon import (
    ELSEWHERE,
    FUNCTION_WORDS,
    IRREGULAR,
    LINKING,
    NO_TYPOS,
    READING,
    Meaning,
)

PIECE = re.compile(r"[^\W_]+(?:-[^\W\d_]+)*|[.;:!?,()\[\]{}|/&+\n]|(?<=\s)[-–—](?=\s)|—")
CONTRACTED = re.compile(r"(?<=[^\W\d_])'(?:s|re|ll|d|m|ve)\b")
NEGATED = re.compile(r"\b(ca|wo|sha|do|does|did|is|are|was|were|has|have|would|could|should)n't\b")
KEY = re.compile(  # "colour=red"
    r"\b(?:colou?r|shape|size|direction|motion|movement|position|background|setting|camera|style|object|subject|type|"
    r"prompt|scene|place|material)\s*="
)
DOUBLED = re.compile(r"(?<=\w)-{2,}(?=\w)")
ENDS = frozenset(".;!?\n|")  # of a sentence


class Token(NamedTuple):
    """kind and value: see lexicon.py. word: what was said. many: of several. noun: an unknown thing, not a quality."""

    kind: str
    value: str
    word: str
    many: bool = False
    noun: bool = False


def tokens(text: str) -> list[Token]:
    """Every phrase, longest first; words that only hold others together are left out where they part nothing."""
    found: list[Token] = []
    for words in _runs(_plain(text)):
        if len(words) == 1 and not words[0][0].isalnum():
            found.append(_mark(words[0]))
            continue
        words = [_spelt(word) for word in words if word not in ("coloured", "colored")]
        words = [_continued(one, word) for one, word in zip(["", *words], words)]
        position = 0
        while position < len(words):
            for length in range(min(_LENGTHS.get(words[position], 0), len(words) - position), 0, -1):
                phrase = " ".join(words[position : position + length])
                if phrase in READING:
                    found.append(_token(READING[phrase], phrase))
                    break
            else:
                length = 1
                found.append(_single(words[position]))
            position += length
    return [token for token in found if token.kind]


def _plain(text: str) -> str:
    """Small letters in their usual form, without accents of typography, contractions and what cannot be seen."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'").replace("‘", "'")
    if not text.isascii():
        text = "".join("" if unicodedata.category(letter) == "Cf" else letter for letter in text)
    text = KEY.sub(", ", DOUBLED.sub("-", text))
    return CONTRACTED.sub("", NEGATED.sub(r"\1 not", text))


def _runs(text: str) -> list[list[str]]:
    """Words between marks, and the marks."""
    runs: list[list[str]] = [[]]
    for piece in PIECE.findall(text):
        if piece[0].isalnum():
            runs[-1] += _parts(piece)
        else:
            runs += [[piece], []]
    return [run for run in runs if run]


def _parts(word: str) -> list[str]:
    """The word; or the parts of one that is joined by hyphens, where they mean something and the whole does not."""
    parts = word.split("-")
    if _spelt(word) in _VOCABULARY:
        return [word]
    if len(parts) == 1:
        glued = ((word[:k], word[k:]) for k in range(3, len(word) - 2))  # "redball"
        return next(
            (list(two) for two in glued if _kind(two[0]) in ("colour", "size") and _kind(two[1]) == "shape"),
            [word],
        )
    return parts if any(part in _VOCABULARY and part not in FUNCTION_WORDS for part in parts) else [word]


def _kind(word: str) -> str:
    return READING.get(word, ("", ""))[0]


def _mark(mark: str) -> Token:
    if mark in "&+":
        return Token("and", "", mark)
    return Token("mark", "." if mark in ENDS else ":" if mark == ":" else ",", mark)


def _token(meaning: Meaning, phrase: str, many: bool = False) -> Token:
    kind, value = meaning
    return Token(kind, value or (phrase if kind == "unknown" else ""), phrase, many)


def _single(word: str) -> Token:
    """A word that begins no known phrase."""
    singular = IRREGULAR.get(word, word[:-1] if word.endswith("s") else "")
    if READING.get(singular, ("", ""))[0] in ("shape", "thing"):
        return _token(READING[singular], word, many=True)
    if word in ELSEWHERE:
        return Token("elsewhere", word, word)
    if word in FUNCTION_WORDS:
        return Token(
            "shaped" if word in ("shaped", "sized") else "function" if word in LINKING else "", word, word
        )
    meant = _meant(word)
    if meant is None and word.endswith("s"):
        meant = _meant(word[:-1])
        if meant is not None and READING.get(meant, ("", ""))[0] == "shape":
            return _token(READING[meant], word, many=True)
    if meant is None:
        return Token("unknown", word, word)
    return _token(READING[meant], meant) if meant in READING else Token("", "", word)


@lru_cache(maxsize=4096)
def _spelt(word: str) -> str:
    """The word, or the word of any phrase that fingers slipped from."""
    if len(word) < 4 or len(word) > 20 or word in _VOCABULARY or word in NO_TYPOS:
        return word
    return next((known for known in _VOCABULARY if len(known) >= 4 and _slip(word, known)), word)


def _continued(one: str, word: str) -> str:
    """The second word of a phrase of two that fingers slipped from to another word: "jet back"."""
    return next((known for known in _SECOND.get(one, ()) if word in NO_TYPOS and _slip(word, known)), word)


@lru_cache(maxsize=4096)
def _meant(word: str) -> str | None:
    """The known word of which this one is a typo, if it can hardly be another word."""
    if word in NO_TYPOS or word in _VOCABULARY or not 3 <= len(word) <= 20:
        return None
    alike = [known for known in _SINGLE_WORDS if known[0] == word[0] and abs(len(known) - len(word)) <= 2]
    if len(word) >= 5:
        if meant := next((known for known in alike if _one_edit(word, known)), None):
            return meant
        if word[1] + word[0] + word[2:] in _SINGLE_WORDS:
            return word[1] + word[0] + word[2:]
    if meant := next((known for known in _SHORT_WORDS if _slip(word, known)), None):
        return meant
    if len(word) >= 7:
        return next((known for known in alike if _is_long(known) and _edits(word, known) <= 2), None)
    return None


_SINGLE_WORDS = tuple(
    sorted(
        {word for word in READING if " " not in word and len(word) >= 4}
        | {word for word in FUNCTION_WORDS if len(word) >= 7}  # shorter ones would swallow whales (while)
    )
)
_PLURALS = tuple(
    f"{word}s" for word, (kind, _) in READING.items() if kind in ("shape", "thing") and " " not in word
)
_VOCABULARY = dict.fromkeys(  # in order of preference
    [phrase for phrase in READING if " " not in phrase]
    + [word for phrase in READING for word in phrase.split()]
    + sorted({*FUNCTION_WORDS, *ELSEWHERE, *IRREGULAR})
    + sorted(_PLURALS)
)
_LENGTHS: dict[str, int] = {}  # words of the longest phrase that begins with a word
for _phrase in READING:
    _LENGTHS[_phrase.split()[0]] = max(_LENGTHS.get(_phrase.split()[0], 0), 1 + _phrase.count(" "))
_SECOND: dict[str, list[str]] = {}
for _one, _two in (phrase.split() for phrase in READING if phrase.count(" ") == 1):
    _SECOND.setdefault(_one, []).append(_two)
_SHORT_WORDS = (
    "red", "green", "blue", "pink", "white", "black", "cyan", "ball", "box", "star", "ring", "left", "right", "down",
    "night", "snow", "neon",
)  # fmt: skip


def _is_long(known: str) -> bool:
    """Whether a word is long enough to be known in spite of two mistakes."""
    return len(known) >= 7 and READING.get(known, ("", ""))[0] in ("colour", "shape", "background", "size")


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
