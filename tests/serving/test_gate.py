"""The door: requests that never arrive are cut off, slow but steady ones are not."""

import asyncio
import contextlib
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn

from mutoscope.errors import InputError
from mutoscope.serving import gate, server
from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import PunctualProtocol, _hostname
from mutoscope.serving.server import ServeConfig, _hosts, serve
from mutoscope.serving.shelf import alone
from wan_models import DIT, diffusers, write_model

BIG = 40 * 2**20
"""Bytes that no buffer between the server and a client holds."""


async def echo(scope: dict, receive: object, send: object) -> None:  # type: ignore[type-arg]
    """Answer with the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()  # type: ignore[operator]
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    body = b"x" * BIG if scope["path"] == "/big" else str(length).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(gate, "DEADLINE", 0.5)
    monkeypatch.setattr(gate, "SLOWEST", 100)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(echo, http=PunctualProtocol, ws="none", lifespan="off", log_level="error")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(30)
    return connection


def answered(connection: socket.socket, body: bytes) -> bool:
    """Whether a whole answer with this body comes, in however many pieces."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n" + body):
        piece = connection.recv(1000)
        if not piece:
            return False
        answer += piece
    return answer.startswith(b"HTTP/1.1 200")


def drip(connection: socket.socket, data: bytes, times: int) -> None:
    for _ in range(times):
        connection.sendall(data)
        time.sleep(0.05)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
def test_half_a_request_is_cut_off(port: int, beginning: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(beginning)
        started = time.monotonic()
        assert is_closed(connection)
        assert time.monotonic() - started < 20


def test_what_is_no_http_gets_an_error_object(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"HELLO?\r\n\r\n")
        answer = b""
        while piece := connection.recv(1000):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 400")
        assert b'"code": "invalid_http"' in answer


def test_a_drip_of_headers_is_cut_off(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(ConnectionError):
            drip(connection, b"X-Slow: 1\r\n", 200)


def test_a_second_request_on_a_kept_connection_has_a_deadline_too(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answered(connection, b"0")
        connection.sendall(b"GET / HT")
        assert is_closed(connection)


def test_a_steady_upload_may_take_longer(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(10):
            connection.sendall(b"x" * 100)
            time.sleep(0.1)
        assert answered(connection, b"1000")


def test_an_idle_kept_connection_is_not_cut_by_the_deadline(port: int) -> None:
    with connect(port) as connection:
        for _ in range(2):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answered(connection, b"0")
            time.sleep(0.8)


def test_an_answer_that_nobody_reads_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A steady reader gets all of it, however slow; one that does not read at all does not hold its connection."""
    monkeypatch.setattr(gate, "UNREAD", 0.5)
    request = b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connect(port) as connection:
        connection.sendall(request)
        got = 0
        while piece := connection.recv(2**20):
            got += len(piece)
            time.sleep(0.02)
        assert got > BIG
    with connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request)
        time.sleep(1.5)
        got = 0
        try:
            while piece := connection.recv(2**20):
                got += len(piece)
        except ConnectionError:
            pass  # cut off
        assert got < BIG


def test_host_names() -> None:
    assert [_hostname(host) for host in ("LocalHost:8000", "[::1]:80", "127.0.0.1", "", "[", "a:b:c")][
        :4
    ] == [
        "localhost",
        "::1",
        "127.0.0.1",
        "",
    ]
    assert _hosts(ServeConfig(host="0.0.0.0")) is None
    assert _hosts(ServeConfig(host="0.0.0.0", hosts=("Videos.example",))) == (
        *gate.LOOPBACK,
        "0.0.0.0",
        "videos.example",
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com"])
def test_nobody_is_let_in_from_outside_without_a_key(host: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"card": {"name": "any"}}')
    with pytest.raises(InputError, match="there is no API key"):
        serve(ServeConfig(data=tmp_path / "data", model=str(tmp_path), host=host, port=0))


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model 'nothing'"):
        serve(ServeConfig(data=tmp_path / "data", model="nothing"))


def test_a_model_of_wan_is_served_with_exact_weights_or_in_8_bits(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    transformer = diffusers().WanTransformer3DModel(**DIT)
    folder = write_model(tmp_path / "T2V", {"_class_name": "WanPipeline"}, transformer=transformer)
    config = ServeConfig(data=tmp_path / "data", model=str(folder), weights="int8", port=0)
    cards = []

    async def run(*given: object) -> None:
        cards.append(given[3])

    monkeypatch.setattr(server, "_run", run)
    serve(config)
    assert [card.name for card in cards] == ["T2V"]
    with pytest.raises(InputError, match="no Wan transformer"):
        serve(replace(config, model=str(model_folder)))
    with pytest.raises(InputError, match="leave out --weights, or --backend"):
        serve(replace(config, backend="http://127.0.0.1:9/v1"))


def test_one_server_for_one_folder_and_one_port(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"card": {"name": "any"}}')
    config = ServeConfig(data=tmp_path / "data", model=str(tmp_path))
    with alone(config.data), pytest.raises(InputError, match="Another server uses"):
        serve(config)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(InputError, match="choose another port"),
    ):
        serve(replace(config, port=taken.getsockname()[1]))


def test_the_house_is_kept_again_when_there_is_space(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries, mended = [0], [0]

    def rescue() -> int:
        tries[0] += 1
        if tries[0] <= 3:
            raise sqlite3.OperationalError("database or disk is full")
        return 0

    class Hands:
        def mend(self) -> None:
            mended[0] += 1

    async def keep_house() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server._keep_house(desk, Hands()), 4)  # type: ignore[arg-type]

    monkeypatch.setattr(server, "PAUSE", 0.01)
    monkeypatch.setattr(desk.store, "rescue", rescue)
    asyncio.run(keep_house())
    assert mended[0] > 0
    assert [record.getMessage() for record in caplog.records] == [
        "cannot keep house: database or disk is full"
    ] * 3
    assert all(record.exc_info is None for record in caplog.records)
