"""OpenAI-compatible chat endpoints: their addresses, a client, and pictures as they are sent.

Nothing here is called unless a user names an endpoint. The key is read from $OPENAI_API_KEY and nowhere else.
"""

import base64
import io
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from mutoscope.errors import InputError

if TYPE_CHECKING:
    from openai import OpenAI
    from PIL.Image import Image

KEY = "OPENAI_API_KEY"
T = TypeVar("T")


def check_address(url: str) -> None:
    """Raise InputError for what is no http address, or holds a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"The endpoint {url!r} is no address; write https://HOST/v1.")
    if parts.username or parts.password:
        raise InputError(f"The endpoint holds a password; take it out and put the key into ${KEY}.")


def connect(url: str, timeout: float, retries: int, asked_by: str) -> "OpenAI":
    """A client; timeout in seconds for one answer. Raises InputError when the extra `llm` is not installed."""
    try:
        from openai import OpenAI
    except ImportError as error:
        raise InputError(f"{asked_by} the openai package: pip install 'mutoscope[llm]'.") from error
    key = os.environ.get(KEY) or "none"  # servers of one's own want none, but the client wants one
    return OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=retries)


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` gives. Raises TimeoutError when it takes longer, and what it raises.

    The client's own timeout is for silence: an endpoint that sends a byte now and then would keep one waiting for ever.
    """
    answers: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # told to whoever waits
            faults.append(error)

    thread = threading.Thread(target=run, daemon=True)  # nobody waits for it at the end
    thread.start()
    thread.join(seconds)
    if faults:
        raise faults[0]
    if not answers:
        raise TimeoutError(f"no whole answer within {seconds:g} seconds")
    return answers[0]


def jpeg_url(picture: "Image", side: int) -> str:
    """The picture as the data URL of a JPEG, shrunk in place to at most `side` pixels."""
    picture.thumbnail((side, side))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
