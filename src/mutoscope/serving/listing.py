"""The caller's videos: look at one or all of them, take their files, cancel and delete them."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Query, Request
from fastapi.responses import Response

from mutoscope.serving.desk import (
    desk_of,
    file_reply,
    finished_job_of,
    job_of,
    job_reply,
    tenant_of,
    unknown_video,
)
from mutoscope.serving.protocol import ApiError, DeletedReply, PageReply, video_reply
from mutoscope.serving.shelf import FILES

Variant = Literal["video", "thumbnail", "spritesheet", "preview"]


async def retrieve_video(request: Request, video_id: str) -> Response:
    """How a video is getting on."""
    return job_reply(await job_of(request, video_id))


async def list_videos(
    request: Request,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> PageReply:
    """The caller's videos, newest first unless asked otherwise."""
    desk = desk_of(request)
    found = await desk.read(desk.store.page, tenant_of(request), after, limit, order == "asc")
    if found is None:
        raise ApiError(
            404, "not_found", "There is no video with the id in 'after'; start from the first page.", "after"
        )
    jobs, has_more = found
    replies = [video_reply(job) for job in jobs]
    return PageReply(
        data=replies,
        first_id=replies[0].id if replies else None,
        last_id=replies[-1].id if replies else None,
        has_more=has_more,
    )


async def download_content(request: Request, video_id: str, variant: Variant = "video") -> Response:
    """The video (MP4), its thumbnail (WebP) or sprite sheet (JPEG); `preview` (WebP) shows a running job."""
    desk = desk_of(request)
    if variant == "preview":
        path = desk.shelf.preview(await job_of(request, video_id))
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError as error:
            raise ApiError(
                404, "no_preview", "There is no preview of this video now; its thumbnail comes later."
            ) from error
        return Response(data, media_type="image/webp", headers={"cache-control": "no-store"})
    job = await finished_job_of(request, video_id)
    name, kind = FILES[variant]
    return file_reply(request, desk.shelf.attempt(job) / name, kind, f"{job.id}{Path(name).suffix}")


async def download_recipe(request: Request, video_id: str) -> Response:
    """Everything that made a finished video, as JSON."""
    job = await finished_job_of(request, video_id)
    path = desk_of(request).shelf.attempt(job) / "recipe.json"
    return file_reply(request, path, "application/json", f"{job.id}.json")


async def delete_video(request: Request, video_id: str) -> DeletedReply:
    """Remove a video and its files; one that is waiting or being made is cancelled."""
    desk = desk_of(request)
    job = await desk.write(desk.store.delete, tenant_of(request), video_id)
    if job is None:
        raise unknown_video()
    await asyncio.to_thread(desk.shelf.drop, job)
    return DeletedReply(id=job.id)


async def cancel_video(request: Request, video_id: str) -> Response:
    """Stop a waiting or running job; it fails with code "cancelled" and stays in the list."""
    desk = desk_of(request)
    job = await desk.write(desk.store.cancel, tenant_of(request), video_id)
    if job is None:
        raise unknown_video()
    return job_reply(job)
