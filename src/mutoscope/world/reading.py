"""Text back to facts: what a prompt states about the world, and which of its words the world does not have."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from mutoscope.world.facts import Fact
from mutoscope.world.lexicon import INSIDE
from mutoscope.world.mentions import Cast, cast
from mutoscope.world.nouns import DESCRIBED, END, Item, Noun, affirmed, grouped, is_a, is_comma
from mutoscope.world.phrases import Token, tokens

CLIP = ("background", "count", "camera", "style")  # facts about the whole clip
KEPT = ("relation", "link", "rests on", "function", "unknown", "article", "also")  # do not end a relation
PASSING = ("passes", "pass", "goes", "moves", "rolls", "hides")  # relations that begin with a verb
TURNS = {"left": "pan left", "right": "pan right", "up": "tilt up", "down": "tilt down"}


@dataclass(frozen=True)
class Reading:
    """What a prompt says.

    facts and unknown: see `parse`. open_ways: (thing, "sideways", "vertical", "aloft" or "any") of who moves, nobody
    says where. beside: pairs that stand next to each other, on either side. places: (thing, "left", "right", "top",
    "bottom", "front", "back" or "middle"). denied: (kind, value) of what must not be shown. overruled: (word, other
    word that counts in its place). shots: of a story, the facts of each shot about who is in it.
    """

    facts: tuple[Fact, ...]
    unknown: tuple[str, ...]
    open_ways: tuple[tuple[int, str], ...] = ()
    beside: tuple[tuple[int, int], ...] = ()
    places: tuple[tuple[int, str], ...] = ()
    denied: frozenset[tuple[str, str]] = frozenset()
    overruled: tuple[tuple[str, str], ...] = ()
    shots: tuple[tuple[Fact, ...], ...] = ()


def parse(text: str) -> tuple[tuple[Fact, ...], tuple[str, ...]]:
    """(facts stated, content words not known). Typos are read where they can be told from other words.

    Colours and sizes belong to the noun that they stand before, or behind; motion to the last subject: in "a ball rolls
    behind a box to the left" that is the ball. A noun repeated with "the" is the same object; of "two balls", of "they"
    and of "a ball and a box roll left", everyone moves. What is said not to be there is not stated.
    """
    reading = read(text)
    return reading.facts, reading.unknown


@lru_cache(maxsize=256)
def read(text: str) -> Reading:
    """Everything that a prompt says."""
    items, denied = affirmed(grouped(tokens(text)))
    found = cast(items)
    heard = _Listener(items, found)
    for position, item in enumerate(items):
        heard.hear(position, item)
    return heard.reading(denied)


@dataclass
class _Listener:
    """What has been heard so far.

    subjects: who moves if a motion is told now. together: subjects joined by "and", for verbs of no number; listed: by
    commas too, for plural verbs. number: of the verb, "one", "many" or not said. pending: a relation that waits for its
    object; waiting: one that waits for its subject, as after "above the box". early: motions and places told before any
    subject. lens: whether a direction is the camera's; filmed: whether the camera is spoken of.
    """

    items: Sequence[Item]
    cast: Cast
    stated: list[Fact] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    open_ways: list[tuple[int, str]] = field(default_factory=list)
    beside: list[tuple[int, int]] = field(default_factory=list)
    places: list[tuple[int, str]] = field(default_factory=list)
    shots: list[list[Fact]] = field(default_factory=list)
    present: list[set[int]] = field(default_factory=list)  # in each shot
    subjects: tuple[int, ...] = ()
    together: tuple[int, ...] = ()
    listed: tuple[int, ...] = ()
    number: str = ""
    pending: tuple[tuple[int, ...], str] | None = None
    waiting: tuple[str, tuple[int, ...]] | None = None
    fronted: bool = False
    early: list[tuple[str, str]] = field(default_factory=list)
    lens: bool = False
    filmed: bool = False

    def hear(self, position: int, item: Item) -> None:
        if isinstance(item, Noun):
            if position in self.cast.mentions:
                self.mention(position, item)
            return
        match item.kind:
            case "direction" | "event" | "motion":
                if not (self.lens and self.films(item)):
                    self.moves(position, item)
            case "hat" | "eyes":
                self.state(*(Fact(item.kind, subject, item.value) for subject in self.subjects))
            case "place":
                self.place(position, item.value)
            case "relation" | "link" | "rests on":
                self.relate(position, item)
            case "mutual":
                self.each_other(item.value)
            case "its side":
                self.its_side(position, item.value)
            case "it":
                self.point_back(position)
            case "lens":
                self.lens = self.filmed = True
                if item.word != "camera" and not self.turns(position):
                    self.unknown.append(item.word)
            case "follow":
                self.filmed |= self.opens(position)
                self.state(*([Fact("camera", None, "follow")] if self.filmed else []))
                self.unknown += [] if self.filmed else [item.word]
            case "shot":
                self.shots.append([])
                self.present.append(set())
            case "halt":
                self.unknown.append(item.word)
            case "unknown":
                self.strange(position, item)
            case "function" | "article":
                self.hold_together(position, item.word)
            case kind if kind in CLIP:
                self.state(Fact(kind, None, item.value))
        if item.noun or (item.kind not in KEPT and not (item.kind == "and" and self.between)):
            self.pending = None
        if item.kind == "mark":
            self.lens = self.filmed = False
            self.waiting = None if item.value == "." else self.waiting

    @property
    def between(self) -> bool:
        """Whether the second of two is still to come."""
        return self.pending is not None and self.pending[1] == "between of"

    def at(self, position: int) -> Item:
        return self.items[position] if 0 <= position < len(self.items) else END

    def state(self, *facts: Fact) -> None:
        self.stated += facts
        if self.shots:
            self.shots[-1] += facts

    def tell(self, kind: str, value: str, subjects: Sequence[int]) -> None:
        """A motion, or a place, of some things."""
        if kind == "place":
            self.places += [(subject, value) for subject in subjects]
        elif kind == "motion":
            self.open_ways += [(subject, value) for subject in subjects if value]
        else:
            self.state(*(Fact(kind, subject, value) for subject in subjects))

    # --- who

    def mention(self, position: int, noun: Noun) -> None:
        meant = self.cast.mentions[position]
        if self.present:
            self.present[-1] |= set(meant)
        if self.pending:
            self.resolve(meant)
        else:
            self.join(position, meant)
            if self.waiting:
                word, others = self.waiting
                self.waiting = None
                self.link(meant, word, others)
            for kind, value in self.early:
                self.tell(kind, value, self.subjects)
            self.early.clear()
        self.lens = False
        for move in noun.moves:
            self.tell(move.kind, move.value, meant)
        if noun.side:
            self.tell("place", noun.side, meant)

    def join(self, position: int, meant: tuple[int, ...]) -> None:
        """The subjects of the verb to come: "a ball and a box roll", "a ball, a box and a star roll"."""
        before, second = self.at(position - 1), self.at(position - 2)
        also = is_a(before, "and") and isinstance(second, Noun)
        comma = is_comma(before) and isinstance(second, Noun)
        comma |= also or (is_a(before, "and") and is_comma(second))
        self.together = (*self.together, *meant) if also and not self.number else meant
        self.listed = (*self.listed, *meant) if comma and not self.number else meant
        self.subjects, self.number = meant, ""

    def turn_to(self, meant: tuple[int, ...]) -> None:
        self.subjects = self.together = self.listed = meant

    def strange(self, position: int, item: Token) -> None:
        """A thing that the world does not have, and that moves instead of those before it."""
        self.unknown.append(item.value)
        if item.noun:
            self.early.clear()
            if self.opens(position):
                self.turn_to(())

    def hold_together(self, position: int, word: str) -> None:
        """ "is", "are"; "which" turns to the noun before; "inside" is no relation of the world."""
        if not self.number and (word in ("is", "was", "has", "have", "do") or word in PLURAL):
            self.number = "one" if word in ("is", "was", "has") else "many"
        if word in ("that", "which", "who", "whose") and isinstance(self.at(position - 1), Noun):
            self.turn_to(self.cast.mentions.get(position - 1, self.subjects))
        following = self.at(position + 1)
        if word in INSIDE and (
            is_a(following, "it") or (isinstance(following, Noun) and following.head == "shape")
        ):
            self.unknown.append(word)

    def movers(self, word: str) -> tuple[int, ...]:
        """Who moves: the last subject, or all that share the verb."""
        verb = word.split()[0]
        if not self.number and verb in PLURAL:
            self.number = "many"
        elif not self.number and verb.endswith("s") and not verb.endswith("wards"):
            self.number = "one"
        return {"one": self.subjects, "many": self.listed}.get(self.number, self.together)

    def others(self) -> tuple[int, ...]:
        """The thing named before the subjects, if there is one."""
        return tuple(i for i in range(max(self.subjects, default=0)) if i not in self.subjects)[-1:]

    # --- what

    def films(self, item: Token) -> bool:
        """Whether a direction behind "the camera", "pans" is the camera's."""
        if item.kind == "motion":
            return True
        self.lens = False
        turn = TURNS.get(item.value)
        if turn:
            self.state(Fact("camera", None, turn))
        return turn is not None or item.value == "still"

    def turns(self, position: int) -> bool:
        """Whether "pan" comes with a direction."""
        return any(is_a(self.at(position + k), "direction", "camera", "lens") for k in (1, 2))

    def moves(self, position: int, item: Token) -> None:
        before, following = self.at(position - 1), self.at(position + 1)
        if item.word in ("left", "right") and is_a(following, "mark"):
            first = is_a(before, "mark") and before.value == "." and self.noun_follows(position)  # type: ignore[union-attr]
            label = following[:2] == ("mark", ":") and is_a(before, "mark")
            if label or (first and is_comma(following)):
                self.early.append(("place", item.value))  # "left: a ball, right: a box"
                self.turn_to(())
                return
        movers = self.movers(item.word)
        if movers:
            self.tell(item.kind, item.value, movers)
        elif item.value and position < min(self.cast.mentions, default=len(self.items)):
            self.early.append((item.kind, item.value))

    def place(self, position: int, value: str) -> None:
        """Where a thing is; behind a comma only of a noun that follows: captions say it of what moves by."""
        before = self.at(position - 1)
        if is_a(before, "motion") and value in ("left", "right"):
            self.moves(position, Token("direction", value, value))
        elif is_a(before, "background"):
            pass  # "with the sea in the background"
        elif not self.opens(position):
            for part in value.split():
                self.tell("place", part, self.subjects)
        elif self.noun_follows(position):
            self.early += [("place", part) for part in value.split()]
            self.turn_to(())

    def opens(self, position: int) -> bool:
        """Whether a clause begins here."""
        while is_a(self.at(position - 1), "function"):
            position -= 1
        return is_a(self.at(position - 1), "and", "mark", "shot", "also", "article")

    def noun_follows(self, position: int, skip: int = 0) -> bool:
        """Whether a new noun follows in the same clause, after `skip` others."""
        for item in self.items[position + 1 :]:
            if isinstance(item, Noun):
                if skip == 0:
                    return item.head in ("shape", "thing", "one")
                skip -= 1
            elif item.kind in ("and", "shot", "relation") or item.value == ".":
                return False
        return False

    # --- beside whom

    def relate(self, position: int, item: Token) -> None:
        before, following = self.at(position - 1), self.at(position + 1)
        skipped = ("function", "also", "and", *(("rests on",) if item.kind == "link" else ()))  # "hit by"
        rest = (one for one in self.items[position + 1 :] if not is_a(one, *skipped))
        first = next(rest, END)
        named = isinstance(first, Noun) or is_a(first, "it")
        if item.kind == "rests on" and (
            first is not following or not named or is_a(before, "unknown", "link", "camera", "lens")
        ):
            return
        known = self.cast.mentions.get(position - 1, self.subjects)
        if (
            isinstance(before, Noun)
            and item.kind != "link"
            and len(self.together) < 2
            and known != self.subjects
        ):
            self.turn_to(known)  # "a ball on a box on a ring"
        self.fronted = item.kind != "link" and named and self.opens(position)
        self.fronted &= self.noun_follows(position, skip=isinstance(first, Noun))
        self.fronted &= item.word.split()[0] not in PASSING
        if not named:
            self.without_object(item, first, following)
        elif self.fronted and isinstance(first, Noun):
            self.pending = ((), item.value)
        else:
            self.pending = (self.listed if item.word in PLURAL else self.subjects, item.value)

    def without_object(self, item: Token, first: Item, following: Item) -> None:
        """ "to the left of the screen", "a box with a ball on top", "two balls collide", "bump into each other"."""
        side = item.value.split()[0]
        if is_a(first, "mutual"):
            self.pending = (self.listed, item.value)
        elif item.kind == "link":
            into = is_a(first, "unknown", "elsewhere", "article") and not is_a(following, "function")
            if not into and len(self.listed) > 1:
                self.each_other("collide")
        elif side in ("left", "right") and is_a(first, "elsewhere", "article"):
            if item.word.split()[0] in ("on", "at"):
                self.tell("place", side, self.subjects)
            else:
                self.tell("direction", side, self.movers(side))
        elif item.word in ("on top", "underneath", "behind", "beneath", "beside", "above", "below"):
            self.link(self.subjects, item.value, self.others())

    def point_back(self, position: int) -> None:
        """ "above it": the thing before the subject, or the subject itself for who is named next."""
        if self.pending is None:
            return
        subjects, word = self.pending
        if not self.fronted and self.others():
            self.link(subjects, word, self.others())
        elif subjects and self.noun_follows(position):
            self.waiting = (word, subjects)

    def its_side(self, position: int, word: str) -> None:
        """ "a ball, a box to its left", "a ball; to its left a box"."""
        if self.opens(position) and self.noun_follows(position):
            self.waiting = (word, self.subjects)
        else:
            self.link(self.subjects, word, self.others())

    def resolve(self, meant: tuple[int, ...]) -> None:
        """The object of a relation is there."""
        subjects, word = self.pending or ((), "")
        self.pending = None
        if not subjects:
            self.waiting = (word, meant) if self.fronted else None
            self.turn_to(() if self.fronted else meant)
            return
        if word == "between" and len(meant) == 1:
            self.pending = (subjects, "between of")
        self.link(subjects, {"between": "right of", "between of": "left of"}.get(word, word), meant[:1])
        self.link(subjects, "left of" if word == "between" else word, meant[1:])
        self.turn_to(subjects)

    def link(self, subjects: Sequence[int], word: str, others: Sequence[int]) -> None:
        for subject, other in ((i, j) for i in subjects for j in others if i != j):
            if word == "beside":
                self.beside.append((subject, other))
            elif word == "collide":
                self.state(Fact("event", subject, f"collide {other}"))
                self.state(Fact("event", other, f"collide {subject}"))
            else:
                self.state(Fact("relation", subject, f"{word} {other}"))

    def each_other(self, word: str) -> None:
        """ "a ball and a box bump into each other", "side by side"."""
        row = self.listed if len(self.listed) > 1 else (*self.others(), *self.subjects)
        for one, other in pairwise(row):
            self.link((one,), self.pending[1] if self.pending else word or "beside", (other,))

    # --- all of it

    def reading(self, denied: frozenset[tuple[str, str]]) -> Reading:
        things = [dict(thing) for thing in self.cast.things]
        if not things and not self.unknown and (self.cast.held or self.early):
            things = [dict(self.cast.held)]  # "red", "up"
            for kind, value in self.early:
                self.tell(kind, value, (0,))
        looks = [
            [Fact(kind, i, value) for kind, value in thing.items() if kind in DESCRIBED]
            for i, thing in enumerate(things)
        ]
        if len(self.shots) > 1:
            self.stated.append(Fact("shots", None, str(len(self.shots))))
        facts = _true([*(fact for each in looks for fact in each), *self.stated])
        moved = {fact.subject for fact in facts if fact.kind in ("direction", "event")}
        shots = []
        for told, present in zip(self.shots, self.present, strict=True):
            seen = present | {fact.subject for fact in told if fact.subject is not None}
            shots.append(_true([*(fact for i in sorted(seen) for fact in looks[i]), *told]))
        return Reading(
            facts,
            tuple(dict.fromkeys(self.unknown)),
            tuple(dict.fromkeys((i, way) for i, way in self.open_ways if i not in moved)),
            tuple(dict.fromkeys(self.beside)),
            tuple(dict.fromkeys(self.places)),
            denied,
            tuple(dict.fromkeys(self.cast.overruled)),
            tuple(shots) if len(shots) > 1 else (),
        )


def _true(stated: Sequence[Fact]) -> tuple[Fact, ...]:
    """Each fact once; down and up again, and rest in the end, of what bounces, is no direction."""
    bounced = {fact.subject for fact in stated if fact.value == "bounce"}
    return tuple(
        dict.fromkeys(
            fact for fact in stated if fact.value not in ("down", "still") or fact.subject not in bounced
        )
    )


PLURAL = frozenset(
    "are were roll slide move go fall rise sink float fly drift glide bounce jump hop climb descend ascend drop "
    "collide crash bump hit stand rest hang hover sit wait lie soar leap stay come run travel head both".split()
)
