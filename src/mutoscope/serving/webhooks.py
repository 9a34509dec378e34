"""Telling a webhook that a video is finished: signed after Standard Webhooks, tried again for a day.

The signature is HMAC-SHA256 of "ID.TIMESTAMP.BODY" under the secret (base64 after "whsec_"), in the headers
webhook-id, webhook-timestamp, webhook-signature; the openai client verifies it with `client.webhooks.unwrap`.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from mutoscope.errors import InputError
from mutoscope.serving.jobs import Event, Store

PREFIX = "whsec_"
WAITS = (5, 30, 120, 600, 3600, 14_400, 43_200)
"""Seconds before each further try; after the last one an event is given up."""

TIMEOUT = 10.0
AT_ONCE = 8
"""Events sent at the same time."""

ADDRESS = re.compile(r"https?://[A-Za-z0-9._~\[\]:-]+(?:[/?][!-~]*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Webhook:
    """Where to send events, and the secret shared with the receiver ("whsec_" and base64 of 24 to 64 bytes).

    A video may name an address of its own at one of `origins` (https://HOST, with the port if it is a special one);
    `url` "" leaves the others untold. Raises InputError for an address that is not http or https and for a secret
    of another form.
    """

    url: str
    secret: str
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for url in (self.url, *self.origins) if self.url else self.origins:
            if _origin(url) is None:
                raise InputError(f"The webhook {url!r} is no address; write https://HOST/PATH.")
        self.key()

    def lets(self, url: str) -> bool:
        """Whether a video may have its end told to this address."""
        origin = _origin(url)
        return origin is not None and origin in map(_origin, self.origins)

    def key(self) -> bytes:
        try:
            key = base64.b64decode(self.secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not self.secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
            raise InputError("The webhook secret is not `whsec_` and base64 of 24 to 64 bytes; make another.")
        return key


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an address; None for what is none, or holds a name, a password or odd characters."""
    if not ADDRESS.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]


def payload(event: Event) -> bytes:
    """The body of an event, as OpenAI writes it."""
    return json.dumps(
        {
            "id": event.id,
            "object": "event",
            "created_at": event.created_at,
            "type": event.type,
            "data": {"id": event.job},
        },
        separators=(",", ":"),
    ).encode()


def signed_headers(webhook: Webhook, identifier: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows that a body is ours and fresh."""
    signed = f"{identifier}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(webhook.key(), signed, hashlib.sha256).digest()).decode()
    return {
        "content-type": "application/json",
        "user-agent": "mutoscope",
        "webhook-id": identifier,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def deliver_due(store: Store, webhook: Webhook) -> int:
    """Send every event whose time has come, once; returns how many arrived. One slow receiver delays few others."""
    arrived = 0
    events = store.due_events()
    with ThreadPoolExecutor(AT_ONCE, "webhook") as pool:
        told = list(pool.map(lambda event: _told(webhook, event), events))
    for event, delivered in zip(events, told, strict=True):
        arrived += delivered is True
        given_up = delivered is None or event.tries >= len(WAITS)
        wait = 0 if delivered or given_up else WAITS[event.tries]
        store.settle_event(event, bool(delivered) or given_up, time.time() + wait)
    return arrived


def _told(webhook: Webhook, event: Event) -> bool | None:
    """Whether the receiver of an event took it; None when it has none, or none that is allowed any more."""
    if event.url and not webhook.lets(event.url):
        return None
    url = event.url or webhook.url
    if not url:
        return None
    body = payload(event)
    return _post(url, signed_headers(webhook, event.id, int(time.time()), body), body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A receiver does not send us elsewhere."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def _post(url: str, headers: dict[str, str], body: bytes) -> bool:
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with _opener.open(request, timeout=TIMEOUT) as answer:
            return bool(200 <= answer.status < 300)
    except (urllib.error.URLError, OSError, ValueError):
        return False
