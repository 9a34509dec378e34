"""A job as it goes on, told by server-sent events: its state, and pictures of what is being made.

Events: `video` (the job as `GET /v1/videos/{id}` tells it, whenever it changes), `preview` (a data URL of a
small WebP picture, whenever the worker wrote another one). The stream ends with the job, or after
STREAM_SECONDS; clients then ask again, as the EventSource of a browser does by itself.
"""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import Request
from fastapi.responses import StreamingResponse

from mutoscope.serving.desk import Desk, desk_of, job_of, tenant_of
from mutoscope.serving.jobs import Job
from mutoscope.serving.protocol import video_reply

STREAM_SECONDS = 20.0
"""Length of one stream: no connection stays for good, and a stopping server waits for none."""

LOOK_EVERY = 0.25
CROWD = 50
"""Streams that are looked after so often; with more of them, all look less often."""

QUIET_SECONDS = 5.0
"""After so much silence a comment is sent, which keeps proxies from closing the connection."""


async def watch_video(request: Request, video_id: str) -> StreamingResponse:
    """Server-sent events of a job: its state and its previews, until it ends or the stream is full."""
    job = await job_of(request, video_id)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    told = _told(desk_of(request), tenant_of(request), job)
    return StreamingResponse(told, media_type="text/event-stream", headers=headers)


async def _told(desk: Desk, tenant: str, job: Job) -> AsyncIterator[str]:
    desk.watchers += 1
    try:
        async for event in _events(desk, tenant, job):
            yield event
    finally:
        desk.watchers -= 1


async def _events(desk: Desk, tenant: str, job: Job) -> AsyncIterator[str]:
    path, until, last_said, last_picture = desk.shelf.preview(job), time.monotonic() + STREAM_SECONDS, "", 0
    spoke_at = time.monotonic()
    yield "retry: 500\n\n"
    while True:
        said = video_reply(job).model_dump_json()
        picture = await asyncio.to_thread(_newer_picture, path, last_picture)
        if said != last_said:
            yield _event("video", said)
        if picture is not None:
            last_picture = picture[0]
            yield _event("preview", json.dumps({"image_url": picture[1]}))
        if said != last_said or picture is not None:
            last_said, spoke_at = said, time.monotonic()
        elif time.monotonic() - spoke_at > QUIET_SECONDS:
            spoke_at = time.monotonic()
            yield ": still here\n\n"
        if job.status in ("completed", "failed") or time.monotonic() > until or desk.door.draining:
            return
        await asyncio.sleep(LOOK_EVERY * max(1.0, desk.watchers / CROWD))
        found = await desk.read(desk.store.get, tenant, job.id)
        if found is None:  # deleted
            return
        job = found


def _event(kind: str, data: str) -> str:
    return f"event: {kind}\ndata: {data}\n\n"


def _newer_picture(path: Path, last: int) -> tuple[int, str] | None:
    """When the preview was written (nanoseconds) and its data URL, if that was after `last`."""
    try:
        written = path.stat().st_mtime_ns
        if written == last:
            return None
        return written, "data:image/webp;base64," + b64encode(path.read_bytes()).decode()
    except FileNotFoundError:
        return None
