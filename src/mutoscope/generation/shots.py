"""The shots of a prompt: where it says "cut to", numbers them, or goes on to another place."""

import re
from itertools import pairwise

from mutoscope.world.captions import parse

CUT = re.compile(
    r"[\s,.;]*\b(?:(?:shot|scene)\s*(?:\d+|one|two|three|four|five)\b"
    r"|(?:and\s+)?(?:then\s+)?(?:we\s+)?(?:(?:jump|hard|smash|match|quick)[\s-]*)?"
    r"(?:cuts?|dissolves?|switch(?:es)?)\s+to\b"
    r"|(?:and\s+)?(?:then\s+)?(?:in\s+)?(?:the\s+)?"
    r"(?:next|second|third|fourth|new|following|last|final)\s+(?:shot|scene)\b"
    r"|(?:and\s+)?(?:then\s+)?(?:jump|hard|smash)[\s-]cut\b|\bcut\s*[:.])[\s:,.–-]*",
    re.IGNORECASE,
)
FIRST = re.compile(
    r"\b(?:(?:shot|scene)\s*(?:1|one)\b|(?:in\s+)?(?:the\s+)?first\s+(?:shot|scene)\b)[\s:,.–-]*",
    re.IGNORECASE,
)
THEN = re.compile(r"[\s,.;]*\b(?:and\s+)?(?:then|afterwards|after that|later|next)\b[\s:,]*", re.IGNORECASE)


def number_shots(prompt: str) -> str:
    """The prompt with its shots, divided by "cut to" or numbered anyhow, called "Shot 1:", "Shot 2:", ..."""
    parts = split_shots(prompt)
    if len(parts) < 2:
        return prompt
    first = FIRST.search(prompt)
    before = prompt[: first.start()].strip(" .,;:") if first else ""
    shots = [f"Shot {number}: {part}." for number, part in enumerate(parts, 1)]
    return " ".join([f"{before}.", *shots] if before else shots)


def split_shots(text: str) -> list[str]:
    """The texts of its shots, without what stands before "Shot 1". A "then" parts shots where the place changes."""
    if first := FIRST.search(text):
        text = text[first.end() :]
    parts = [part.strip(" .,;:") for part in CUT.split(text) if part.strip(" .,;:")]
    if len(parts) != 1 or not THEN.search(parts[0]):
        return parts
    moments = [part.strip(" .,;:") for part in THEN.split(parts[0]) if part.strip(" .,;:")]
    places = [[fact.value for fact in parse(part)[0] if fact.kind == "background"] for part in moments]
    changes = len(moments) > 1 and all(places) and all(one != other for one, other in pairwise(places))
    return moments if changes else parts


def shots_kept(prompt: str, text: str) -> bool:
    """Whether each shot of the text has what the same shot of the prompt states."""
    asked, made = split_shots(prompt), split_shots(text)
    if len(asked) < 2:
        return True
    kinds = ("background", "direction", "event", "camera")
    return len(made) == len(asked) and all(
        {fact.value for fact in parse(one)[0] if fact.kind in kinds}
        <= {fact.value for fact in parse(f"a ball {other}")[0]} | {fact.value for fact in parse(other)[0]}
        for one, other in zip(asked, made, strict=True)
    )
