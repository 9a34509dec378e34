"""The door of the server: who may come in, how large a request may be, and how long it may take to arrive.

`Gate` wraps the application (hosts, origins, keys, body size, draining); `PunctualProtocol` wraps uvicorn's
protocol, which has no deadline for a request that never ends.
"""

import asyncio
import json
import math
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers
from uvicorn.protocols.http.h11_impl import H11Protocol

from mutoscope.serving.keys import Keyring
from mutoscope.serving.protocol import ApiError, store_is_busy
from mutoscope.serving.receive import BODY_BYTES

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DEADLINE = 25.0
"""Seconds within which the head of a request and its first bytes must be here."""

SLOWEST = 64 * 1024
"""Bytes per second that an upload must keep up beyond the deadline."""

UNREAD = 60.0
"""Seconds for which a client may leave what is sent to it unread."""

HELD_BYTES = 8 * BODY_BYTES
"""Bytes of bodies that are in the server at once; beyond them a request has to come again."""

CONNECTIONS = 4000
LOOPBACK = ("localhost", "127.0.0.1", "::1")

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'; "
        b"base-uri 'none'; form-action 'self'",
    ),
]


@dataclass
class Door:
    """What the gate goes by; `hosts` None lets every Host in. `draining` closes it for new work.

    `held` counts the bytes of the bodies that are being dealt with.
    """

    keyring: Keyring
    hosts: tuple[str, ...] | None
    origins: tuple[str, ...] = ()
    draining: bool = False
    held: int = 0
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)


class Gate:
    """ASGI middleware around everything the server answers."""

    def __init__(self, app: App, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        is_over = False

        async def answer(message: Message) -> None:
            nonlocal is_over
            if is_over:
                return
            if message["type"] == "http.response.start":
                self.door.answers[(scope["method"], message["status"])] += 1
                headers = [*message["headers"], *SECURITY_HEADERS]
                if (
                    message["status"] < 400
                ):  # refusals are the same to the byte, for foreign ids and unknown ones
                    headers.append((b"x-request-id", f"req_{secrets.token_hex(16)}".encode()))
                message = {**message, "headers": headers}
            await send(message)
            if scope["method"] == "HEAD":  # it is answered as a GET is, without what comes after the head
                is_over = True
                await send({"type": "http.response.body", "body": b""})

        try:
            scope.setdefault("state", {})["tenant"] = self._admit(scope, Headers(scope=scope))
        except ApiError as error:
            await _refuse(error, answer)
            return
        except sqlite3.Error:
            await _refuse(store_is_busy(), answer)
            return
        body = Body(self.door, receive)
        try:
            await self.app(
                scope | {"method": "GET"} if scope["method"] == "HEAD" else scope, body.receive, answer
            )
        finally:
            self.door.held -= body.received
            if "form" in scope["state"]:
                await scope["state"]["form"].close()

    def _admit(self, scope: Scope, headers: Headers) -> str:
        """The tenant of a request. Raises ApiError for one that must not come in."""
        path, method = scope["path"], scope["method"]
        host = headers.get("host", "")
        if self.door.hosts is not None and _hostname(host) not in self.door.hosts:
            raise ApiError(
                403, "host_not_allowed", "This host name is not served; start the server with --allow-host."
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self.door.origins and urlsplit(origin).netloc != host:
            raise ApiError(
                403, "origin_not_allowed", "Pages of another site may not use this server (--allow-origin)."
            )
        if not (path.startswith("/v1/") or path == "/metrics"):
            return ""
        if headers.get("sec-fetch-site") == "cross-site" and origin not in self.door.origins:
            raise ApiError(
                403, "origin_not_allowed", "Pages of another site may not use this server (--allow-origin)."
            )
        tenant = self.door.keyring.tenant(headers.get("authorization", ""))
        if tenant is None:
            raise ApiError(
                401,
                "invalid_api_key",
                "The API key is missing or not valid; send `Authorization: Bearer KEY`.",
                headers={"www-authenticate": "Bearer"},
            )
        if self.door.draining and method == "POST":
            raise ApiError(
                503, "shutting_down", "The server is stopping; try again soon.", headers={"retry-after": "5"}
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > BODY_BYTES:
            raise _too_large()
        return tenant


class Body:
    """The body of a request, which is not read beyond BODY_BYTES, nor while all of them hold HELD_BYTES."""

    def __init__(self, door: Door, channel: Receive) -> None:
        self.door, self.channel, self.received = door, channel, 0

    async def receive(self) -> Message:
        message = await self.channel()
        length = len(message.get("body", b""))
        self.received += length
        self.door.held += length
        if self.received > BODY_BYTES:
            raise _too_large()
        if self.door.held > HELD_BYTES:
            raise ApiError(
                503, "busy", "Too much is being uploaded now; try again.", headers={"retry-after": "5"}
            )
        return message


def _too_large() -> ApiError:
    return ApiError(413, "body_too_large", f"A request holds at most {BODY_BYTES} bytes; send less.")


async def _refuse(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    pairs = [(name.encode(), value.encode()) for name, value in (headers | error.headers).items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


class PunctualProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a deadline: a request that has not arrived in time is cut off.

    The head has DEADLINE seconds from the connection (on a kept one, from its first byte); a body may go
    on as long as it arrives at SLOWEST bytes per second or faster. A client that takes nothing of its answer for
    UNREAD seconds is cut off too.
    """

    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _begun = 0.0
    _received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._arm()

    def data_received(self, data: bytes) -> None:
        if self._timer is None:
            self._arm()
        self._received += len(data)
        super().data_received(data)
        self._disarm_when_whole()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._disarm_when_whole()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._disarm_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._disarm_unread()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused in the same form as everything else."""
        error = ApiError(400, "invalid_http", "This is no valid HTTP request; check the client.")
        body = json.dumps(error.body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _arm(self) -> None:
        self._begun, self._received = time.monotonic(), 0
        self._timer = self.loop.call_later(DEADLINE, self._too_late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch_reader(self, before: float = math.inf) -> None:
        """Come back every UNREAD seconds; cut off when nothing was taken since."""
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(UNREAD, self._watch_reader, left)

    def _disarm_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _disarm_when_whole(self) -> None:
        is_between = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) or (is_between and self.cycle is not None):
            self._disarm()

    def _too_late(self) -> None:
        allowed = DEADLINE + (self._received / SLOWEST if self.conn.their_state is h11.SEND_BODY else 0)
        remaining = self._begun + allowed - time.monotonic()
        if remaining > 0:
            self._timer = self.loop.call_later(remaining, self._too_late)
        else:
            self.transport.abort()
