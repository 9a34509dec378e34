"""The pictures and clips that come with a request: taken in, decoded apart, kept with the job or removed."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from mutoscope.serving import orders
from mutoscope.serving.desk import (
    Desk,
    desk_of,
    job_reply,
    key_reused,
    repetition,
    tenant_of,
    unknown_video,
)
from mutoscope.serving.ingest import Media, normalise
from mutoscope.serving.jobs import Job, KeyReused, QueueFull, Submission
from mutoscope.serving.orders import Order
from mutoscope.serving.policy import judge
from mutoscope.serving.protocol import ApiError, PictureReference
from mutoscope.serving.receive import Received, data_url
from mutoscope.serving.shelf import FILES, share

PICTURES = ("vision", "user_data")
"""Purposes of uploaded files that a video may begin or end with."""


class Inputs:
    """The folder of a request's inputs: kept when its job is queued, removed in every other case."""

    def __init__(self, desk: Desk, token: str = "") -> None:
        self.desk, self.token, self.is_kept = desk, token, False

    async def __aenter__(self) -> "Inputs":
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.is_kept:
            await asyncio.to_thread(self.desk.shelf.drop_inputs, self.token)

    async def add_picture(self, data: bytes, name: str, param: str) -> None:
        async with _upload(self.desk, data) as folder:
            media = await normalise(folder, "picture", param, self.desk.card.defaults.fps)
            os.replace(media.path, self._folder() / name)

    async def add_video(self, received: Received) -> tuple[Media, str]:
        """The uploaded clip, normalised, and the sha256 of what came."""
        file = received.files.get("video")
        if file is None:
            raise ApiError(
                400,
                "missing_required_parameter",
                "The parameter 'video' is missing; give a file or an id.",
                "video",
            )
        data = await file.read()
        async with _upload(self.desk, data) as folder:
            media = await normalise(folder, "video", "video", self.desk.card.defaults.fps)
            os.replace(media.path, self._folder() / "video.mp4")
        return media, hashlib.sha256(data).hexdigest()

    def link_video(self, source: Job, name: str = "video.mp4") -> None:
        """A second name for a finished clip, so that it may be deleted while this job waits."""
        try:
            share(self.desk.shelf.attempt(source) / FILES["video"][0], self._folder() / name)
        except FileNotFoundError as error:  # deleted a moment ago
            raise unknown_video() from error

    async def submit(
        self, request: Request, order: Order, fields: dict[str, Any], webhook: str | None
    ) -> Response:
        """Queue the order; `fields` are what was asked, by which a repetition of the request is recognised.

        `webhook` is the address that is to be told of its end, None for that of the server.
        """
        key, is_retry = repetition(request)
        if webhook is not None and (self.desk.webhook is None or not self.desk.webhook.lets(webhook)):
            raise ApiError(
                403,
                "webhook_not_allowed",
                "This server does not send there; start it with --allow-webhook and the address's origin.",
                "webhook_url",
            )
        refusal = await asyncio.to_thread(judge, self.desk.policy, "queue", order)
        if refusal is not None:
            status = 400 if refusal.code == "moderation_blocked" else 503
            raise ApiError(status, refusal.code, refusal.reason, "prompt" if status == 400 else None)
        if self.token:
            await asyncio.to_thread(self.desk.shelf.send, self.desk.shelf.inputs(self.token))
        asked = Submission(
            tenant_of(request), order, orders.fingerprint(fields), key, is_retry, webhook or ""
        )
        try:
            job, self.is_kept = await self.desk.write(self.desk.store.submit, asked, self.desk.limits)
        except QueueFull as error:
            raise ApiError(
                429,
                "queue_full",
                "Too many videos are waiting; try again when some are done.",
                headers={"retry-after": "10"},
            ) from error
        except KeyReused as error:
            raise key_reused() from error
        return job_reply(job)

    def _folder(self) -> Path:
        self.token = self.token or self.desk.shelf.new_inputs()
        return self.desk.shelf.inputs(self.token)


async def picture(
    request: Request, received: Received, reference: PictureReference | None, name: str
) -> bytes | None:
    """The bytes of a picture that came as a file, a data URL or an id; None when there is none."""
    file = received.files.get(name)
    if file is not None:
        return await file.read()
    if reference is None:
        return None
    if not reference.file_id:
        return data_url(reference.image_url, f"{name}.image_url")
    found = await _kept_picture(request, reference.file_id)
    if found is None:
        raise ApiError(
            404,
            "file_not_found",
            "There is no picture with this id; upload one with the purpose 'vision', or name a video of one frame.",
            f"{name}.file_id",
        )
    return found


async def _kept_picture(request: Request, identifier: str) -> bytes | None:
    """The caller's file of this id, or his video of a single frame; None for all others."""
    desk, tenant = desk_of(request), tenant_of(request)
    file = await desk.read(desk.bundles.file, tenant, identifier)
    if file is not None:
        return await desk.read(desk.bundles.content, tenant, identifier) if file.purpose in PICTURES else None
    job = await desk.read(desk.store.get, tenant, identifier)
    if job is None or job.status != "completed" or job.order.all_frames != 1:
        return None
    try:
        folder = await asyncio.to_thread(desk.shelf.bring, desk.shelf.attempt(job))
        return await asyncio.to_thread((folder / FILES["video"][0]).read_bytes)
    except FileNotFoundError:  # deleted a moment ago
        return None


@asynccontextmanager
async def _upload(desk: Desk, data: bytes) -> AsyncIterator[Path]:
    """A folder that holds the bytes as `upload`, for as long as they are looked at."""
    folder = desk.shelf.new_upload()
    try:
        await asyncio.to_thread((folder / "upload").write_bytes, data)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
