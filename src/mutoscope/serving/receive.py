"""The body of a request, read with limits while it streams in: JSON or a form, as a tree of fields and files."""

import binascii
import json
import re
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from mutoscope.serving.protocol import ApiError, complaint

M = TypeVar("M", bound=BaseModel)

BODY_BYTES = 64 * 2**20
JSON_BYTES = 16 * 2**20
PART_BYTES = 2**20
PARTS = 64
DEPTH = 4
NESTED = ("input_reference", "last_frame", "video", "characters", "storyboard")
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


@dataclass
class Received:
    """Fields of a body as a tree, and its files by name; `strict` when the types of the fields are known."""

    fields: dict[str, Any]
    strict: bool
    files: dict[str, UploadFile] = field(default_factory=dict)

    def parse(self, cls: type[M]) -> M:
        """The fields as a request object. Raises ApiError naming the first parameter that is wrong."""
        try:
            return cls.model_validate(self.fields, strict=self.strict)
        except ValidationError as error:
            raise complaint(error) from error

    def only_files(self, *names: str) -> None:
        """Refuse files that the request has no place for."""
        for name in self.files:
            if name not in names:
                raise ApiError(
                    400, "unknown_parameter", f"There is no file {name!r} here; leave it out.", name
                )


async def receive(request: Request) -> Received:
    """Read and take apart a body. Raises ApiError for one that is too large, malformed or of another type."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "unsupported_encoding", "Compressed bodies are not read; send it uncompressed.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return Received(_parse_json(await _small_body(request)), strict=True)
    if kind not in FORMS:
        raise ApiError(
            415,
            "unsupported_media_type",
            f"A body of type {kind[:100]!r} is not read; send application/json or multipart/form-data.",
        )
    return await _form(request)


async def _small_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > JSON_BYTES:
            raise ApiError(
                413,
                "body_too_large",
                f"A JSON body holds at most {JSON_BYTES} bytes; upload files as a form.",
            )
    return bytes(body)


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        data = _json(body.decode())
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "invalid_json", "The body is not valid JSON; check its syntax.") from error
    if not isinstance(data, dict):
        raise ApiError(400, "invalid_json", "The body is not a JSON object; send one with a prompt.")
    return data


def _json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, for half a surrogate pair too: no answer could repeat it."""
    data = json.loads(text, parse_constant=_no_constant)
    if "\\ud" in text.lower():
        json.dumps(data, ensure_ascii=False).encode()
    return data


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


async def _form(request: Request) -> Received:
    try:
        form = await request.form(max_files=4, max_fields=PARTS, max_part_size=PART_BYTES)
    except (ApiError, OSError):
        raise
    except Exception as error:  # the parser raises several kinds, among them HTTPException and KeyError
        text = str(getattr(error, "detail", error))
        if "exceeded maximum" in text.lower() or "too many" in text.lower():
            raise ApiError(
                413,
                "form_too_large",
                f"A form has at most 4 files and {PARTS} fields of {PART_BYTES} bytes; send less.",
            ) from error
        if isinstance(error, MultiPartException) or getattr(error, "status_code", 0) == 400 or text:
            raise ApiError(400, "invalid_form", "The form cannot be read; check its boundary.") from error
        raise
    request.state.form = form  # its files stay open until the gate closes them
    received = Received({}, strict=False)
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if value.size:  # the client's typed helpers add an empty file beside `video[id]`
                if name in received.files:
                    raise ApiError(400, "invalid_form", f"The file {name!r} came twice; send one.", name)
                received.files[name] = value
        else:
            _place(received.fields, name, value)
    for name in received.files:
        received.fields.pop(name, None)
    return received


def _place(fields: dict[str, Any], name: str, value: str) -> None:
    """Put a field with a name such as `a[b]` or `a[][b]` into the tree."""
    head, brackets = re.match(r"([^\[]*)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    keys = re.findall(r"\[([^\[\]]*)\]", brackets)
    if "".join(f"[{key}]" for key in keys) != brackets or not head or "]" in head or len(keys) > DEPTH:
        raise ApiError(
            400, "invalid_form", f"The field name {name[:100]!r} is not of the form a[b]; correct it."
        )
    if not keys and value[:1] in ("{", "[") and head in NESTED:
        with suppress(ValueError, RecursionError):  # curl users write a nested value as JSON
            fields[head] = _json(value)
            return
    _insert(fields, [head, *keys], value, name)


def _insert(tree: dict[str, Any], keys: list[str], value: str, name: str) -> None:
    key, rest = keys[0], keys[1:]
    twice = ApiError(400, "invalid_form", f"The field {name[:100]!r} came twice; send it once.", name[:100])
    if not rest:
        if key in tree:
            raise twice
        tree[key] = value
    elif rest[0] == "":
        items = tree.setdefault(key, [])
        if not isinstance(items, list):
            raise twice
        if len(rest) == 1:
            items.append(value)
        else:
            if not items or not isinstance(items[-1], dict) or rest[1] in items[-1]:
                items.append({})
            _insert(items[-1], rest[1:], value, name)
    else:
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            raise twice
        _insert(inner, rest, value, name)


def data_url(url: str, param: str) -> bytes:
    """The bytes of a data URL. Raises ApiError for other URLs: the server fetches nothing."""
    if not url.startswith("data:"):
        raise ApiError(
            400,
            "url_not_allowed",
            "This server fetches no URLs; send the picture as a file or data URL.",
            param,
        )
    head, comma, text = url.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError("not base64")
        return b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ApiError(
            400, "invalid_value", "The data URL is not valid; write data:image/png;base64,...", param
        ) from error
