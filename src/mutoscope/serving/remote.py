"""Another server that speaks OpenAI's video API: its address, its answers and its faults, with a limit on each.

It is trusted with prompts and pictures, not with this machine: redirects are not followed, no address in an answer is
ever used, ids are quoted, answers are bounded in bytes and seconds, and no proxy of the environment is asked.
"""

import contextlib
import json
import math
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from mutoscope.errors import InputError

KEY = "MUTOSCOPE_BACKEND_KEY"
"""The environment variable that holds the backend's API key."""

ANSWER_BYTES = 2**20
CONTENT_BYTES = 512 * 2**20
CONTENT_SECONDS = 1800.0
CONNECT_SECONDS = 10.0
PIECE = 2**18
SENTENCE = 200
"""Characters of a foreign sentence that are passed on."""

LATER = (408, 425, 429, 500, 502, 503, 504, 507)
"""Answers after which the same request may be sent again."""

STATES: dict[str, Literal["running", "completed", "failed"]] = {
    "completed": "completed",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "failed",
    "canceled": "failed",
    "expired": "failed",
    "deleted": "failed",
}
"""What the words of several servers come to; all others mean that it is not done yet."""


class Trouble(Exception):
    """No answer, or none to go by, for now: what the backend does, and how long it asks to wait."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class Declined(Exception):
    """A no for good: the HTTP status, the code and the sentence that came with it."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Remote:
    """Where a backend is. `timeout` is for one answer, `patience` for all tries of one request, in seconds.

    Raises InputError for an address that is not http or https, or that holds a password or a query.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 30.0
    patience: float = 120.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or not self.url.isascii() or not self.url.isprintable() or " " in self.url:
            raise InputError(f"The backend {self.url!r} is no address; write http://HOST:PORT/v1.")
        if parts.username is not None or parts.password is not None:
            raise InputError(f"The backend's address holds a password; take it out and set ${KEY}.")
        if parts.query or parts.fragment:
            raise InputError(f"The backend {self.url!r} has a query; give the address alone.")
        if not (self.key.isascii() and self.key.isprintable()):
            raise InputError(f"${KEY} holds characters that no key has; set it again.")

    @property
    def path(self) -> str:
        """What every path begins with: that of the address, /v1 when it has none."""
        return urlsplit(self.url).path.rstrip("/") or "/v1"


@dataclass(frozen=True)
class RemoteVideo:
    """A job as the backend tells it; `poll_after` in seconds, `drawn` in pixels where it says so."""

    id: str
    state: Literal["running", "completed", "failed"]
    progress: int
    code: str
    sentence: str
    poll_after: float | None = None
    drawn: tuple[int, int] | None = None


@dataclass(frozen=True)
class Body:
    """What is sent: fields, and files (name, media type, bytes), as a form or, without files, as JSON."""

    fields: Mapping[str, Any]
    files: Mapping[str, tuple[str, str, bytes]] = field(default_factory=dict)
    is_form: bool = False

    def encoded(self) -> tuple[str, bytes]:
        """The content type and the bytes."""
        if not self.files and not self.is_form:
            return "application/json", json.dumps(self.fields).encode()
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{_spelled(value)}\r\n'.encode()
            for name, value in self.fields.items()
        ]
        for name, (filename, kind, data) in self.files.items():
            head = f'content-disposition: form-data; name="{name}"; filename="{filename}"\r\ncontent-type: {kind}'
            parts += [f"--{boundary}\r\n{head}\r\n\r\n".encode(), data, b"\r\n"]
        return f"multipart/form-data; boundary={boundary}", b"".join([*parts, f"--{boundary}--\r\n".encode()])


# --- what can be asked ----------------------------------------------------------------------------


def create(remote: Remote, path: str, body: Body, key: str) -> RemoteVideo:
    """POST to a path of the video family under an idempotency key. Raises Trouble, or Declined."""
    return _video(*_ask(remote, "POST", path, body, key))


def retrieve(remote: Remote, identifier: str) -> RemoteVideo:
    """How a job is getting on. Raises Trouble, or Declined (404 for one that is not known any more)."""
    return _video(*_ask(remote, "GET", f"/videos/{quoted(identifier)}"))


def delete(remote: Remote, identifier: str) -> None:
    """Stop a job and remove its files. Raises Trouble, or Declined."""
    way = f"/videos/{quoted(identifier)}"
    with _answered(remote, "DELETE", way, None, "", remote.timeout) as line:
        if line.response.status >= 300:  # what a success says beside that is not needed
            _check_status(line)


def models(remote: Remote) -> list[dict[str, Any]]:
    """What the backend serves, as it tells it. Raises Trouble, or Declined."""
    told = _ask(remote, "GET", "/models")[0].get("data")
    if not isinstance(told, list):
        raise Trouble("lists no models")
    return [entry for entry in told if isinstance(entry, dict)]


def download(remote: Remote, identifier: str, path: Path, go_on: Callable[[], bool]) -> None:
    """Write a finished video to `path`. Raises Trouble, Declined, and OSError when the disk is full.

    Stops, with what came so far, as soon as `go_on` says no.
    """
    way = f"/videos/{quoted(identifier)}/content"
    with _answered(remote, "GET", way, None, "", CONTENT_SECONDS) as line, path.open("wb") as file:
        _check_status(line)
        length = line.response.getheader("content-length")
        received = 0
        while go_on():
            piece = line.read(PIECE)
            if not piece:
                break
            received += len(piece)
            if received > CONTENT_BYTES:
                raise Declined(200, "backend_bad_video", f"sends a video of more than {CONTENT_BYTES} bytes")
            file.write(piece)
        else:
            return
    if received == 0 or (length is not None and length.isdigit() and received != int(length)):
        raise Trouble("sends a video that is cut short")


# --- one request ----------------------------------------------------------------------------------


class _Line:
    """An answer that is being read; whatever breaks it is Trouble."""

    def __init__(self, response: HTTPResponse, rung: threading.Event) -> None:
        self.response, self.rung = response, rung

    def read(self, size: int) -> bytes:
        with _trouble(self.rung):
            data = self.response.read(size)
        if self.rung.is_set():  # a socket that was shut looks like the end of the answer
            raise Trouble("does not answer in time")
        return data


def _ask(
    remote: Remote, method: str, path: str, body: Body | None = None, key: str = ""
) -> tuple[dict[str, Any], HTTPResponse]:
    """One request, and the JSON object that answers it."""
    with _answered(remote, method, path, body, key, remote.timeout) as line:
        if line.response.status >= 300:
            _check_status(line)
        data = line.read(ANSWER_BYTES + 1)
        if len(data) > ANSWER_BYTES:
            raise Trouble("sends an answer without end")
        return _object(data), line.response


@contextlib.contextmanager
def _answered(
    remote: Remote, method: str, path: str, body: Body | None, key: str, seconds: float
) -> Iterator[_Line]:
    """Send a request; the answer may be read for as long as `seconds` from now last."""
    parts = urlsplit(remote.url)
    line_to = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = line_to(parts.hostname or "", parts.port, timeout=min(CONNECT_SECONDS, seconds))
    headers = {
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "mutoscope",
        "connection": "close",
    }
    if remote.key:
        headers["authorization"] = f"Bearer {remote.key}"
    if key:
        headers["idempotency-key"] = key
    data = None
    if body is not None:
        headers["content-type"], data = body.encoded()
    rung = threading.Event()
    try:
        with _trouble(rung):
            connection.connect()
        held = connection.sock
        held.settimeout(min(remote.timeout, seconds))
        alarm = threading.Timer(seconds, _hang_up, (held, rung))
        alarm.daemon = True
        alarm.start()
        try:
            with _trouble(rung):
                connection.request(method, f"{remote.path}{path}", data, headers)
                response = connection.getresponse()
            with response:
                yield _Line(response, rung)
        finally:
            alarm.cancel()
    finally:
        connection.close()


def _hang_up(held: socket.socket, rung: threading.Event) -> None:
    rung.set()
    with contextlib.suppress(OSError):
        socket.socket.shutdown(held, socket.SHUT_RDWR)


@contextlib.contextmanager
def _trouble(rung: threading.Event) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Trouble("does not answer in time") from error
    except (OSError, HTTPException, ValueError) as error:
        if rung.is_set():
            raise Trouble("does not answer in time") from error
        told = getattr(error, "strerror", None) or type(error).__name__
        raise Trouble(f"does not answer ({str(told).lower()[:SENTENCE]})") from error


def _check_status(line: _Line) -> None:
    """Raise Trouble or Declined unless an answer is a success."""
    status = line.response.status
    if status == 200:
        return
    if status in LATER:
        wait = line.response.getheader("retry-after") or ""
        raise Trouble(f"answers with HTTP {status}", float(wait) if wait.isdigit() else None)
    if status < 400:
        sentence = "answers with a redirect, which is not followed; give its final address"
        raise Declined(
            status, "backend_refused", sentence if status >= 300 else f"answers with HTTP {status}"
        )
    code, sentence = "", ""
    with contextlib.suppress(Trouble):
        code, sentence = _complaint(_object(line.read(ANSWER_BYTES)))
    raise Declined(status, code, sentence)


def _object(data: bytes) -> dict[str, Any]:
    try:
        told = json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Trouble("sends what is not JSON") from error
    if not isinstance(told, dict):
        raise Trouble("sends JSON that is not an object")
    return told


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# --- what an answer means -------------------------------------------------------------------------


def _video(told: dict[str, Any], response: HTTPResponse) -> RemoteVideo:
    identifier, status, progress = told.get("id"), told.get("status"), told.get("progress")
    if not (isinstance(identifier, str) and isinstance(status, str)):
        raise Trouble("sends JSON that is no video")
    quoted(identifier)
    is_number = isinstance(progress, int | float) and not isinstance(progress, bool)
    code, sentence = _complaint(told)
    wait = response.getheader("openai-poll-after-ms") or ""
    return RemoteVideo(
        identifier,
        STATES.get(status.lower(), "running"),
        int(min(100.0, max(0.0, progress))) if is_number and math.isfinite(progress) else 0,  # type: ignore[arg-type,type-var]
        code,
        sentence,
        min(30.0, max(0.1, int(wait) / 1000)) if wait.isdigit() else None,
        _sides(told.get("drawn_size")),
    )


def _sides(size: object) -> tuple[int, int] | None:
    width, _, height = size.partition("x") if isinstance(size, str) else ("", "", "")
    if not (width.isdecimal() and height.isdecimal() and len(width) < 6 and len(height) < 6):
        return None
    return int(width), int(height)


def _complaint(told: dict[str, Any]) -> tuple[str, str]:
    """Code and sentence of an error object, of OpenAI's form or FastAPI's; empty where there is none."""
    error = told.get("error", told.get("detail"))
    if isinstance(error, dict):
        return plain(error.get("code")), plain(error.get("message"))
    return "", plain(error)


def plain(text: object) -> str:
    """A foreign sentence as one line of readable letters, "" for what is no text."""
    if not isinstance(text, str):
        return ""
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    line = " ".join(words)
    return line if len(line) <= SENTENCE else f"{line[: SENTENCE - 1]}…"


def said_no(declined: Declined) -> str:
    """The sentence for whoever asked the backend through us."""
    if declined.status in (401, 403):
        return f"The backend refuses the key of this server; set ${KEY}."
    if declined.status < 400:
        return f"The backend {declined}."
    return sentence(f"The backend refused this (HTTP {declined.status})", str(declined))


def sentence(ours: str, theirs: str) -> str:
    """A sentence of ours that ends with one of theirs."""
    return f"{ours}: {theirs.rstrip('.')}." if theirs else f"{ours}."


def quoted(identifier: str) -> str:
    """An id as one part of a path. Raises Trouble for what cannot be one."""
    if not 1 <= len(identifier) <= 512 or not identifier.isprintable() or identifier in (".", ".."):
        raise Trouble("sends an id that is none")
    return quote(identifier, safe="")


def _spelled(value: object) -> str:
    """A value as the text of a form field."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)


def from_environment(url: str) -> Remote:
    """The backend at an address, with the key of the environment."""
    return Remote(url, os.environ.get(KEY, ""))
