"""The policy hook: words however they are written, an endpoint with its moods, and both doors of the server."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mutoscope.errors import InputError
from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Gate
from mutoscope.serving.orders import Order
from mutoscope.serving.policy import Endpoint, Policy, Refusal, Refused, Rule, judge, read_policy
from mutoscope.serving.worker import explain

RULE = Rule(words=("Famous Person", "gore"), patterns=("nu(de|dity)",), reason="Not here.")


@pytest.mark.parametrize(
    ("prompt", "refused"),
    [
        ("a famous   person walks", True),
        ("a FAMOUS PERSON walks", True),
        ("a ﬀamous pérson", False),
        ("a fa\u200bmóus person walks", True),
        ("Ｇｏｒｅ everywhere", True),
        ("a gored bull", False),
        ("nudity", True),
        ("a red ball", False),
    ],
)
def test_words_are_found_however_written(order: Order, prompt: str, refused: bool) -> None:
    refusal = judge(Policy((RULE,)), "queue", replace(order, prompt=prompt))
    assert refusal == (Refusal("moderation_blocked", "Not here.") if refused else None)


def test_nothing_is_refused_without_a_policy(order: Order, tmp_path: Path) -> None:
    assert judge(read_policy(tmp_path / "policy.toml"), "queue", order) is None
    assert judge(Policy((Rule(),)), "queue", order) is None


def test_the_file_is_read_and_checked(tmp_path: Path, order: Order) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        '[[rules]]\nwords = ["ball"]\nreason = "No balls."\n[endpoint]\nurl = "http://127.0.0.1:1/x"\n'
    )
    policy = read_policy(path)
    assert policy == Policy((Rule(("ball",), reason="No balls."),), Endpoint("http://127.0.0.1:1/x"))
    assert judge(policy, "queue", order) == Refusal("moderation_blocked", "No balls.")
    for text in ('[[rules]]\npatterns = ["("]\n', '[endpoint]\nurl = "file:///x"\n', "rule = 1\n"):
        path.write_text(text)
        with pytest.raises(InputError):
            read_policy(path)


class Judge(ThreadingHTTPServer):
    """Answers every question in the same way and keeps it."""

    answer = b'{"allowed": true}'
    wait = 0.0

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Bench)


class Bench(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Judge)
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        time.sleep(self.server.wait)
        self.send_response(200)
        self.send_header("content-length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def court() -> Iterator[Judge]:
    with Judge() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asking(court: Judge, fail_closed: bool = True) -> Policy:
    return Policy(endpoint=Endpoint(f"http://127.0.0.1:{court.server_port}/", 0.3, fail_closed))


def test_the_endpoint_sees_prompt_and_pictures(court: Judge, order: Order, tmp_path: Path) -> None:
    sheet = tmp_path / "spritesheet.jpg"
    sheet.write_bytes(b"jpeg")
    assert judge(asking(court), "publish", order, sheet) is None
    assert court.asked == [
        {
            "stage": "publish",
            "task": "create",
            "model": "tiny",
            "prompt": "a red ball",
            "negative_prompt": "",
            "images": ["anBlZw=="],
        }
    ]
    court.answer = b'{"allowed": false, "reason": "too red"}'
    assert judge(asking(court), "queue", order) == Refusal("moderation_blocked", "too red")


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"allowed": "yes"}', b"{"])
def test_what_is_no_answer_fails_as_chosen(court: Judge, order: Order, answer: bytes) -> None:
    court.answer = answer
    refusal = judge(asking(court), "queue", order)
    assert refusal is not None
    assert refusal.code == "policy_unavailable"
    assert judge(asking(court, fail_closed=False), "queue", order) is None


def test_a_slow_endpoint_is_not_waited_for(court: Judge, order: Order) -> None:
    court.wait = 1.0
    start = time.monotonic()
    refusal = judge(asking(court), "queue", order)
    assert refusal is not None
    assert refusal.code == "policy_unavailable"
    assert time.monotonic() - start < 0.9


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nothing_refused_is_queued(desk: Desk, app: Gate) -> None:
    desk.policy = Policy((RULE,))
    with TestClient(app) as client:  # type: ignore[arg-type]
        answer = client.post("/v1/videos", json={"prompt": "some gore"})
        assert answer.status_code == 400
        assert answer.json()["error"] == {
            "message": "Not here.",
            "type": "invalid_request_error",
            "param": "prompt",
            "code": "moderation_blocked",
        }
        desk.policy = Policy(endpoint=Endpoint("http://127.0.0.1:1/", 0.2))
        assert client.post("/v1/videos", json={"prompt": "a red ball"}).status_code == 503
        assert client.get("/v1/videos").json()["data"] == []


def test_a_refused_video_fails_with_the_reason() -> None:
    error = explain(Refused(Refusal("moderation_blocked", "Not here.")))
    assert error == {"code": "moderation_blocked", "message": "Not here."}
