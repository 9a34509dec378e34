"""Who is meant: the things that a text names, and which of them each mention is about."""

from collections.abc import Sequence
from dataclasses import dataclass

from mutoscope.world.nouns import LOOKS, Item, Noun, is_a, is_comma
from mutoscope.world.phrases import Token


@dataclass(frozen=True)
class Cast:
    """Who is on the stage. things: the looks of each by kind. mentions: whom each noun, by position, is about.

    held: adjectives of a thing that is not named. overruled: (what was said of a thing, what was said too and counts).
    """

    things: list[dict[str, str]]
    mentions: dict[int, tuple[int, ...]]
    held: dict[str, str]
    overruled: list[tuple[str, str]]


def cast(items: Sequence[Item]) -> Cast:
    """Every thing that is named, and whom each mention is about.

    A noun repeated with "the" is the same thing, and so is one that a later shot or sentence names without "a".
    """
    stage = _Stage(Cast([], {}, {}, []))
    looks: list[Token] = []
    for position, item in enumerate(items):
        if is_a(item, *LOOKS):
            looks.append(item)  # type: ignore[arg-type]
        elif looks and not is_a(item, "and") and not is_comma(item):
            stage.describe(looks)
            looks = []
        if isinstance(item, Noun):
            stage.mention(position, item)
        else:
            stage.go_on(item)
    stage.describe(looks)
    return stage.cast


class _Stage:
    """The things named so far.

    focus: whom adjectives are about; None of something unknown. group: of "one, the other". named: the sentence in
    which each was named last. announced: spoken of with "the" and not yet introduced with "a".
    """

    def __init__(self, cast: Cast) -> None:
        self.cast, self.things = cast, cast.things
        self.focus: tuple[int, ...] | None = ()
        self.group: list[int] = []
        self.named: list[int] = []
        self.announced: set[int] = set()
        self.shape = ""
        self.shot = self.sentence = 0

    def go_on(self, item: Token) -> None:
        """What a word between the nouns means for the next one."""
        match item.kind:
            case "shot":
                self.shot += 1
                self.sentence += 1
            case "mark":
                self.sentence += item.value == "."
            case "gone":
                self.shape = item.value or self.shape
            case "unknown" if item.noun:
                self.focus = None

    def mention(self, position: int, noun: Noun) -> None:
        meant = self.meant(noun)
        if meant:
            self.cast.mentions[position] = self.focus = meant
        for index in meant:
            self.named[index] = self.sentence

    def meant(self, noun: Noun) -> tuple[int, ...]:
        everyone = tuple(range(len(self.things)))
        match noun.head:
            case "all" if not noun.shape:
                return everyone[-2:] if noun.number == 2 else everyone
            case "rank":
                return everyone[noun.rank - 1 : noun.rank]
            case "other" if noun.fresh and not noun.shape and not self.group:
                return self.named_by(noun._replace(head="one"))
            case "other" if not noun.shape:
                rest = tuple(self.group) or tuple(i for i in everyone if i not in (self.focus or ()))[-1:]
                self.group = []
                return rest
            case "one" if not noun.looks and not noun.fresh:
                self.group = self.group or (list(everyone) if len(everyone) > 1 else [])
                return (self.group.pop(0),) if self.group else ()
            case "one" if not noun.looks:
                return tuple(self.group) or tuple(i for i in everyone if i not in (self.focus or ()))[-1:]
        return self.named_by(noun)

    def named_by(self, noun: Noun) -> tuple[int, ...]:
        """The things of a noun with a shape, or of "the red one": known ones, or new."""
        looks = self.looks_of(noun)
        if noun.head == "one":
            looks |= {"shape": self.shape} if self.shape else {}
        agreeing = [i for i, thing in enumerate(self.things) if _agrees(looks, thing)]
        if noun.head == "one":
            exact = [i for i in agreeing if looks.items() <= self.things[i].items()]
            agreeing = [i for i in exact or agreeing if noun.definite or i in self.group]
            agreeing = [i for i in agreeing if not noun.fresh or i not in (self.focus or ())]
        elif noun.fresh:
            agreeing = [i for i in agreeing if noun.definite and i not in (self.focus or ())][::-1]
        elif noun.rank:
            agreeing = agreeing[noun.rank - 1 :] if noun.definite else []
        elif not noun.definite:
            agreeing = [i for i in agreeing if i in self.announced or self.is_again(i, noun)]
        number = noun.number or (2 if noun.many else 1)
        if noun.many and noun.definite and len(agreeing) >= number:
            chosen = agreeing[:number] if noun.number else agreeing
        else:
            chosen = agreeing[:number]
        new = list(range(len(self.things), len(self.things) + number - len(chosen)))
        self.things += [{} for _ in new]
        self.named += [self.sentence] * len(new)
        if noun.definite:
            self.announced |= set(new)
        else:
            self.announced -= set(chosen)
        if new and not self.focus and self.cast.held:
            looks = self.cast.held | looks
            self.cast.held.clear()
        for index in (*chosen, *new):
            self.things[index] |= looks
        self.group = [i for i in self.group if i not in chosen]
        if number > 1:
            self.group = [*chosen, *new]
        self.shape = noun.shape or self.shape
        return (*chosen, *new)

    def is_again(self, index: int, noun: Noun) -> bool:
        """Whether a noun without "the" is about a thing all the same: in another shot, or without any article."""
        if self.shot > 1:
            return True
        return noun.bare and not noun.looks and not noun.number and self.named[index] < self.sentence

    def looks_of(self, noun: Noun) -> dict[str, str]:
        """By kind, the last of each."""
        looks: dict[str, str] = {"side": noun.side} if noun.side else {}
        said: dict[str, Token] = {}
        for look in noun.looks:
            if look.kind in said and said[look.kind].value != look.value:
                self.cast.overruled.append((said[look.kind].word, look.word))
            said[look.kind] = look
        if "form" in said and noun.shape and said["form"].value != noun.shape:
            self.cast.overruled.append((said["form"].word, noun.word))
        looks |= {kind: look.value for kind, look in said.items() if kind != "form"}
        return looks | ({"shape": noun.shape} if noun.shape else {})

    def describe(self, looks: Sequence[Token]) -> None:
        """Adjectives behind a noun: one each for as many things, or all for all. What was said before counts."""
        if self.focus is None:
            return
        if not self.focus:
            self.cast.held.update({look.kind: look.value for look in looks if look.kind != "form"})
            return
        for kind in dict.fromkeys(look.kind for look in looks):
            mine = [look for look in looks if look.kind == kind]
            shared = len(mine) == len(self.focus) > 1
            for place, index in enumerate(self.focus):
                thing, look = self.things[index], mine[place if shared else 0]
                name = "shape" if kind == "form" else kind
                if name in thing and thing[name] != look.value:
                    self.cast.overruled.append((look.word, thing[name]))
                thing.setdefault(name, look.value)


def _agrees(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(other.get(kind, value) == value for kind, value in one.items())
