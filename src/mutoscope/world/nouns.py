"""Tokens to noun phrases, without what is said not to be there."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mutoscope.world.lexicon import ALSO_THINGS, IRREGULAR, NATURAL, Meaning
from mutoscope.world.phrases import Token
from mutoscope.world.stage import COLOURS

LOOKS = ("colour", "size", "material", "form")
DESCRIBED = (*LOOKS, "shape")  # what may follow an adjective
MOVES = ("direction", "event", "motion")
DETERMINERS = ("article", "number", "one", "ordinal", "other", "all")
BEGINNING = (*DESCRIBED, *MOVES, *DETERMINERS, "thing", "unknown", "eyes")  # of a noun phrase
GONE = ("background", "style", "camera", "direction", "event", "unknown", "place")
BEING = ("is", "are", "be", "it", "was")  # behind which an adjective is about the noun before
SETTING = ("in", "by", "at", "under", "on", "during")  # of a place that no adjective belongs to
QUALITY = ("not", "non", "isnt", "arent", "neither", "nor")  # deny what a thing is like, not that it is there
COUNTING = ("article", "one", "number")
END = Token("mark", ".", "")


class Noun(NamedTuple):
    """A mention: "two small red balls", "the other one", "they".

    shape: "" when none is named. number: 0 when it is not said. word: what was said for the shape. rank: of "the
    second". moves: of "a falling ball". fresh: of "another ball". side: of "the left box".
    """

    head: Literal["shape", "thing", "one", "rank", "other", "all"]
    shape: str = ""
    looks: tuple[Token, ...] = ()
    number: int = 0
    many: bool = False
    definite: bool = False
    bare: bool = False
    fresh: bool = False
    rank: int = 0
    side: str = ""
    moves: tuple[Token, ...] = ()
    word: str = ""


Item = Token | Noun


# --- noun phrases


def grouped(tokens: Sequence[Token]) -> list[Item]:
    """The tokens with every noun phrase as one item; "a red and a blue ball" is two."""
    tokens = _with_hats(_with_forms(tokens))
    shown = any(token.kind == "shape" for token in tokens)
    items: list[Item] = []
    position = 0
    while position < len(tokens):
        begins = tokens[position].kind in BEGINNING
        items_read, position = (_noun(tokens, position) if begins else None) or _other(tokens, position)
        for item in items_read:
            if (
                isinstance(item, Noun)
                and item.head == "thing"
                and shown
                and not _is_described(item, tokens, position)
            ):
                items += [Token("count", str(item.number), item.word)] if item.number > 1 else []
                continue  # "the thing is that a ball ...", "two things: a ball ..."
            if isinstance(item, Noun) and item.head == "thing" and item.number > 1:
                items.append(Token("count", str(item.number), item.word))
            items.append(item)
            if isinstance(item, Token) and item.kind == "count" and not shown:
                items.append(Noun("thing", number=int(item.value), many=item.value != "1", word=item.word))
    return items


def _at(tokens: Sequence[Token], position: int) -> Token:
    return tokens[position] if 0 <= position < len(tokens) else END


def _is_described(noun: Noun, tokens: Sequence[Token], position: int) -> bool:
    """Whether a thing of no shape is told from others: "a red thing", "something that is red"."""
    while _at(tokens, position).kind == "function":
        position += 1
    return bool(noun.looks) or _at(tokens, position).kind in LOOKS


def _with_forms(tokens: Sequence[Token]) -> list[Token]:
    """ "ball-shaped" is a quality; so is "square" in "a square ball"."""
    kept: list[Token] = []
    for token in tokens:
        if token.kind != "shaped":
            kept.append(token)
        elif kept and kept[-1].kind == "shape":
            kept[-1] = kept[-1]._replace(kind="form")
    return kept


def _with_hats(tokens: Sequence[Token]) -> list[Token]:
    """ "a blue triangle hat" is one token, not an object; so is "a blue hat", of no shape that is named."""
    kept: list[Token] = []
    for token in tokens:
        if token.kind != "hat":
            kept.append(token)
            continue
        words: list[str] = []
        strange = [kept.pop()] if kept and kept[-1].kind == "unknown" else []
        while kept and kept[-1].kind in ("shape", "colour", "size", "form"):
            words.insert(0, kept.pop().value)
        if kept and kept[-1].kind == "article":
            kept.pop()
        kept += [*strange, token._replace(value=" ".join(words))]
    return kept


def _noun(tokens: Sequence[Token], start: int) -> tuple[list[Item], int] | None:
    """The noun phrase that begins at a token, and where it ends: determiners, qualities, head."""
    noun, position = _determined(tokens, start)
    strange: list[Item] = []
    determined = position > start
    begins = determined or _at(tokens, start - 1).kind in ("mark", "and", "shot")
    looks: list[Token] = []
    moves: list[Token] = []
    either = False
    while True:
        token, following = _at(tokens, position), _at(tokens, position + 1)
        if token.kind in LOOKS:
            looks += [] if either else [token]
            either = False
        elif token.kind == "unknown" and following.kind in DESCRIBED and (looks or determined):
            strange.append(token)  # an adjective more: "a big fluffy red ball"
        elif begins and token.kind == "eyes" and token.word.endswith("eyed"):
            moves.append(token)
        elif token.kind == "style" and following.kind in DESCRIBED and (looks or determined):
            strange.append(token)
        elif (
            token.kind in MOVES
            and begins
            and following.kind in (*MOVES, *DESCRIBED, "thing", "one", "unknown")
        ):
            moves.append(token)
        elif (
            token.kind == "shape"
            and determined
            and not token.many
            and following.kind == "shape"
            and noun.number < 2
        ):
            looks.append(token._replace(kind="form"))  # "a square ball"
        elif looks and _joins(tokens, position):
            joined = tokens[position : position + _joins(tokens, position)]
            either = any(one.kind == "or" for one in joined)
            position += len(joined) - 1
        else:
            break
        position += 1
    head = _at(tokens, position)
    noun = noun._replace(looks=tuple(looks), moves=tuple(moves))
    if head.kind in ("shape", "thing") and not (head.kind == "thing" and noun.head == "all"):
        return [*strange, *_headed(noun, head, determined)], position + 1 + (
            _at(tokens, position + 1).kind == "thing"
        )
    if (
        head.kind in ("one", "ones")
        and (looks or noun.definite or noun.fresh)
        and _at(tokens, position - 1).kind != "mark"
    ):
        return [
            *strange,
            _sided(noun._replace(head="one", bare=not determined, many=head.kind == "ones")),
        ], position + 1
    if determined and looks and head.kind in ("and", "mark"):
        position += _at(tokens, position + 1).kind == "and"
        inner = _noun(tokens, position + 1) if _at(tokens, position + 1).kind in COUNTING else None
        if (
            inner
            and isinstance(first := inner[0][-1], Noun)
            and first.head in ("shape", "one")
            and first.looks
        ):
            mine = noun._replace(
                head=first.head, shape=first.shape, word=first.word
            )  # "a red and a blue ball"
            return [*strange, mine, Token("and", "", "and"), *inner[0]], inner[1]
    return _pronoun(tokens, start)


def _determined(tokens: Sequence[Token], position: int) -> tuple[Noun, int]:
    """What stands before the qualities: "the two", "another", "all three"."""
    noun = Noun("shape")
    while (token := _at(tokens, position)).kind in DETERMINERS:
        if token.kind == "one" and _at(tokens, position + 1).kind not in (
            *DESCRIBED,
            *MOVES,
            "unknown",
            "thing",
        ):
            break
        match token.kind:
            case "article":
                noun = noun._replace(
                    definite=noun.definite or token.value == "the", many=token.value == "some"
                )
                noun = noun._replace(number=1 if token.word in ("a", "an") else noun.number)
            case "number":
                noun = noun._replace(number=int(token.value))
            case "one":
                noun = noun._replace(number=1)
            case "ordinal":
                noun = noun._replace(rank=int(token.value), fresh=noun.number == 1)
            case "other":
                noun = noun._replace(fresh=True, head="other")
            case _:
                noun = noun._replace(definite=True, number=2 if token.value == "both" else 0, head="all")
        position += 1
    return noun, position


def _joins(tokens: Sequence[Token], position: int) -> int:
    """How many tokens from here on join two adjectives: "big, red", "red and blue", "red, green, and blue"."""
    length = 0
    while _at(tokens, position + length).kind in ("and", "or") or _at(tokens, position + length)[:2] == (
        "mark",
        ",",
    ):
        length += 1
    return length if length < 3 and _at(tokens, position + length).kind in LOOKS else 0


def _headed(noun: Noun, head: Token, determined: bool) -> list[Item]:
    """The noun with its head; several of several colours are as many nouns."""
    forms = [look.value for look in noun.looks if look.kind == "form"]
    shape = head.value if head.kind == "shape" else forms[-1] if forms else ""
    if head.many and noun.number == 1 and head.word not in IRREGULAR:
        noun = noun._replace(number=0)  # "a dozen balls"
    many = (noun.many or head.many or noun.number > 1) and noun.number != 1
    noun = noun._replace(
        head="shape" if shape else "thing", shape=shape, word=head.word, bare=not determined, many=many
    )
    noun = _sided(noun)
    for kind in LOOKS:
        mine = [look for look in noun.looks if look.kind == kind]
        if noun.many and len({look.value for look in mine}) > 1:
            others = tuple(look for look in noun.looks if look.kind != kind)
            ones = [
                noun._replace(looks=(*others, mine[k % len(mine)]), number=1, many=False, definite=False)
                for k in range(noun.number or len(mine))
            ]
            joined: list[Item] = []
            for one in ones:
                joined += [Token("and", "", "and"), one] if joined else [one]
            return joined
    return [noun]


def _sided(noun: Noun) -> Noun:
    """ "the left ball" does not go left, it is there."""
    if noun.definite and len(noun.moves) == 1 and noun.moves[0].word in ("left", "right"):
        return noun._replace(side=noun.moves[0].value, moves=())
    return noun


def _pronoun(tokens: Sequence[Token], start: int) -> tuple[list[Item], int] | None:
    """ "they", "both", "one", "the other", "the first"."""
    token, following = _at(tokens, start), _at(tokens, start + 1)
    if token.kind == "all":
        return [Noun("all", number=2 if token.value == "both" else 0, word=token.word)], start + 1
    if token.kind == "one":
        return [Noun("one", bare=True, word=token.word)], start + 1
    if token.word == "another":
        return [Noun("other", fresh=True, word=token.word)], start + 1
    if token.kind == "article" and token.value == "the" and following.kind in ("other", "ordinal"):
        if _at(tokens, start + 2).kind in ("unknown", "shot"):
            return None
        rank = int(following.value) if following.kind == "ordinal" else 0
        return [Noun("rank" if rank else "other", rank=rank, definite=True, word=following.word)], start + 2
    return None


def _other(tokens: Sequence[Token], start: int) -> tuple[list[Item], int]:
    """What is no noun of the world: one token, or adjectives with the unknown thing or the place they belong to."""
    before, determined = _at(tokens, start - 1), tokens[start].kind in ("article", "number", "one")
    position = start + determined
    looks: list[Token] = []
    while (token := _at(tokens, position)).kind in LOOKS or (determined and token.kind in DETERMINERS):
        looks.append(token)
        position += 1
    thing, end = (looks[-1].word if looks else ""), position
    while determined and (token := _at(tokens, position)).kind in MOVES and token.word.endswith("ing"):
        position += 1  # "the falling snow"
    head = token
    owned = determined or not (before.kind in ("shape", "thing") or before.word in BEING)
    colours = [look for look in looks if look.kind == "colour"]
    strange = [Token("unknown", f"{look.word} {head.word}", head.word) for look in colours]
    if not determined and not looks:
        return [tokens[start]], start + 1
    if head.kind == "eyes":
        return [head], position + 1
    if head.kind == "unknown" and owned:
        return [head._replace(noun=determined)], position + 1
    if head.kind == "elsewhere" and looks and owned:
        return [*strange, head], position + 1
    if head.kind == "background" and (looks or position > end) and head.word.split()[0] not in SETTING:
        if all(look.value in NATURAL[head.value].split() for look in colours):
            return [head], position + 1
        if owned and (determined or before.kind == "function"):
            return [*strange, head], position + 1
    alone = before.kind in ("mark", "and") and head.kind != "mark" and thing not in COLOURS
    if thing in ALSO_THINGS and (determined or alone):
        return [Token("unknown", thing, thing, noun=True)], end
    return [tokens[start]], start + 1


# --- what is not there


def affirmed(items: Sequence[Item]) -> tuple[list[Item], frozenset[Meaning]]:
    """The items without those that are denied or only an alternative, and what must not be shown."""
    kept: list[Item] = []
    denied: set[Meaning] = set()
    position, quiet = 0, False
    while position < len(items):
        item = items[position]
        position += 1
        quiet = (quiet or is_a(item, "none")) and not is_a(item, "mark")
        if quiet and is_a(item, "motion"):
            item = Token("direction", "still", "still")  # "nothing moves"
        if not is_a(item, "not", "or"):
            kept += [] if is_a(item, "none") else [item]
            continue
        while is_a(_item(items, position), "function", "article", "also", "all"):
            if _item(items, position).word == "but":  # "is not here but a red ball is"
                break
            position += 1
        first = _item(items, position)
        length, gone = _denied(items, position)
        still = length and is_a(_item(items, position + length - 1), "motion") and not gone
        if isinstance(first, Noun) and length and item.word in QUALITY and first.bare and first.looks:
            gone = {look[:2] for look in first.looks}  # "not so big a ball"
            kept.append(first._replace(looks=()))
        elif isinstance(first, Noun) and length:
            kept.append(Token("gone", first.shape, first.word))  # "not a red ball but a green one"
        if not is_a(item, "or"):
            denied |= gone
            kept += [Token("direction", "still", "still")] if still else []
        position += length
    return kept, frozenset(denied)


def is_a(item: Item, *kinds: str) -> bool:
    return isinstance(item, Token) and item.kind in kinds


def is_comma(item: Item) -> bool:
    return isinstance(item, Token) and item[:2] == ("mark", ",")


def _item(items: Sequence[Item], position: int) -> Item:
    return items[position] if 0 <= position < len(items) else END


def _denied(items: Sequence[Item], position: int) -> tuple[int, set[Meaning]]:
    """How many items from here on belong to a "not", and what it denies."""
    first, second = _item(items, position), _item(items, position + 1)
    if isinstance(first, Noun):
        if first.head == "one":
            return int(bool(first.looks)), {look[:2] for look in first.looks}
        named = first.head in ("shape", "thing")
        return int(named), {("shape", first.shape)} if named and first.shape and not first.looks else set()
    looks: set[Meaning] = set()
    length = 0
    while isinstance(look := _item(items, position + length), Token) and look.kind in LOOKS:
        looks.add(look[:2])
        length += 1
    if looks:
        return length, looks
    match first.kind:
        case "motion" if isinstance(second, Token) and second.kind == "direction":
            return 2, {second[:2]}
        case "lens" if is_a(second, "motion"):
            return 2, {("camera", "")}
        case "motion":
            return 1, set()
        case "halt":
            return 1, {("direction", "still")}
        case "hat" | "eyes":
            return 1, {(first.kind, "")}
    return (1, {first[:2]}) if first.kind in GONE else (0, set())
