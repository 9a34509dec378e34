"""Prompts from a chat endpoint: a real HTTP server on this machine, well-behaved, slow, broken, or talking nonsense."""

import builtins
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mutoscope.errors import InputError
from mutoscope.generation.rewrite import Chat, Unanswered, chat_of_environment, cleaned, rewrite

GOOD = "A red ball rolls to the right, and a blue box stands still at night."
LONG = "A chestnut horse gallops along a windswept beach at dawn, its mane lit from behind, as the camera follows."


class Server:
    """A chat endpoint that gives `answers` in turn, the last one for ever."""

    def __init__(self) -> None:
        self.answers, self.status, self.delay, self.raw = [GOOD], 200, 0.0, ""
        self.drip = 0.0  # seconds before each of the first 20 bytes
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        outer = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(json.dumps({"object": "list", "data": [{"id": "writer-1", "object": "model"}]}))

            def do_POST(self) -> None:
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                outer.keys.append(self.headers["authorization"])
                time.sleep(outer.delay)
                text = outer.answers[min(len(outer.asked), len(outer.answers)) - 1]
                message = {"role": "assistant", "content": text}
                choices = [{"index": 0, "finish_reason": "stop", "message": message}]
                answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "writer-1"}
                self.reply(outer.raw or json.dumps({**answer, "choices": choices}))

            def reply(self, text: str) -> None:
                self.send_response(outer.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                with contextlib.suppress(OSError):  # the client gave up
                    for letter in text.encode()[:20] if outer.drip else ():
                        time.sleep(outer.drip)
                        self.wfile.write(bytes([letter]))
                    self.wfile.write(text.encode()[20 if outer.drip else 0 :])

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
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    server = Server()
    yield server
    server.close()


def test_the_prompt_goes_out_with_the_instructions_of_the_model(server: Server) -> None:
    assert rewrite(Chat(server.url), "red ball right, blue box, night", "world") == GOOD
    system, user = server.asked[0]["messages"]
    assert user["content"] == "red ball right, blue box, night"
    assert "capsule" in system["content"]
    assert server.asked[0]["model"] == "writer-1"
    assert server.keys == ["Bearer key-of-the-test"]
    server.answers = [LONG]
    assert rewrite(Chat(server.url, "other"), "a horse", "film") == LONG
    assert "cinematic" in server.asked[-1]["messages"][0]["content"]
    assert server.asked[-1]["model"] == "other"


def test_a_picture_goes_along(server: Server, tmp_path: Path) -> None:
    Image.new("RGB", (2000, 1000), "red").save(tmp_path / "a.png")
    server.answers = [LONG]
    rewrite(Chat(server.url), "it runs", "film", tmp_path / "a.png")
    system, user = server.asked[0]["messages"]
    assert "picture" in system["content"]
    assert user["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"b\.png"):
        rewrite(Chat(server.url), "it runs", "film", tmp_path / "b.png")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("", "it said"),
        ("🎈🎈🎈", "it said"),
        ("<html><body>Bad gateway here</body></html>", "no sentence"),
        ("I'm sorry, but I cannot help with that.", "refused"),
        ("word " * 1000, "characters"),
        ("A blue ball rolls to the right at night.", "lost the colour 'red'"),
        ("A red ball rolls to the right past a giraffe.", "giraffe"),
    ],
)
def test_nonsense_is_asked_once_more_and_then_given_up(server: Server, answer: str, told: str) -> None:
    server.answers = [answer]
    with pytest.raises(Unanswered, match=told) as caught:
        rewrite(Chat(server.url), "red ball right", "world")
    assert len(server.asked) == 2
    assert "\n" not in str(caught.value)
    server.asked.clear()
    server.answers = [answer, "A red ball rolls to the right."]
    assert rewrite(Chat(server.url), "red ball right", "world") == "A red ball rolls to the right."


@pytest.mark.parametrize("raw", ["{}", "[]", "not json", '{"choices": []}', '{"choices": [{"message": {}}]}'])
def test_broken_answers_are_one_sentence(server: Server, raw: str) -> None:
    server.raw = raw
    with pytest.raises(Unanswered, match=r"127\.0\.0\.1"):
        rewrite(Chat(server.url, "m"), "red ball right", "world")


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_refusals_of_the_server_are_one_sentence(server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(Unanswered, match=str(status)) as caught:
        rewrite(Chat(server.url, "m"), "red ball right", "world")
    assert "key-of-the-test" not in str(caught.value)


def test_a_slow_endpoint_is_given_up_in_time(server: Server) -> None:
    server.delay = 1.5
    start = time.monotonic()
    with pytest.raises(Unanswered, match=r"timed out|no whole answer"):
        rewrite(Chat(server.url, "m", timeout=0.3), "red ball right", "world")
    assert time.monotonic() - start < 10


def test_an_endpoint_that_drips_is_given_up_in_time(server: Server) -> None:
    server.drip = 0.3  # each byte comes before the client's own patience ends
    start = time.monotonic()
    with pytest.raises(Unanswered, match="no whole answer within 4 seconds"):
        rewrite(Chat(server.url, "m", timeout=2.0), "red ball right", "world")
    assert time.monotonic() - start < 10


def test_an_endpoint_that_is_down_is_one_sentence() -> None:
    pytest.importorskip("openai")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(Unanswered, match="no usable answer"):
        rewrite(Chat(url, "m", timeout=2), "red ball right", "world")


def test_the_environment_names_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    monkeypatch.setenv("MUTOSCOPE_LLM_MODEL", "mine")
    assert chat_of_environment() == Chat("http://localhost:1/v1", "mine")
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(InputError, match="OPENAI_BASE_URL"):
        chat_of_environment()
    for url in ("localhost:80", "ftp://x/v1", "http://me:secret@x/v1"):
        with pytest.raises(InputError) as caught:
            Chat(url)
        assert "secret" not in str(caught.value)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "openai":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"mutoscope\[llm\]"):
        rewrite(Chat("http://localhost:1/v1"), "red ball", "world")


def test_wrappings_are_taken_off() -> None:
    assert cleaned("<think>hm, a ball</think>\n```text\nA red\nball rolls.\n```") == "A red ball rolls."
    assert cleaned('"A red ball rolls."') == "A red ball rolls."
