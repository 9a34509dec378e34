"""Captions from an endpoint: a real HTTP server on this machine, well-behaved, slow, broken, or talking nonsense."""

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from mutoscope.data.endpoint import Endpoint, EndpointWriter, captions_in
from mutoscope.errors import InputError
from mutoscope.video import Video

GOOD = {"short": "a red ball", "medium": "A red ball rolls.", "detailed": "A red ball rolls. It is day."}
VIDEO = Video(np.full((17, 48, 64, 3), (200, 0, 0), np.uint8), 8.0)


class Server:
    """A chat endpoint whose answers a test decides: `answer(n)` gives status and text for the n-th request."""

    def __init__(self) -> None:
        self.answer: Callable[[int], tuple[int, str]] = lambda n: (200, json.dumps(GOOD))
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.delay, self.raw = 0.0, ""
        self.lock = threading.Lock()
        outer = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(200, {"object": "list", "data": [{"id": "seer-1", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.lock:  # two that come at once are still a first and a second
                    outer.requests.append(body)
                    outer.keys.append(self.headers["authorization"])
                    number = len(outer.requests)
                time.sleep(outer.delay)
                status, text = outer.answer(number)
                if outer.raw:
                    self.reply(200, outer.raw)
                    return
                if status != 200:
                    self.reply(status, {"error": {"message": text}})
                    return
                choice = {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                }
                usage = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
                self.reply(
                    200,
                    {"id": "1", "object": "chat.completion", "created": 1, "model": "seer-1", "choices": [choice],
                     "usage": usage},
                )  # fmt: skip

            def reply(self, status: int, value: object) -> None:
                data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the client gave up
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def writer(server: Server, **change: object) -> Iterator[EndpointWriter]:
    writer = EndpointWriter(Endpoint(server.url, **{"retries": 1, "parallel": 2, **change}))  # type: ignore[arg-type]
    try:
        yield writer
    finally:
        writer.client.close()


@pytest.fixture
def patient(server: Server) -> Iterator[EndpointWriter]:
    yield from writer(server, price=(2.0, 10.0))


def test_frames_go_out_and_captions_come_back(server: Server, patient: EndpointWriter) -> None:
    assert patient([VIDEO, VIDEO, VIDEO]) == [GOOD] * 3
    assert patient.by.startswith("seer-1 at 127.0.0.1")
    assert server.keys == ["Bearer from-the-environment"] * 3
    text, *pictures = server.requests[0]["messages"][0]["content"]
    assert "8 pictures" in text["text"]
    assert "2.1 seconds" in text["text"]
    assert len(pictures) == 8
    data = base64.b64decode(pictures[0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (64, 48)


def test_the_bill_is_kept(patient: EndpointWriter) -> None:
    patient([VIDEO] * 2)
    assert patient.bill.dollars == pytest.approx(2 * (1000 * 2 + 50 * 10) / 1e6)
    assert str(patient.bill) == "2 answers, 2000 tokens read, 100 written, 0.0050 dollars"


def test_an_error_of_the_server_is_tried_again(server: Server, patient: EndpointWriter) -> None:
    server.answer = lambda n: (503, "busy") if n == 1 else (200, json.dumps(GOOD))
    assert patient([VIDEO]) == [GOOD]
    assert len(server.requests) == 2


def test_nonsense_is_asked_once_more_then_the_clip_is_told(server: Server, patient: EndpointWriter) -> None:
    server.answer = lambda n: (200, "As a language model, I cannot")
    (found,) = patient([VIDEO])
    assert isinstance(found, InputError)
    assert "As a language model" in str(found)
    assert len(server.requests) == 2
    server.answer = lambda n: (200, "I cannot" if n == 3 else json.dumps(GOOD))
    assert patient([VIDEO]) == [GOOD]


@pytest.mark.parametrize(
    "raw",
    [
        "{}",
        "[]",
        "<html>Bad gateway</html>",
        '{"choices": 3}',
        '{"choices": [{"message": {}}]}',
        '{"choices": [{}]}',
    ],
)
def test_an_answer_in_no_known_form_is_told_of_its_clip(
    server: Server, patient: EndpointWriter, raw: str
) -> None:
    server.raw = raw
    (found,) = patient([VIDEO])
    assert isinstance(found, InputError)
    assert "\n" not in str(found)
    server.raw = ""
    assert patient([VIDEO]) == [GOOD]


def test_a_slow_endpoint_fails_the_clip_in_time(server: Server) -> None:
    server.delay = 3.0
    for hasty in writer(server, timeout=0.1, retries=0):
        begin = time.perf_counter()
        (found,) = hasty([VIDEO])
        assert isinstance(found, InputError)
        assert "no answer" in str(found)
        assert time.perf_counter() - begin < 2.5


def test_an_endpoint_that_fails_clip_after_clip_is_given_up(server: Server, patient: EndpointWriter) -> None:
    server.answer = lambda n: (200, json.dumps(GOOD) if n == 1 else "no")
    found = patient([VIDEO] * 20)
    assert found.count(GOOD) == 1  # what was paid for is kept
    assert "5 clips in a row" in str(found[-1])
    assert len(server.requests) <= 1 + 2 * (5 + 1)
    with pytest.raises(InputError, match="5 clips in a row"):
        patient([VIDEO])


@pytest.mark.parametrize("status", [401, 404])
def test_a_refusal_stops_at_once(server: Server, patient: EndpointWriter, status: int) -> None:
    server.answer = lambda n: (status, "not for you")
    assert all("not for you" in str(found) for found in patient([VIDEO] * 9))
    assert len(server.requests) <= 2  # those that were under way
    with pytest.raises(InputError, match="not for you"):
        patient([VIDEO])


def test_nobody_there_is_one_sentence() -> None:
    with pytest.raises(InputError, match="cannot be used"):
        EndpointWriter(Endpoint("http://127.0.0.1:9/v1", retries=0))


@pytest.mark.parametrize("url", ["ftp://a/v1", "localhost:8000", "http://me:secret@host/v1"])
def test_bad_addresses_are_named(url: str) -> None:
    with pytest.raises(InputError) as error:
        Endpoint(url)
    if "secret" in url:
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        (json.dumps(GOOD), True),
        (f"Here it is:\n```json\n{json.dumps(GOOD, indent=1)}\n```\nBye.", True),
        ('{"short": "a", "medium": "b"}', False),
        ('{"short": 1, "medium": "b", "detailed": "c"}', False),
        ('["a"]', False),
        ("{", False),
        ("", False),
    ],
)
def test_json_is_found_among_words(answer: str, good: bool) -> None:
    assert captions_in(answer) == (GOOD if good else None)
