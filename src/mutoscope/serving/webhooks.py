"""Telling a webhook that a video is finished: signed after Standard Webhooks, tried again for a day.

The signature is HMAC-SHA256 of "ID.TIMESTAMP.BODY" under the secret (base64 after "whsec_"), in the headers
webhook-id, webhook-timestamp, webhook-signature; the openai client verifies it with `client.webhooks.unwrap`.
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from mutoscope.errors import InputError
from mutoscope.serving.jobs import Event, Store

PREFIX = "whsec_"
WAITS = (5, 30, 120, 600, 3600, 14_400, 43_200)
"""Seconds before each further try; after the last one an event is given up."""

TIMEOUT = 10.0


@dataclass(frozen=True)
class Webhook:
    """Where to send events, and the secret shared with the receiver ("whsec_" and base64 of 24 to 64 bytes).

    Raises InputError for an address that is not http or https and for a secret of another form.
    """

    url: str
    secret: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"The webhook {self.url!r} is no address; write https://HOST/PATH.")
        self.key()

    def key(self) -> bytes:
        try:
            key = base64.b64decode(self.secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not self.secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
            raise InputError("The webhook secret is not `whsec_` and base64 of 24 to 64 bytes; make another.")
        return key


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
    """Send every event whose time has come, once; returns how many arrived."""
    arrived = 0
    for event in store.due_events():
        body = payload(event)
        headers = signed_headers(webhook, event.id, int(time.time()), body)
        delivered = _post(webhook.url, headers, body)
        arrived += delivered
        given_up = event.tries >= len(WAITS)
        wait = 0 if delivered or given_up else WAITS[event.tries]
        store.settle_event(event, delivered or given_up, time.time() + wait)
    return arrived


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
