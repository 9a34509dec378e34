"""The cards of a storyboard: what is seen from which second on, and the shots that they make.

A card begins a new shot (a hard cut) when it stands closer than NEAR seconds after the one before, or says so
with `cut = true`; else what the card before shows turns into it. Nothing here needs torch.
"""

import math
import re
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path

from mutoscope.config import load_config
from mutoscope.errors import InputError
from mutoscope.world.words import SHAPE_WORDS

NEAR = 1.0
"""A card closer than this after the one before, in seconds, is a hard cut."""

SPLIT = re.compile(
    r"[.;,]?\s*\b(?:and\s+)?(?:then|next|after that|afterwards|finally|cut to|at last)\b[,:]?\s*|\n+", re.I
)
PRONOUN = re.compile(r"^\s*(?P<one>it|he|she)\b|^\s*they\b", re.I)
THING = re.compile(
    rf"^.*?\b(?:{'|'.join(sorted(map(re.escape, chain(*SHAPE_WORDS.values())), key=len, reverse=True))})s?\b",
    re.I,
)
LEAD = re.compile(r"^\s*(?:first(?:ly)?|to begin with|shot \d+|\d+[.)])\s*[,:]?\s*", re.I)


@dataclass(frozen=True)
class Card:
    """What is seen from `at` seconds on: words, a picture that is shown at that moment, or a whole clip.

    `cut` decides whether a new shot begins here; None leaves it to the spacing. `expanded` is what the model is
    told for the prompt, the prompt itself when empty. `character` is a picture of whom the shot that begins here is
    about, as in `Request.character`. `sha256` is that of the file, for the record of a finished clip; when it is given
    the file must be that one.
    """

    at: float
    prompt: str = ""
    image: str | None = None
    clip: str | None = None
    cut: bool | None = None
    expanded: str = ""
    sha256: str | None = None
    character: str | None = None

    @property
    def file(self) -> str | None:
        """The picture or clip of the card."""
        return self.image or self.clip or self.character

    @property
    def told(self) -> str:
        """What the model is told."""
        return self.expanded or self.prompt

    def __post_init__(self) -> None:
        if not (math.isfinite(self.at) and self.at >= 0):
            raise InputError(f"A card stands at {self.at:g} s; a time is 0 s or later.")
        files = {"an image": self.image, "a clip": self.clip, "a character": self.character}
        if len(given := [name for name, file in files.items() if file is not None]) > 1:
            raise InputError(f"The card at {self.at:g} s has {' and '.join(given)}; give it one of them.")
        if not (self.prompt or self.file):
            raise InputError(f"The card at {self.at:g} s is empty; give it a prompt, an image or a clip.")


@dataclass(frozen=True)
class Storyboard:
    """Cards in time, and the settings of the whole clip; None means the model's default.

    The same JSON serves the command line, HTTP and the page. Raises InputError for cards out of order, at the
    same moment, or outside the clip.
    """

    cards: tuple[Card, ...]
    seconds: float
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    negative: str = ""
    sampler: str | None = None

    def __post_init__(self) -> None:
        if not self.cards:
            raise InputError("The storyboard has no cards; give it at least one.")
        if self.cards[0].at != 0:
            raise InputError(f"The first card stands at {self.cards[0].at:g} s; a storyboard begins at 0 s.")
        for before, card in pairwise(self.cards):
            if card.at <= before.at:
                raise InputError(
                    f"The cards at {before.at:g} s and {card.at:g} s overlap; each stands later than the one before."
                )
        if not (math.isfinite(self.seconds) and self.seconds > self.cards[-1].at):
            raise InputError(
                f"The card at {self.cards[-1].at:g} s is outside the storyboard of {self.seconds:g} s; "
                "move it or lengthen the storyboard."
            )


@dataclass(frozen=True)
class Shot:
    """Cards without a cut between them, and the frames of the clip that they fill."""

    cards: tuple[Card, ...]
    start: int
    stop: int


def read_storyboard(path: Path) -> Storyboard:
    """A storyboard from TOML or JSON, its files named from its folder. Raises InputError for bad ones."""
    board = load_config(Storyboard, path)
    cards = tuple(
        replace(
            card,
            image=card.image and str(path.parent / card.image),
            clip=card.clip and str(path.parent / card.clip),
            character=card.character and str(path.parent / card.character),
        )
        for card in board.cards
    )
    return replace(board, cards=cards)


def plan_shots(prompt: str, seconds: float) -> Storyboard:
    """A long prompt, "First ..., then ...", as cards of equal length; "cut to" makes a cut.

    Each card is told alone, so "it" becomes what the card before is about. Raises InputError for an empty prompt.
    """
    pieces: list[tuple[str, bool]] = []
    begin, cut = 0, False
    for mark in [*SPLIT.finditer(prompt), None]:
        text = LEAD.sub("", prompt[begin : mark.start() if mark else None]).strip(" .,;\n")
        if text:
            pieces.append((meant(text, pieces[-1][0] if pieces else ""), cut))
        if mark:
            begin, cut = mark.end(), "cut to" in mark.group().lower()
    if not pieces:
        raise InputError("The prompt holds no shot; say what is to be seen, as in 'First ..., then ...'.")
    length = seconds / len(pieces)
    cards = [
        Card(round(index * length, 3), text, cut=cut or None) for index, (text, cut) in enumerate(pieces)
    ]
    return Storyboard(tuple(cards), seconds)


def meant(text: str, before: str) -> str:
    """The text with the thing, or things, of the one before in place of the pronoun that it begins with.

    >>> meant("it stops", "a red ball rolls past a box")
    'a red ball stops'
    >>> meant("they stop at night", "a red ball and a box roll")
    'a red ball and a box stop at night'
    """
    pronoun = PRONOUN.match(text)
    named = THING.match(before)
    if pronoun is None or named is None:
        return text
    subject = named[0]
    if not pronoun["one"]:
        while more := re.match(
            rf"\s*(?:,|and|,\s*and)\s+{THING.pattern.removeprefix('^')}", before[len(subject) :], re.I
        ):
            subject += more[0]
    return subject + text[pronoun.end() :]


def shots_of(board: Storyboard, fps: float) -> list[Shot]:
    """The board cut into shots: each begins at a card that says so or stands near the one before.

    Raises InputError for a shot without a frame, and for a character where no shot begins.
    """
    groups: list[list[Card]] = []
    for card in board.cards:
        near = bool(groups) and card.at - groups[-1][-1].at < NEAR
        if not groups or (near if card.cut is None else card.cut):
            groups.append([])
        elif card.character is not None:
            raise InputError(
                f"The card at {card.at:g} s has a character and begins no shot; give it to the first card of the shot, "
                "or add cut = true."
            )
        groups[-1].append(card)
    starts = [round(group[0].at * fps) for group in groups] + [max(1, round(board.seconds * fps))]
    for start, stop in pairwise(starts):
        if stop <= start:
            raise InputError(
                f"The shot at {start / fps:g} s has no frame at {fps:g} fps; space its cards wider."
            )
    return [Shot(tuple(group), start, stop) for group, start, stop in zip(groups, starts, starts[1:])]
