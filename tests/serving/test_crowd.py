"""A crowd at the door of a whole server: many clients at once, and many that never finish what they begin."""

import asyncio
import json
import os
import resource
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from mutoscope.serving import gate

if TYPE_CHECKING:
    from .conftest import Live

pytestmark = pytest.mark.slow

CLIENTS = int(os.environ.get("MUTOSCOPE_TEST_CLIENTS", "1000"))
READ_SECONDS = 2.0
"""Within so many seconds 99 of 100 reads are answered while a job renders (on an idle machine)."""

BEGINNINGS = (b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", b"POST /v1/videos HTTP/1.1\r\nContent-")
BODY = json.dumps({"prompt": "a crowd", "steps": 1, "seconds": "0.2"}).encode()


@pytest.fixture(autouse=True)
def sockets() -> None:
    """Room for as many open connections as there are clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * CLIENTS + 500)), hard))


async def ask(port: int, head: str, body: bytes = b"") -> tuple[int, float]:
    """Status of one request on a connection of its own, and the seconds that it took."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    told = f"{head} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    told += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n" if body else "\r\n"
    writer.write(told.encode() + body)
    answer = await reader.read()
    writer.close()
    head_of_it, _, rest = answer.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(rest) in head_of_it.lower(), "the answer was cut short"
    return int(answer.split()[1]), time.monotonic() - began


def test_a_thousand_clients_at_once(live: "Live", patience: float) -> None:
    """While a job renders: nobody is reset, nobody meets a failure of the server, reads stay quick."""

    async def crowd() -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        await ask(live.port, "POST /v1/videos", json.dumps({"prompt": "long", "steps": 200}).encode())
        reads = [ask(live.port, "GET /v1/videos?limit=20") for _ in range(CLIENTS * 9 // 10)]
        writes = [ask(live.port, "POST /v1/videos", BODY) for _ in range(CLIENTS // 10)]
        answers = await asyncio.gather(*reads, *writes)
        return answers[: len(reads)], answers[len(reads) :]

    reads, writes = asyncio.run(crowd())
    assert Counter(status for status, _ in reads) == {200: len(reads)}
    assert {status for status, _ in writes} <= {200, 429}
    slowest = sorted(seconds for _, seconds in reads)[-1 - len(reads) // 100]
    assert slowest <= READ_SECONDS * patience / 60


def test_a_thousand_half_open_connections_are_closed(live: "Live", patience: float) -> None:
    """All are closed in 30 s, and meanwhile others are served within one."""

    async def closed(beginning: bytes) -> float:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(beginning)
        try:
            while await reader.read(1000):
                pass
        except ConnectionError:
            pass  # cut off is closed too
        writer.close()
        return time.monotonic() - began

    async def besieged() -> tuple[list[float], list[tuple[int, float]]]:
        silent = [
            asyncio.create_task(closed(BEGINNINGS[number % len(BEGINNINGS)])) for number in range(CLIENTS)
        ]
        served = []
        while not all(task.done() for task in silent):
            served.append(await ask(live.port, "GET /v1/models"))
            await asyncio.sleep(0.2)
        return [task.result() for task in silent], served

    lasted, served = asyncio.run(besieged())
    crowded = patience / 60
    assert max(lasted) <= 5 + gate.DEADLINE * crowded
    assert {status for status, _ in served} == {200}
    assert max(seconds for _, seconds in served) <= crowded
