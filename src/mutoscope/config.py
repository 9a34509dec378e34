"""Run files: strict TOML or JSON to frozen dataclasses and back.

A key that no dataclass has, a value of the wrong type, a word outside a Literal: one InputError that names
the file and the dotted key. Values are taken as written (no "3" for 3); an integer may stand for a float.
"""

import dataclasses
import datetime
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar

from mutoscope.errors import InputError
from mutoscope.files import write_atomically as write_atomically

if typing.TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")
Dotted = tuple[str | int, ...]


def load_config(cls: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read a run file into the dataclass `cls`, after `--set` overrides such as `training.lr=3e-4`.

    `.json` is read as JSON, anything else as TOML. Raises InputError naming the file and the key.
    """
    data = read_table(path)
    sources: dict[Dotted, str] = {}
    for override in overrides:
        dotted = _override(data, override)
        sources[dotted] = f"--set {override}"
    return _build(cls, data, str(path), sources)


def from_dict(cls: type[T], data: Mapping[str, object], where: str) -> T:
    """Build the dataclass `cls` from plain data; `where` names its origin in the InputError of a bad key."""
    return _build(cls, data, where, {})


def to_dict(value: object) -> dict[str, Any]:
    """A dataclass as data that JSON and `from_dict` understand: tuples become lists, paths strings."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"to_dict takes a dataclass instance, not {type(value).__name__}")
    return {
        field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init
    }


def write_json(path: Path, value: object) -> Path:
    """Save a dataclass or plain data as indented JSON, whole or not at all (see `files.py`)."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n"
    return write_atomically(path, text.encode("utf-8", "backslashreplace"))


def read_table(path: Path) -> dict[str, Any]:
    """The table in a TOML or JSON file. Raises InputError when it is absent, unreadable or not a table."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check its name.") from error
    except OSError as error:
        raise InputError(f"Cannot read {path}: {(error.strerror or str(error)).lower()}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; give a TOML or JSON file.") from error
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        data = json.loads(text, object_pairs_hook=_no_twins) if kind == "JSON" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{path} is not valid {kind}: {reason}.") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds {_kind(data)} where a table of keys is needed.")
    return data


def _override(data: dict[str, Any], override: str) -> Dotted:
    """Put one `a.b=c` into `data`; returns the path it wrote. The value is TOML, `null`, or a bare word."""
    name, equals, text = override.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not equals or not all(keys):
        raise InputError(f"--set {override} is not of the form key.key=value, e.g. --set training.lr=3e-4.")
    table = data
    for depth, key in enumerate(keys[:-1], start=1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {override}: {'.'.join(keys[:depth])} is {_kind(table)}, not a table.")
    table[keys[-1]] = _word_or_value(text.strip(), override)
    return tuple(keys)


def _word_or_value(text: str, override: str) -> object:
    if text == "null":
        return None
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ('"', "'", "[", "{"):
            raise InputError(f"--set {override}: the value is not valid TOML: {error}.") from error
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _build(cls: type[T], data: Mapping[str, object], where: str, sources: Mapping[Dotted, str]) -> T:
    from pydantic import TypeAdapter, ValidationError

    for dotted, allowed in _unknown_keys(cls, data, ()):
        near = difflib.get_close_matches(str(dotted[-1]), allowed, n=1)
        parent = _spell(dotted[:-1])
        hint = (
            f"did you mean {_spell((*dotted[:-1], near[0]))}"
            if near
            else f"known: {', '.join(sorted(allowed))}"
        )
        table = f" in {parent}" if parent else ""
        raise InputError(f"{_origin(dotted, where, sources)}: unknown key {_spell(dotted)}{table}; {hint}.")
    try:
        value: T = TypeAdapter(cls).validate_json(json.dumps(_plain(data)), strict=True)
    except ValidationError as error:
        dotted, complaint = _first_complaint(error.errors(include_url=False), data)
        subject = _spell(dotted) or cls.__name__
        raise InputError(f"{_origin(dotted, where, sources)}: {subject} {complaint}.") from error
    return value


def _unknown_keys(hint: object, data: object, at: Dotted) -> Iterator[tuple[Dotted, list[str]]]:
    """Every key of `data` that the dataclass at that place does not have, with the names it does have."""
    inner = typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(data, Mapping):
            hints = typing.get_type_hints(hint)
            names = [field.name for field in dataclasses.fields(hint) if field.init]
            for key, value in data.items():
                if key not in names:
                    yield (*at, key), names
                else:
                    yield from _unknown_keys(hints[key], value, (*at, key))
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        findings = [list(_unknown_keys(option, data, at)) for option in inner if _accepts(option, data)]
        yield from min(findings, key=len, default=[])
    elif isinstance(data, Mapping) and len(inner) == 2:
        for key, value in data.items():
            yield from _unknown_keys(inner[1], value, (*at, key))
    elif isinstance(data, (list, tuple)) and inner:
        for index, value in enumerate(data):
            yield from _unknown_keys(inner[min(index, len(inner) - 1)], value, (*at, index))


def _accepts(hint: object, data: object) -> bool:
    """Whether an option of a union has the outward form of `data`: table for table, list for list."""
    origin = typing.get_origin(hint) or hint
    is_table = dataclasses.is_dataclass(hint) or origin in (dict, Mapping)
    return is_table == isinstance(data, Mapping)


def _first_complaint(errors: "Sequence[ErrorDetails]", data: object) -> tuple[Dotted, str]:
    """The first bad key and what it must be; the options of a union are joined with "or"."""
    places = [_place(error, data) for error in errors]
    wishes = [_wish(error) for error, place in zip(errors, places) if place == places[0]]
    value = errors[0]["input"]
    shown = "" if errors[0]["type"] in ("missing", "value_error") else f", not {_show(value)}"
    return places[0], " or ".join(dict.fromkeys(wishes)) + shown


def _place(error: "ErrorDetails", data: object) -> Dotted:
    """The part of pydantic's location that leads through the data (it also names options of unions)."""
    place: list[str | int] = []
    for key in error["loc"]:
        inside = (
            key in data if isinstance(data, Mapping) else isinstance(data, list) and key in range(len(data))
        )
        if inside:
            data = data[key]  # type: ignore[index]
        if inside or (error["type"] == "missing" and key == error["loc"][-1]):
            place.append(key)
    return tuple(place)


def _wish(error: "ErrorDetails") -> str:
    if error["type"] == "missing":
        return "is missing; give it a value"
    if error["type"] == "value_error":
        return f"is not allowed: {str(error['ctx']['error']).rstrip('.')}"
    text = error["msg"].removeprefix("Input ").replace("should", "must", 1)
    return text[:1].lower() + text[1:]


def _origin(dotted: Dotted, where: str, sources: Mapping[Dotted, str]) -> str:
    for path, name in reversed(list(sources.items())):
        if dotted[: len(path)] == path[: len(dotted)]:
            return name
    return where


def _spell(dotted: Dotted) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in dotted)
    return text.removeprefix(".")


def _plain(value: object) -> Any:
    """Data of JSON's own kinds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (PurePath, datetime.date, datetime.time)):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a configuration")


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twins = [key for key, _ in pairs]
        raise ValueError(f"the key {max(twins, key=twins.count)} occurs twice")
    return table


def _kind(value: object) -> str:
    return {list: "a list", dict: "a table", str: "text", bool: "true or false"}.get(type(value), "a number")


def _show(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
