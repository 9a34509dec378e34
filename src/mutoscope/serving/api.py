"""The HTTP API: OpenAI's /v1/videos family, models, health, metrics and the page, as one application."""

import sqlite3
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match

from mutoscope import __version__
from mutoscope.errors import InputError
from mutoscope.serving import bulk, cast, feed, listing, pages, videos
from mutoscope.serving.desk import Desk
from mutoscope.serving.openapi import (
    CLIPS,
    PICTURES,
    READING,
    WRITING,
    body,
    character_links,
    described,
    events,
    failures,
    files,
    video_links,
)
from mutoscope.serving.protocol import (
    ApiError,
    BatchesReply,
    BatchReply,
    CharacterReply,
    CreateBatch,
    CreateCharacter,
    CreateFile,
    CreateVideo,
    DeletedFileReply,
    DeletedReply,
    EditVideo,
    ExtendVideo,
    FileReply,
    FilesReply,
    HealthReply,
    ModelReply,
    ModelsReply,
    PageReply,
    RemixVideo,
    VideoReply,
    store_is_busy,
)
from mutoscope.serving.shelf import is_full_disk


def build(desk: Desk) -> FastAPI:
    """The application around a desk."""
    app = FastAPI(
        title="Mutoscope",
        version=__version__,
        description="OpenAI's video API, served by models of one's own. Fields that it did not have are ours.",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.desk = desk
    app.openapi = lambda: described(app)  # type: ignore[method-assign]
    _add_making(app)
    _add_looking(app)
    _add_bulk(app)
    for name in ("", "app.js", "style.css", "icon.svg"):
        app.add_api_route(f"/{name}", pages.asset, methods=["GET"], include_in_schema=False)
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(InputError, _answer_input_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(sqlite3.OperationalError, _answer_store_error)
    app.add_exception_handler(OSError, _answer_system_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, _answer_any_error)
    return app


def _add_making(app: FastAPI) -> None:
    pictures = {"input_reference": PICTURES, "last_frame": PICTURES}
    for path, endpoint, asked in (
        ("/v1/videos", videos.create_video, body(CreateVideo, pictures)),
        ("/v1/videos/edits", videos.edit_video, body(EditVideo, {"video": CLIPS}, ["video"])),
        ("/v1/videos/extensions", videos.extend_video, body(ExtendVideo, {"video": CLIPS}, ["video"])),
        ("/v1/videos/{video_id}/remix", videos.remix_video, body(RemixVideo, {})),
    ):
        _add(app, "POST", path, endpoint, VideoReply, asked | video_links())
    asked = body(CreateCharacter, {"video": CLIPS}, ["video"])
    path = "/v1/videos/characters"
    _add(app, "POST", path, cast.create_character, CharacterReply, asked | character_links())


def _add(
    app: FastAPI,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    reply: type[Any],
    extra: dict[str, Any] | None = None,
) -> None:
    """A route that answers with an object; what it may refuse follows from its method."""
    named = failures(*(READING if method == "GET" else WRITING))
    app.add_api_route(
        path, endpoint, methods=[method], response_model=reply, responses=named, openapi_extra=extra
    )


def _add_looking(app: FastAPI) -> None:
    one = "/v1/videos/{video_id}"
    _add(app, "GET", "/v1/videos", listing.list_videos, PageReply)
    _add(app, "GET", "/v1/videos/characters/{character_id}", cast.get_character, CharacterReply)
    _add(app, "GET", one, listing.retrieve_video, VideoReply)
    _add(app, "DELETE", one, listing.delete_video, DeletedReply)
    _add(app, "POST", f"{one}/cancel", listing.cancel_video, VideoReply)
    _add(app, "GET", "/v1/models", pages.list_models, ModelsReply)
    _add(app, "GET", "/v1/models/{model}", pages.retrieve_model, ModelReply)
    text: dict[int | str, dict[str, Any]] = {
        200: {"description": "Numbers", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }
    unhealthy: dict[int | str, dict[str, Any]] = {
        503: {"model": HealthReply, "description": "No worker answers"}
    }
    refused = failures(*READING, 409, 416)
    for path, endpoint, answers in (
        (
            f"{one}/content",
            listing.download_content,
            files("video/mp4", "image/webp", "image/jpeg") | refused,
        ),
        (f"{one}/recipe", listing.download_recipe, files("application/json") | refused),
        (f"{one}/events", feed.watch_video, events() | failures(*READING)),
        ("/metrics", pages.get_metrics, text | failures(401, 403)),
    ):
        app.add_api_route(path, endpoint, methods=["GET"], response_class=Response, responses=answers)
    app.add_api_route(
        "/health", pages.get_health, methods=["GET"], response_model=HealthReply, responses=unhealthy
    )


def _add_bulk(app: FastAPI) -> None:
    """Files of requests, and the batches that are made of them."""
    sent = CreateFile.model_json_schema()
    sent["properties"]["file"] = {"type": "string", "format": "binary", "minLength": 1}
    sent["required"].append("file")
    file_id, batch_id = {"file_id": "$response.body#/id"}, {"batch_id": "$response.body#/id"}
    named = {"input_file_id": "$response.body#/id", "endpoint": "/v1/videos", "completion_window": "24h"}
    of_file = {
        **{
            name: {"operationId": name, "parameters": file_id}
            for name in ("get_file", "download_file", "delete_file")
        },
        "create_batch": {"operationId": "create_batch", "requestBody": named},
    }
    of_batch = {
        name: {"operationId": name, "parameters": batch_id} for name in ("retrieve_batch", "cancel_batch")
    }
    _add(app, "POST", "/v1/files", bulk.create_file, FileReply, _asks("multipart/form-data", sent, of_file))
    _add(app, "GET", "/v1/files", bulk.list_files, FilesReply)
    _add(app, "GET", "/v1/files/{file_id}", bulk.get_file, FileReply)
    _add(app, "DELETE", "/v1/files/{file_id}", bulk.delete_file, DeletedFileReply)
    app.add_api_route(
        "/v1/files/{file_id}/content",
        bulk.download_file,
        methods=["GET"],
        response_class=Response,
        responses=files("application/octet-stream") | failures(*READING),
    )
    asked = _asks("application/json", CreateBatch.model_json_schema(), of_batch)
    _add(app, "POST", "/v1/batches", bulk.create_batch, BatchReply, asked)
    _add(app, "GET", "/v1/batches", bulk.list_batches, BatchesReply)
    _add(app, "GET", "/v1/batches/{batch_id}", bulk.retrieve_batch, BatchReply)
    _add(app, "POST", "/v1/batches/{batch_id}/cancel", bulk.cancel_batch, BatchReply)


def _asks(kind: str, schema: dict[str, Any], links: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI entry of a body of one type, and of what can be done with the answer to it."""
    return {
        "requestBody": {"required": True, "content": {kind: {"schema": schema}}},
        "responses": {"200": {"links": links}},
    }


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
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["allow"] = _methods(request)
    return await _answer_api_error(request, ApiError(error.status_code, code, message, headers=headers))


def _methods(request: Request) -> str:
    """The methods of the path that a request came to: those of all routes with its pattern."""
    routes: list[BaseRoute] = request.app.routes
    path = next(
        getattr(route, "path", "") for route in routes if route.matches(request.scope)[0] != Match.NONE
    )
    methods: set[str] = set()
    for route in routes:
        if getattr(route, "path", None) == path:
            methods |= getattr(route, "methods", None) or set()
    if "GET" in methods:
        methods.add("HEAD")  # the gate answers it
    return ", ".join(sorted(methods))


async def _answer_store_error(request: Request, error: Exception) -> JSONResponse:
    if "full" in str(error) or "disk I/O" in str(error):
        return await _answer_api_error(request, _full())
    return await _answer_api_error(request, store_is_busy())


async def _answer_system_error(request: Request, error: Exception) -> JSONResponse:
    if not is_full_disk(error):
        raise error  # ours: logged, and answered as any other
    return await _answer_api_error(request, _full())


def _full() -> ApiError:
    return ApiError(507, "storage_full", "The server's disk is full; try again when there is space.")


async def _answer_nobody(request: Request, error: Exception) -> JSONResponse:
    """Who went away before the end of the body reads no answer; it is no failure of ours either."""
    return await _answer_api_error(request, ApiError(400, "body_cut_short", "The body ended early."))


async def _answer_any_error(request: Request, error: Exception) -> JSONResponse:
    return await _answer_api_error(
        request, ApiError(500, "server_error", "The server failed; its log tells why.")
    )
