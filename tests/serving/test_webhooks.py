"""Signed events: the openai client accepts ours and only ours; a receiver that fails is tried again."""

import base64
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from mutoscope.errors import InputError
from mutoscope.serving import webhooks
from mutoscope.serving.jobs import KEY_WINDOW, Event, Job, QueueLimits, Store, Submission
from mutoscope.serving.orders import Order
from mutoscope.serving.webhooks import Webhook, deliver_due, payload, signed_headers

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


class Receiver(HTTPServer):
    """Keeps what it is sent and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_finished_job_is_told_once(store: Store, submit: Callable[..., Job], receiver: Receiver) -> None:
    job = submit()
    claimed = store.claim("boot:1:1")
    assert claimed is not None
    store.complete(claimed, None)
    webhook = Webhook(receiver.url, SECRET)
    assert deliver_due(store, webhook) == 1
    assert deliver_due(store, webhook) == 0
    ((headers, body),) = receiver.got
    event = json.loads(body)
    assert (event["object"], event["type"], event["data"]) == ("event", "video.completed", {"id": job.id})
    assert headers["webhook-id"] == event["id"]


def test_a_video_may_name_its_own_receiver(store: Store, order: Order, receiver: Receiver) -> None:
    for number, url in enumerate(("", receiver.url, "http://127.0.0.1:1/not-allowed")):
        job, _ = store.submit(Submission("local", order, str(number), webhook=url), QueueLimits())
        store.cancel("local", job.id)
    events = store.due_events()
    assert [event.url for event in events] == ["", receiver.url, "http://127.0.0.1:1/not-allowed"]
    assert deliver_due(store, Webhook("", SECRET, (receiver.url,))) == 1
    assert [json.loads(body)["data"]["id"] for _, body in receiver.got] == [events[1].job]
    assert store.due_events() == []


def test_what_nobody_took_is_forgotten_after_a_day(
    store: Store, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = store.submit(Submission("local", order, "print", webhook="http://a/"), QueueLimits())
    store.cancel("local", job.id)
    store.expire()
    assert store.due_events() != []
    later = time.time() + KEY_WINDOW + 1
    monkeypatch.setattr(time, "time", lambda: later)
    store.expire()
    assert store.due_events() == []
    store.expire()
    assert store.connection().execute("SELECT COUNT(*) FROM hooks").fetchone()[0] == 0


@pytest.mark.parametrize(
    ("url", "is_let"),
    [
        ("https://hooks.example/videos?token=1", True),
        ("HTTPS://Hooks.Example:443", True),
        ("http://[::1]:8080/x", True),
        ("http://hooks.example/", False),
        ("https://hooks.example:444/", False),
        ("https://hooks.example.evil/", False),
        ("https://me@hooks.example/", False),
        ("https://evil\\@hooks.example/", False),
        ("https://evil#@hooks.example/", False),
        ("https://hooks.example /", False),
        ("https://hooks.example/\n", False),
        ("https://hooks.example:99999/", False),
        ("https://[hooks.example/", False),
        ("file:///etc/passwd", False),
        ("//hooks.example/", False),
        ("", False),
    ],
)
def test_where_a_video_may_have_its_end_told(url: str, is_let: bool) -> None:
    webhook = Webhook("https://other.example/", SECRET, ("https://hooks.example", "http://[::1]:8080"))
    assert webhook.lets(url) is is_let


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_failing_receiver_is_tried_again_then_given_up(
    store: Store, submit: Callable[..., Job], receiver: Receiver, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WAITS", (0, 0))
    submit()
    store.cancel("local", store.all_jobs(1)[0].id)
    receiver.status = status
    webhook = Webhook(receiver.url, SECRET)
    for _ in range(5):
        assert deliver_due(store, webhook) == 0
    assert len(receiver.got) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


def test_nobody_listening_is_no_error(store: Store, submit: Callable[..., Job]) -> None:
    submit()
    store.cancel("local", store.all_jobs(1)[0].id)
    assert deliver_due(store, Webhook("http://127.0.0.1:1/", SECRET)) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_openai_client_verifies_our_signature() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from openai import InvalidWebhookSignatureError, OpenAI

    event = Event("evt_1", "video.completed", "video_1", 1_700_000_000, 0)
    body = payload(event)
    headers = signed_headers(Webhook("https://example.com/", SECRET), event.id, int(time.time()), body)
    with OpenAI(api_key="x", webhook_secret=SECRET) as client:
        unwrapped = client.webhooks.unwrap(body.decode(), headers)
        assert (unwrapped.type, unwrapped.data.id) == ("video.completed", "video_1")  # type: ignore[comparison-overlap]
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(body.decode().replace("video_1", "video_2"), headers)


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("ftp://host/", SECRET),
        ("no address", SECRET),
        ("https:///path", SECRET),
        ("https://host/", "secret"),
        ("https://host/", "whsec_"),
        ("https://host/", "whsec_%%%"),
        ("https://host/", "whsec_" + base64.b64encode(b"short").decode()),
    ],
)
def test_settings_that_cannot_work(url: str, secret: str) -> None:
    with pytest.raises(InputError, match="webhook"):
        Webhook(url, secret)
