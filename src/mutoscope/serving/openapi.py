"""What the OpenAPI description says beyond the types of the routes: bodies, failures, files, links, keys."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from mutoscope.serving.protocol import ErrorReply

Responses = dict[int | str, dict[str, Any]]

FAILURES = {
    400: "The request is malformed, or a parameter is not valid",
    401: "The API key is missing or not valid",
    403: "This server does not do that for the caller",
    404: "There is nothing with this id",
    409: "The video is not in the state that this needs",
    413: "The body is too large",
    415: "The body is of another type than JSON or a form",
    416: "The file does not have this range",
    422: "The Idempotency-Key was used for another request",
    429: "Too many videos are waiting",
    503: "The server is busy or stopping",
    507: "The server's disk is full",
}
READING = (400, 401, 403, 404, 503)
WRITING = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507)

PICTURES = "image/png, image/jpeg, image/webp"
CLIPS = "video/mp4"


def failures(*statuses: int) -> Responses:
    """The failures that a route names, and the one form of those that any server may answer."""
    named: Responses = {status: _failure(FAILURES[status]) for status in statuses}
    return {**named, "4XX": _failure("The request is refused"), "5XX": _failure("The server failed")}


def _failure(description: str) -> dict[str, Any]:
    return {"model": ErrorReply, "description": description}


def files(*kinds: str) -> Responses:
    """A file as the answer, whole or in part."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    return {
        200: {"description": "The file", "content": content},
        206: {"description": "The part of it that the Range header names", "content": content},
        304: {"description": "The file is the one that the client has"},
    }


def events() -> Responses:
    """Server-sent events as the answer."""
    event = {
        "type": "object",
        "properties": {"event": {"enum": ["video", "preview"]}, "data": {"type": "string"}},
        "required": ["event", "data"],
    }
    return {200: {"description": "Events", "content": {"text/event-stream": {"schema": event}}}}


def body(cls: type[BaseModel], media: dict[str, str], must: Sequence[str] = ()) -> dict[str, Any]:
    """The OpenAPI entry of a body that comes as JSON or as a form with files.

    `media` are the parameters that may come as files, with their types; `must` those that are needed, as a
    file or otherwise.
    """
    schema = cls.model_json_schema(ref_template="#/components/schemas/{model}")
    as_json = _inlined(schema, schema.pop("$defs", {}))
    as_json["required"] = [*as_json["required"], *must]
    form = {**as_json, "properties": {name: _filled(kind) for name, kind in as_json["properties"].items()}}
    encoding = {}
    for name, kinds in media.items():
        form["properties"][name] = {"type": "string", "format": "binary"}
        encoding[name] = {"contentType": kinds}
    for name in must:
        as_json["properties"][name] = _filled(as_json["properties"][name])
    for name in ("characters", "storyboard"):
        if name in form["properties"]:
            encoding[name] = {"contentType": "application/json"}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": as_json},
                "multipart/form-data": {"schema": form, "encoding": encoding},
            },
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


def _filled(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without null, which a form cannot say."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind.get("type") != "null"]
    if not kinds:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, "anyOf": kinds}


def video_links() -> dict[str, Any]:
    """What can be done with the video in an answer, by its id."""
    operations = (
        "retrieve_video",
        "download_content",
        "download_recipe",
        "watch_video",
        "cancel_video",
        "delete_video",
    )
    links: dict[str, Any] = {
        name: {"operationId": name, "parameters": {"video_id": "$response.body#/id"}} for name in operations
    }
    links["remix_video"] = {
        "operationId": "remix_video",
        "parameters": {"video_id": "$response.body#/id"},
        "requestBody": {"prompt": "the same in the snow"},
    }
    reference = {"prompt": "and on", "video": {"id": "$response.body#/id"}}
    links["edit_video"] = {"operationId": "edit_video", "requestBody": reference}
    links["extend_video"] = {"operationId": "extend_video", "requestBody": {**reference, "seconds": "1"}}
    return {"responses": {"200": {"links": links}}}


def character_links() -> dict[str, Any]:
    return {
        "responses": {
            "200": {
                "links": {
                    "get_character": {
                        "operationId": "get_character",
                        "parameters": {"character_id": "$response.body#/id"},
                    }
                }
            }
        }
    }


def described(app: FastAPI) -> dict[str, Any]:
    """The whole description; a key is needed once the server has one."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{}, {"key": []}]
        app.openapi_schema = schema
    return app.openapi_schema
