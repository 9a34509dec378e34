"""What all routes work with: the store, the shelf, the model's card, the door; and the answers they share."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import FileResponse, JSONResponse, Response

from mutoscope.serving import orders
from mutoscope.serving.bundles import Bundles
from mutoscope.serving.gate import Door
from mutoscope.serving.jobs import Job, QueueLimits, Store
from mutoscope.serving.orders import Order
from mutoscope.serving.policy import Policy
from mutoscope.serving.protocol import ApiError, video_reply
from mutoscope.serving.shelf import Shelf
from mutoscope.serving.webhooks import Webhook
from mutoscope.weights.card import ModelCard

R = TypeVar("R")

POLL_MS = 500
"""What clients are told to wait before they ask again for a video that is not done."""

RANGE = re.compile(r"bytes=(\d{1,18}-(\d{1,18})?|-\d{1,18})(,\s*(\d{1,18}-(\d{1,18})?|-\d{1,18}))*", re.ASCII)


@dataclass
class Desk:
    """Everything the routes work with. Reads and writes of the store run in threads of their own.

    `watchers` counts the streams of events that are open. With `is_relay` another server draws. `webhook` tells where
    the ends of videos may be told.
    """

    shelf: Shelf
    store: Store
    card: ModelCard
    door: Door
    limits: QueueLimits = field(default_factory=QueueLimits)
    policy: Policy = field(default_factory=Policy)
    is_relay: bool = False
    webhook: Webhook | None = None
    reads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "read"))
    writes: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "write"))
    bundles: Bundles = field(init=False)
    watchers: int = 0

    def __post_init__(self) -> None:
        self.bundles = Bundles(self.store)

    def sized(self, order: Order, width: int, height: int) -> Order:
        """The order at another size; a backend decides by itself at which size it draws."""
        if self.is_relay:
            return replace(order, width=width, height=height, drawn_width=width, drawn_height=height)
        return orders.resized(order, width, height, self.card)

    async def read(self, call: Callable[..., R], *values: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(self.reads, call, *values)

    async def write(self, call: Callable[..., R], *values: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(self.writes, call, *values)


def desk_of(request: Request) -> Desk:
    """The desk of the application that a request came to."""
    desk: Desk = request.app.state.desk
    return desk


def tenant_of(request: Request) -> str:
    """Who asks, as the gate found out."""
    tenant: str = request.state.tenant
    return tenant


def repetition(request: Request) -> tuple[str | None, bool]:
    """By what a request is known again: its Idempotency-Key, and whether the client says that it is a retry.

    Raises ApiError (400) for a key that is none.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= 255:
        raise ApiError(400, "invalid_idempotency_key", "An Idempotency-Key has 1 to 255 characters.")
    retries = request.headers.get("x-stainless-retry-count", "0")
    return key, retries.isdigit() and int(retries) > 0


def key_reused() -> ApiError:
    return ApiError(
        422,
        "idempotency_key_reused",
        "This Idempotency-Key was used for another request; take a new one.",
    )


async def job_of(request: Request, identifier: str) -> Job:
    """The caller's job of this id. Raises ApiError (404), for a foreign one too."""
    desk = desk_of(request)
    job = await desk.read(desk.store.get, tenant_of(request), identifier)
    if job is None:
        raise unknown_video()
    return job


async def finished_job_of(request: Request, identifier: str) -> Job:
    """The caller's completed job of this id, its files here. Raises ApiError (404), or (409) when not completed."""
    job = await job_of(request, identifier)
    if job.status != "completed":
        raise ApiError(
            409,
            "video_not_ready",
            f"This video is {job.status.replace('_', ' ')}; only completed ones have content.",
        )
    shelf = desk_of(request).shelf
    await asyncio.to_thread(shelf.bring, shelf.attempt(job))
    return job


def unknown_video() -> ApiError:
    return ApiError(404, "not_found", "There is no video with this id.")


def job_reply(job: Job) -> JSONResponse:
    """A job as the API tells it, with the time after which to ask again."""
    headers = {"cache-control": "private, no-store"}
    if job.status in ("queued", "in_progress"):
        headers["openai-poll-after-ms"] = str(POLL_MS)
    return JSONResponse(video_reply(job).model_dump(), headers=headers)


def file_reply(request: Request, path: Path, kind: str, name: str) -> Response:
    """A file, whole or the ranges asked for, or 304. Raises ApiError (400, 416) for a range that it does not have."""
    try:
        status = path.stat()
    except FileNotFoundError as error:  # deleted between two reads
        raise unknown_video() from error
    answer = FileResponse(
        path, media_type=kind, filename=name, stat_result=status, headers={"cache-control": "private"}
    )
    unchanged = if_unchanged(request, answer)
    if unchanged is not None:
        return unchanged
    ranges = request.headers.get("range")
    if ranges is not None:
        use = _is_range_wanted(request, answer) and _satisfiable(ranges, status.st_size)
        rest = [(key, value) for key, value in request.scope["headers"] if key != b"range"]
        request.scope["headers"] = [*rest, (b"range", use.encode())] if use else rest
    return answer


def if_unchanged(request: Request, answer: FileResponse) -> Response | None:
    """304 when the client has this very file already, as its If-None-Match or If-Modified-Since says; else None."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        if not known & {"*", answer.headers["etag"]}:
            return None
    elif request.headers.get("if-modified-since") != answer.headers["last-modified"]:
        return None
    kept = ("etag", "last-modified", "cache-control")
    return Response(status_code=304, headers={name: answer.headers[name] for name in kept})


def _is_range_wanted(request: Request, answer: FileResponse) -> bool:
    """Whether the file is still the one that the client has a part of (If-Range)."""
    known = request.headers.get("if-range")
    return known is None or known in (answer.headers["etag"], answer.headers["last-modified"])


def _satisfiable(ranges: str, size: int) -> str:
    """Those of the ranges that the file has; "" for units other than bytes, which are to be overlooked.

    Raises ApiError (400) for what is no range, and (416) when the file has none of them.
    """
    ranges = ranges.strip().lower()
    if not ranges.startswith("bytes"):
        return ""
    spans = re.findall(r"(\d*)-(\d*)", ranges)
    if RANGE.fullmatch(ranges) is None or any(a and b and int(a) > int(b) for a, b in spans):
        raise ApiError(400, "invalid_range", "The Range header is not valid; write bytes=FIRST-LAST.")
    there = [f"{a}-{b}" for a, b in spans if (int(a) < size if a else int(b) > 0)]
    if not there:
        raise ApiError(
            416,
            "range_not_satisfiable",
            f"The file has {size} bytes; ask for a range inside it.",
            headers={"content-range": f"bytes */{size}"},
        )
    return "bytes=" + ",".join(there)
