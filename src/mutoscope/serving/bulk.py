"""The routes of files and batches, and the chore that sends the lines of batches to the application."""

import asyncio
import logging
import sqlite3
import time
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from mutoscope.serving.bundles import WINDOW, Asked, Batch, Line, State, batch_reply
from mutoscope.serving.desk import Desk, desk_of, key_reused, repetition, tenant_of
from mutoscope.serving.jobs import KeyReused
from mutoscope.serving.protocol import (
    ApiError,
    BatchesReply,
    BatchReply,
    CreateBatch,
    CreateFile,
    DeletedFileReply,
    FileReply,
    FilesReply,
)
from mutoscope.serving.receive import receive

FILE_BYTES = 16 * 2**20
NAME_CHARACTERS = 200
LATER = (429, 503, 507)
"""Answers after which a line is sent again; all others are for good."""

LOOK_EVERY = 0.5
ROUNDS = 25
"""So often new lines are sent in the place of refused ones before other batches have their turn."""

log = logging.getLogger("mutoscope.batches")


async def create_file(request: Request) -> FileReply:
    """Keep a file of requests (JSON lines) for a batch, or a picture that new videos may begin with."""
    desk, received = desk_of(request), await receive(request)
    received.only_files("file")
    purpose = received.parse(CreateFile).purpose
    file = received.files.get("file")
    if file is None:
        raise ApiError(
            400, "missing_required_parameter", "The parameter 'file' is missing; send it in a form.", "file"
        )
    if (file.size or 0) > FILE_BYTES:
        raise ApiError(413, "file_too_large", f"A file has at most {FILE_BYTES} bytes; make several.", "file")
    name = "".join(letter for letter in file.filename or "" if letter.isprintable())[-NAME_CHARACTERS:]
    content = await file.read()
    asked = (tenant_of(request), name or "file.jsonl", content, purpose, *repetition(request))
    try:
        return await desk.write(desk.bundles.add_file, *asked)
    except KeyReused as error:
        raise key_reused() from error


async def list_files(
    request: Request,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=100)] = None,
) -> FilesReply:
    """The caller's files, newest first unless asked otherwise."""
    desk = desk_of(request)
    asked = (tenant_of(request), after, limit, order == "asc", purpose)
    found = await desk.read(desk.bundles.files, *asked)
    if found is None:
        raise _unknown("file", "after")
    files, more = found
    first, last = (files[0].id, files[-1].id) if files else (None, None)
    return FilesReply(data=files, first_id=first, last_id=last, has_more=more)


async def get_file(request: Request, file_id: str) -> FileReply:
    """What is known of a file."""
    desk = desk_of(request)
    found = await desk.read(desk.bundles.file, tenant_of(request), file_id)
    if found is None:
        raise _unknown("file")
    return found


async def download_file(request: Request, file_id: str) -> Response:
    """What is in a file: the requests that were sent, or the answers to them."""
    desk = desk_of(request)
    content = await desk.read(desk.bundles.content, tenant_of(request), file_id)
    if content is None:
        raise _unknown("file")
    headers = {"cache-control": "private", "content-disposition": "attachment"}
    return Response(content, media_type="application/octet-stream", headers=headers)


async def delete_file(request: Request, file_id: str) -> DeletedFileReply:
    """Remove a file; batches made of it go on."""
    desk = desk_of(request)
    if not await desk.write(desk.bundles.delete_file, tenant_of(request), file_id):
        raise _unknown("file")
    return DeletedFileReply(id=file_id)


async def create_batch(request: Request) -> BatchReply:
    """Make all videos that the lines of a file ask for, a few at a time."""
    desk, received = desk_of(request), await receive(request)
    if not received.strict:
        raise ApiError(415, "unsupported_media_type", "A batch is asked for in JSON; send application/json.")
    asked = received.parse(CreateBatch)
    key, is_retry = repetition(request)
    order = Asked(tenant_of(request), asked.endpoint, asked.input_file_id, asked.metadata, key, is_retry)
    try:
        batch = await desk.write(desk.bundles.begin, order)
    except KeyReused as error:
        raise key_reused() from error
    if batch is None:
        raise _unknown("file", "input_file_id")
    return batch_reply(batch)


async def list_batches(
    request: Request,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BatchesReply:
    """The caller's batches, newest first."""
    desk = desk_of(request)
    found = await desk.read(desk.bundles.batches, tenant_of(request), after, limit)
    if found is None:
        raise _unknown("batch", "after")
    batches, more = found
    first, last = (batches[0].id, batches[-1].id) if batches else (None, None)
    data = [batch_reply(batch) for batch in batches]
    return BatchesReply(data=data, first_id=first, last_id=last, has_more=more)


async def retrieve_batch(request: Request, batch_id: str) -> BatchReply:
    """How a batch is getting on."""
    desk = desk_of(request)
    batch = await desk.read(desk.bundles.batch, tenant_of(request), batch_id)
    if batch is None:
        raise _unknown("batch")
    return batch_reply(batch)


async def cancel_batch(request: Request, batch_id: str) -> BatchReply:
    """Begin nothing more of a batch and stop what is being made; what is done is kept."""
    desk = desk_of(request)
    batch = await desk.write(desk.bundles.cancel, tenant_of(request), batch_id)
    if batch is None:
        raise _unknown("batch")
    return batch_reply(batch)


def _unknown(kind: str, param: str | None = None) -> ApiError:
    return ApiError(404, "not_found", f"There is no {kind} with this id.", param)


async def feed_batches(app: FastAPI, desk: Desk) -> None:
    """Go on with every open batch, for as long as the server runs."""
    while True:
        try:
            for batch in await desk.read(desk.bundles.open_batches):
                await go_on(app, desk, batch)
        except sqlite3.Error as error:  # a full disk ends no batch
            log.error("cannot go on with the batches: %s", error)
        except Exception:
            log.exception("batches")
        await asyncio.sleep(LOOK_EVERY)


async def go_on(app: FastAPI, desk: Desk, batch: Batch) -> None:
    """Send as many lines of a batch as there is room for, and end it when all are answered and made."""
    bundles = desk.bundles
    ending: State | None = "cancelled" if batch.status == "cancelling" else None
    if ending is None and time.time() > batch.created_at + WINDOW:
        ending = "expired"
    if ending is not None:
        for job in await desk.read(bundles.unfinished, batch):
            await desk.write(desk.store.cancel, batch.tenant, job)
        await desk.write(bundles.finish, batch, ending)
        return
    for _ in range(ROUNDS):
        lines = await desk.read(bundles.waiting, batch)
        for line in lines:
            code, reply = await ask(app, batch, line)
            if code in LATER:
                return
            await desk.write(bundles.answer, line, code, reply)
        if not lines:
            break
    if not await desk.read(bundles.is_open, batch):
        await desk.write(bundles.finish, batch, "completed")


async def ask(app: FastAPI, batch: Batch, line: Line) -> tuple[int, str]:
    """The status and the body of the application's answer to a line, as if its tenant had sent it alone."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": batch.endpoint,
        "raw_path": batch.endpoint.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"idempotency-key", f"{batch.id}-{line.place}".encode()),
        ],
        "client": None,
        "server": None,
        "state": {"tenant": batch.tenant},
    }
    sent: list[dict[str, Any]] = []

    async def channel() -> dict[str, Any]:
        return {"type": "http.request", "body": line.body.encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await app(scope, channel, send)
    except Exception:  # answered with 500 already; a line that fails so is not tried again
        log.exception("a line of %s failed", batch.id)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], body.decode()
