"""A plug-in for the openai client, whose typed dict forms for pictures and videos fail before they are sent.

`repair(client)` makes `client.videos.create(input_reference={"image_url": ...})` and
`edit(video={"id": ...})`, `extend(video={"id": ...})` work, for OpenAI and AsyncOpenAI alike (openai 3.54: they
raise RuntimeError, since the client expects a file there). Needs nothing but the client that it is given.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Client = TypeVar("Client")

FORMS = {"create": "input_reference", "edit": "video", "extend": "video"}
EMPTY = ("empty", b"")
"""A file without content, which the server overlooks where the id of a video comes beside it."""


def repair(client: Client) -> Client:
    """Let a client's video methods take dicts; returns the same client."""
    videos = client.videos  # type: ignore[attr-defined]
    for method, name in FORMS.items():
        setattr(videos, method, _taking_dicts(getattr(videos, method), name))
    return client


def _taking_dicts(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(method)
    def call(*positional: Any, **named: Any) -> Any:
        if isinstance(named.get(name), dict):
            named["extra_body"] = {**(named.get("extra_body") or {}), name: named.pop(name)}
            if name == "video":
                named[name] = EMPTY
        return method(*positional, **named)

    return call
