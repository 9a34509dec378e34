"""The HTTP API: OpenAI's /v1/videos family, models, health, metrics and the page."""

import asyncio
import hashlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mutoscope import __version__
from mutoscope.errors import InputError
from mutoscope.serving import orders
from mutoscope.serving.gate import Door
from mutoscope.serving.ingest import Media, normalise
from mutoscope.serving.jobs import Job, KeyReused, QueueFull, QueueLimits, Store, Submission
from mutoscope.serving.metrics import health, metrics
from mutoscope.serving.orders import Order
from mutoscope.serving.protocol import (
    ALIASES,
    ApiError,
    CharacterReply,
    CreateCharacter,
    CreateVideo,
    DeletedReply,
    EditVideo,
    ErrorReply,
    ExtendVideo,
    HealthReply,
    Knobs,
    ModelReply,
    ModelsReply,
    PageReply,
    PictureReference,
    RemixVideo,
    VideoReply,
    character_reply,
    parse_seconds,
    spoken,
    video_reply,
)
from mutoscope.serving.receive import Received, data_url, receive
from mutoscope.serving.shelf import FILES, Shelf, share
from mutoscope.weights.card import ModelCard

R = TypeVar("R")

SIDES = (16, 4096)
PIXELS = 300_000_000
"""Pixels of all frames of a clip."""

UI = Path(__file__).parent / "ui"
NO_CHARACTERS = (
    "This version cannot put a character into a new video yet; describe how it looks in the prompt instead."
)
NO_EDITS = "This version cannot edit a video yet; remix it with the new prompt, which makes it anew."


@dataclass
class Desk:
    """Everything the routes work with. Reads and writes of the store run in threads of their own."""

    shelf: Shelf
    store: Store
    card: ModelCard
    door: Door
    limits: QueueLimits = field(default_factory=QueueLimits)
    max_seconds: float = 120.0
    reads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "read"))
    writes: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "write"))

    async def read(self, call: Callable[..., R], *values: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(self.reads, call, *values)

    async def write(self, call: Callable[..., R], *values: Any) -> R:
        return await asyncio.get_running_loop().run_in_executor(self.writes, call, *values)


def build(desk: Desk) -> FastAPI:
    """The application around a desk."""
    app = FastAPI(
        title="Mutoscope",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        responses={"4XX": {"model": ErrorReply}, "5XX": {"model": ErrorReply}},
    )
    app.state.desk = desk
    add = app.add_api_route
    add(
        "/v1/videos",
        create,
        methods=["POST"],
        response_model=VideoReply,
        openapi_extra=_body(CreateVideo, ("input_reference", "last_frame")),
    )
    add("/v1/videos", page, methods=["GET"], response_model=PageReply)
    add(
        "/v1/videos/edits",
        edit,
        methods=["POST"],
        response_model=VideoReply,
        openapi_extra=_body(EditVideo, ("video",)),
    )
    add(
        "/v1/videos/extensions",
        extend,
        methods=["POST"],
        response_model=VideoReply,
        openapi_extra=_body(ExtendVideo, ("video",)),
    )
    add(
        "/v1/videos/characters",
        create_character,
        methods=["POST"],
        response_model=CharacterReply,
        openapi_extra=_body(CreateCharacter, ("video",)),
    )
    add("/v1/videos/characters/{character_id}", get_character, methods=["GET"], response_model=CharacterReply)
    add("/v1/videos/{video_id}", retrieve, methods=["GET"], response_model=VideoReply)
    add("/v1/videos/{video_id}", delete, methods=["DELETE"], response_model=DeletedReply)
    add("/v1/videos/{video_id}/content", content, methods=["GET"], response_class=FileResponse)
    add("/v1/videos/{video_id}/recipe", recipe, methods=["GET"], response_class=FileResponse)
    add(
        "/v1/videos/{video_id}/remix",
        remix,
        methods=["POST"],
        response_model=VideoReply,
        openapi_extra=_body(RemixVideo, ()),
    )
    add("/v1/videos/{video_id}/cancel", cancel, methods=["POST"], response_model=VideoReply)
    add("/v1/models", models, methods=["GET"], response_model=ModelsReply)
    unhealthy: dict[int | str, dict[str, Any]] = {503: {"model": HealthReply}}
    add("/health", get_health, methods=["GET"], response_model=HealthReply, responses=unhealthy)
    add("/metrics", get_metrics, methods=["GET"], response_class=Response)
    for name in ("", "app.js", "style.css", "icon.svg"):
        add(f"/{name}", asset, methods=["GET"], include_in_schema=False)
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(InputError, _answer_input_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(sqlite3.OperationalError, _answer_store_error)
    app.add_exception_handler(Exception, _answer_any_error)
    return app


# --- making ---------------------------------------------------------------------------------------


async def create(request: Request) -> Response:
    """Queue a new video."""
    desk, received = _desk(request), await receive(request)
    received.only_files("input_reference", "last_frame")
    asked = received.parse(CreateVideo)
    _check_model(desk, asked.model)
    defaults = desk.card.defaults
    width, height = _size(asked.size) if asked.size else (defaults.width, defaults.height)
    fps = asked.fps or defaults.fps
    frames = _frames(desk, asked.seconds, fps) if asked.seconds is not None else defaults.frames
    order = _with_knobs(asked, _order(desk, asked.prompt, asked.model, frames, fps))
    order = _fitting(orders.resized(order, width, height, desk.card))
    if asked.characters:
        order = replace(order, unsupported=NO_CHARACTERS)
    async with _Inputs(desk) as inputs:
        first = await _picture(desk, received, asked.input_reference, "input_reference")
        last = await _picture(desk, received, asked.last_frame, "last_frame")
        if first is not None:
            await inputs.add_picture(first, "first.png", "input_reference")
        if last is not None:
            await inputs.add_picture(last, "last.png", "last_frame")
        order = replace(
            order, inputs=inputs.token, first_picture=first is not None, last_picture=last is not None
        )
        files = [None if data is None else hashlib.sha256(data).hexdigest() for data in (first, last)]
        return await inputs.submit(request, order, {"create": _as_asked(asked), "files": files})


async def remix(request: Request, video_id: str) -> Response:
    """Make a finished video again with another prompt, from the same noise."""
    desk, received = _desk(request), await receive(request)
    received.only_files()
    asked = received.parse(RemixVideo)
    source = await _finished(request, video_id)
    if source.order.task == "extend":
        raise ApiError(
            400, "cannot_remix_extension", "An extended video cannot be remixed; remix the one it came from."
        )
    base = replace(source.order, task="remix", prompt=asked.prompt, source=source.id, unsupported="")
    order = _with_knobs(asked, base)
    if "negative_prompt" not in asked.model_fields_set:
        order = replace(order, negative=base.negative)
    async with _Inputs(desk, desk.shelf.copy_inputs(source.order.inputs)) as inputs:
        order = replace(order, inputs=inputs.token)
        return await inputs.submit(request, order, {"remix": video_id, "asked": _as_asked(asked)})


async def extend(request: Request) -> Response:
    """Go on from the end of a video; the result holds both."""
    desk, received = _desk(request), await receive(request)
    received.only_files("video")
    asked = received.parse(ExtendVideo)
    _check_model(desk, asked.model)
    fps = desk.card.defaults.fps
    async with _Inputs(desk) as inputs:
        if asked.video is not None:
            source = await _finished(request, asked.video.id)
            inputs.link_video(source)
            whole, digest = source.order, ""
        else:
            media, digest = await inputs.add_video(received)
            whole = _order(desk, asked.prompt, asked.model, media.frames, media.fps)
            whole = orders.resized(whole, media.width, media.height, desk.card)
        fps, known = whole.fps, whole.all_frames
        order = replace(
            whole,
            task="extend",
            prompt=asked.prompt,
            model=asked.model,
            frames=_frames(desk, asked.seconds, fps),
            seed=secrets.randbelow(1_000_000),
            inputs=inputs.token,
            first_picture=False,
            last_picture=False,
            source=asked.video.id if asked.video else "",
            source_frames=known,
        )
        order = _fitting(_with_knobs(asked, order))
        if order.seconds > desk.max_seconds:
            raise ApiError(
                400,
                "too_long",
                f"The whole would last {spoken(order.seconds)} s, more than {desk.max_seconds:g} s.",
                "seconds",
            )
        return await inputs.submit(request, order, {"extend": _as_asked(asked), "file": digest})


async def edit(request: Request) -> Response:
    """Accept an edit; the job tells that this version cannot make it yet."""
    desk, received = _desk(request), await receive(request)
    received.only_files("video")
    asked = received.parse(EditVideo)
    _check_model(desk, asked.model)
    async with _Inputs(desk) as inputs:
        if asked.video is not None:
            whole, digest = (await _finished(request, asked.video.id)).order, ""
        else:
            media, digest = await inputs.add_video(received)
            whole = _order(desk, asked.prompt, asked.model, media.frames, media.fps)
            whole = orders.resized(whole, media.width, media.height, desk.card)
        order = replace(
            _with_knobs(asked, whole),
            task="edit",
            prompt=asked.prompt,
            model=asked.model,
            inputs=inputs.token,
            source=asked.video.id if asked.video else "",
            unsupported=NO_EDITS,
        )
        return await inputs.submit(request, order, {"edit": _as_asked(asked), "file": digest})


async def create_character(request: Request) -> CharacterReply:
    """Keep a clip of somebody under a name."""
    desk, received = _desk(request), await receive(request)
    received.only_files("video")
    asked = received.parse(CreateCharacter)
    identifier = f"char_{secrets.token_hex(16)}"
    async with _Inputs(desk) as inputs:
        await inputs.add_video(received)
        home = desk.shelf.character(identifier)
        home.parent.mkdir(parents=True, exist_ok=True)
        os.replace(desk.shelf.inputs(inputs.token), home)
    character = await desk.write(desk.store.add_character, _tenant(request), identifier, asked.name)
    return character_reply(character)


class _Inputs:
    """The folder of a request's inputs: kept when its job is queued, removed in every other case."""

    def __init__(self, desk: Desk, token: str = "") -> None:
        self.desk, self.token, self.is_kept = desk, token, False

    async def __aenter__(self) -> "_Inputs":
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.is_kept:
            self.desk.shelf.drop_inputs(self.token)

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

    def link_video(self, source: Job) -> None:
        """A second name for a finished clip, so that it may be deleted while this job waits."""
        try:
            share(self.desk.shelf.attempt(source) / FILES["video"][0], self._folder() / "video.mp4")
        except FileNotFoundError as error:  # deleted a moment ago
            raise _unknown() from error

    async def submit(self, request: Request, order: Order, fields: dict[str, Any]) -> Response:
        key = request.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= 255:
            raise ApiError(400, "invalid_idempotency_key", "An Idempotency-Key has 1 to 255 characters.")
        retries = request.headers.get("x-stainless-retry-count", "0")
        asked = Submission(
            _tenant(request), order, orders.fingerprint(fields), key, retries.isdigit() and int(retries) > 0
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
            raise ApiError(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request; take a new one.",
            ) from error
        return _reply(job)

    def _folder(self) -> Path:
        self.token = self.token or self.desk.shelf.new_inputs()
        return self.desk.shelf.inputs(self.token)


@asynccontextmanager
async def _upload(desk: Desk, data: bytes) -> AsyncIterator[Path]:
    """A folder that holds the bytes as `upload`, for as long as they are looked at."""
    folder = desk.shelf.new_upload()
    try:
        await asyncio.to_thread((folder / "upload").write_bytes, data)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _picture(
    desk: Desk, received: Received, reference: PictureReference | None, name: str
) -> bytes | None:
    """The bytes of a picture that came as a file or as a data URL."""
    file: UploadFile | None = received.files.get(name)
    if file is not None:
        return await file.read()
    if reference is None:
        return None
    if reference.image_url is None:
        raise ApiError(
            400,
            "file_id_not_supported",
            "This server keeps no files; send the picture itself.",
            f"{name}.file_id",
        )
    return data_url(reference.image_url, f"{name}.image_url")


def _order(desk: Desk, prompt: str, model: str, frames: int, fps: float) -> Order:
    """An order of the model's own size and settings, with a drawn seed."""
    own = desk.card.defaults
    return Order(
        task="create",
        prompt=prompt,
        model=model,
        served_by=desk.card.name,
        width=own.width,
        height=own.height,
        drawn_width=own.width,
        drawn_height=own.height,
        frames=frames,
        fps=fps,
        steps=own.steps,
        guidance=own.guidance,
        sampler=own.sampler,
        seed=secrets.randbelow(1_000_000),
    )


def _with_knobs(asked: Knobs, order: Order) -> Order:
    return replace(
        order,
        seed=order.seed if asked.seed is None else asked.seed,
        steps=asked.steps or order.steps,
        guidance=order.guidance if asked.guidance is None else asked.guidance,
        sampler=asked.sampler or order.sampler,
        negative=asked.negative_prompt,
    )


def _as_asked(asked: BaseModel) -> dict[str, Any]:
    return asked.model_dump(mode="json", exclude_unset=True)


def _check_model(desk: Desk, name: str) -> None:
    if name not in (desk.card.name, *ALIASES):
        raise ApiError(
            404,
            "model_not_found",
            f"There is no model {name!r} here; use {desk.card.name!r}, which also answers to 'sora-2'.",
            "model",
        )


def _size(text: str) -> tuple[int, int]:
    width, height = (int(side) for side in text.split("x"))
    if not (SIDES[0] <= width <= SIDES[1] and SIDES[0] <= height <= SIDES[1]):
        raise ApiError(
            400, "invalid_value", f"size is {text!r}; each side has {SIDES[0]} to {SIDES[1]} pixels.", "size"
        )
    return width, height


def _frames(desk: Desk, seconds: str | float, fps: float) -> int:
    try:
        return orders.whole_frames(parse_seconds(seconds), fps, desk.max_seconds)
    except InputError as error:
        raise ApiError(400, "invalid_value", str(error), "seconds") from error


def _fitting(order: Order) -> Order:
    if order.width * order.height * order.all_frames > PIXELS:
        raise ApiError(
            400,
            "too_large",
            f"{order.size} with {order.all_frames} frames is more than {PIXELS} pixels; ask for less.",
            "size",
        )
    return order


# --- looking --------------------------------------------------------------------------------------


async def retrieve(request: Request, video_id: str) -> Response:
    """How a video is getting on."""
    return _reply(await _job(request, video_id))


async def page(
    request: Request,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> PageReply:
    """The caller's videos, newest first unless asked otherwise."""
    desk = _desk(request)
    found = await desk.read(desk.store.page, _tenant(request), after, limit, order == "asc")
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


async def content(
    request: Request,
    video_id: str,
    variant: Literal["video", "thumbnail", "spritesheet", "preview"] = "video",
) -> Response:
    """The video (MP4), its thumbnail (WebP) or sprite sheet (JPEG); `preview` shows a running job."""
    desk = _desk(request)
    if variant == "preview":
        path = desk.shelf.preview(await _job(request, video_id))
        if not path.is_file():
            raise ApiError(
                404, "no_preview", "There is no preview of this video now; its thumbnail comes later."
            )
        return Response(path.read_bytes(), media_type="image/webp", headers={"cache-control": "no-store"})
    job = await _finished(request, video_id)
    name, kind = FILES[variant]
    return _file(desk.shelf.attempt(job) / name, kind, f"{job.id}{Path(name).suffix}")


async def recipe(request: Request, video_id: str) -> Response:
    """Everything that made a finished video, as JSON."""
    job = await _finished(request, video_id)
    return _file(_desk(request).shelf.attempt(job) / "recipe.json", "application/json", f"{job.id}.json")


async def get_character(request: Request, character_id: str) -> CharacterReply:
    """A character by its id."""
    desk = _desk(request)
    character = await desk.read(desk.store.character, _tenant(request), character_id)
    if character is None:
        raise ApiError(404, "not_found", "There is no character with this id.")
    return character_reply(character)


async def models(request: Request) -> ModelsReply:
    """The models that this server draws with."""
    card = _desk(request).card
    own = card.defaults
    return ModelsReply(
        data=[
            ModelReply(
                id=card.name,
                aliases=list(ALIASES),
                size=f"{own.width}x{own.height}",
                seconds=spoken(own.frames / own.fps),
                fps=own.fps,
                steps=own.steps,
                guidance=own.guidance,
                sampler=own.sampler,
            )
        ]
    )


async def get_health(request: Request) -> JSONResponse:
    """Whether the server can make videos: 200 while a worker's heart beats, else 503."""
    desk = _desk(request)
    state = await desk.read(health, desk.store, desk.door)
    return JSONResponse(state.model_dump(), 200 if state.status == "ok" else 503)


async def get_metrics(request: Request) -> Response:
    """Counters and gauges in Prometheus' text format."""
    desk = _desk(request)
    text = await desk.read(metrics, desk.store, desk.door)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def asset(request: Request) -> FileResponse:
    """The page and its parts."""
    name = request.url.path.removeprefix("/") or "index.html"
    return FileResponse(UI / name, headers={"cache-control": "no-cache"})


# --- ending ---------------------------------------------------------------------------------------


async def delete(request: Request, video_id: str) -> DeletedReply:
    """Remove a video and its files; one that is waiting or being made is cancelled."""
    desk = _desk(request)
    job = await desk.write(desk.store.delete, _tenant(request), video_id)
    if job is None:
        raise _unknown()
    await asyncio.to_thread(desk.shelf.drop, job)
    return DeletedReply(id=job.id)


async def cancel(request: Request, video_id: str) -> Response:
    """Stop a waiting or running job; it fails with code "cancelled" and stays in the list."""
    desk = _desk(request)
    job = await desk.write(desk.store.cancel, _tenant(request), video_id)
    if job is None:
        raise _unknown()
    return _reply(job)


# --- common ground of the routes ------------------------------------------------------------------


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _tenant(request: Request) -> str:
    tenant: str = request.state.tenant
    return tenant


async def _job(request: Request, identifier: str) -> Job:
    desk = _desk(request)
    job = await desk.read(desk.store.get, _tenant(request), identifier)
    if job is None:
        raise _unknown()
    return job


async def _finished(request: Request, identifier: str) -> Job:
    job = await _job(request, identifier)
    if job.status != "completed":
        raise ApiError(
            400,
            "video_not_ready",
            f"This video is {job.status.replace('_', ' ')}; only completed ones have content.",
        )
    return job


def _unknown() -> ApiError:
    return ApiError(404, "not_found", "There is no video with this id.")


def _reply(job: Job) -> JSONResponse:
    headers = {"cache-control": "private, no-store"}
    if job.status in ("queued", "in_progress"):
        headers["openai-poll-after-ms"] = "500"
    return JSONResponse(video_reply(job).model_dump(), headers=headers)


def _file(path: Path, kind: str, name: str) -> FileResponse:
    try:
        status = path.stat()
    except FileNotFoundError as error:  # deleted between two reads
        raise _unknown() from error
    return FileResponse(
        path, media_type=kind, filename=name, stat_result=status, headers={"cache-control": "private"}
    )


def _body(cls: type[BaseModel], files: tuple[str, ...]) -> dict[str, Any]:
    """The OpenAPI entry of a body that comes as JSON or as a form with files."""
    schema = cls.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    as_json = _inlined(schema, definitions)
    form = {**as_json, "properties": {**as_json["properties"]}}
    for name in files:
        form["properties"][name] = {"type": "string", "format": "binary"}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": as_json}, "multipart/form-data": {"schema": form}},
        }
    }


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in node.items()}


async def _answer_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _answer_input_error(request: Request, error: Exception) -> JSONResponse:
    return await _answer_api_error(request, ApiError(400, "invalid_value", str(error)))


async def _answer_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = str(first["loc"][-1])
    return await _answer_api_error(
        request,
        ApiError(400, "invalid_value", f"The parameter {param!r} is not valid: {first['msg']}.", param),
    )


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code, message = {
        404: ("not_found", "There is nothing at this path; the API begins at /v1/videos."),
        405: ("method_not_allowed", f"{request.method} is not possible at this path."),
    }.get(error.status_code, ("invalid_request", "The request cannot be served."))
    refusal = ApiError(error.status_code, code, message, headers=dict(error.headers or {}))
    return await _answer_api_error(request, refusal)


async def _answer_store_error(request: Request, error: Exception) -> JSONResponse:
    if "full" in str(error) or "disk I/O" in str(error):
        refusal = ApiError(507, "storage_full", "The server's disk is full; try again when there is space.")
    else:
        refusal = ApiError(503, "busy", "The job store is busy; try again.", headers={"retry-after": "1"})
    return await _answer_api_error(request, refusal)


async def _answer_any_error(request: Request, error: Exception) -> JSONResponse:
    return await _answer_api_error(
        request, ApiError(500, "server_error", "The server failed; its log tells why.")
    )
