"""Whole servers that are killed, stopped, frozen and started again: nothing lost, nothing twice."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from mutoscope.serving.jobs import Store
from mutoscope.serving.processes import is_gone, owner_of
from mutoscope.serving.shelf import Shelf

if TYPE_CHECKING:
    from .conftest import Live

pytestmark = pytest.mark.slow

JOBS = int(os.environ.get("MUTOSCOPE_TEST_JOBS", "100"))
"""Jobs of the long kill test; there are six kills for ten of them."""


def ask(live: "Live", method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{live.url}{path}", data, {"content-type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        reply: dict[str, Any] = json.load(answer)
    return reply


def until(condition: Callable[[], Any], patience: float) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def worker_pids(live: "Live") -> list[int]:
    store = Store(Shelf(live.data).database)
    return [int(worker["owner"].split(":")[1]) for worker in store.workers()]


def files(live: "Live") -> list[str]:
    return sorted(str(path) for path in (live.data / "videos").rglob("video.mp4"))


def test_kill_nine_of_the_whole_group_loses_nothing(fresh: "Live", patience: float) -> None:
    fresh.start()
    ids = [
        ask(fresh, "POST", "/v1/videos", {"prompt": f"ball {n}", "seconds": "0.3", "seed": n})["id"]
        for n in range(12)
    ]
    for wait in (0.0, 1.5, 3.0):
        time.sleep(wait)
        fresh.kill()
        started = time.monotonic()
        fresh.start()
        assert ask(fresh, "GET", "/v1/videos?limit=100")["data"][-1]["id"] == ids[0]
        assert time.monotonic() - started < patience / 4

    def statuses() -> list[str]:
        return [video["status"] for video in ask(fresh, "GET", "/v1/videos?limit=100")["data"]]

    until(lambda: all(status == "completed" for status in statuses()), 3 * patience)
    assert len(files(fresh)) == len(ids)
    assert [video["id"] for video in ask(fresh, "GET", "/v1/videos?limit=100&order=asc")["data"]] == ids
    assert fresh.stop() == 0
    litter = [path for path in fresh.data.rglob("*.tmp") if path.exists()]
    assert litter == []


def test_a_hundred_jobs_outlive_sixty_kills(fresh: "Live", patience: float) -> None:
    """10 kills of the whole group and 50 of the worker at work (of 100 jobs): every job is published, once."""
    fresh.start()
    ids = [
        ask(fresh, "POST", "/v1/videos", {"prompt": f"ball {n}", "seconds": "0.3", "seed": n})["id"]
        for n in range(JOBS)
    ]
    seen: set[int] = set()
    for kill in range(6 * JOBS // 10):
        if kill % 6 == 5:
            fresh.kill()
            started = time.monotonic()
            fresh.start()
            assert ask(fresh, "GET", "/v1/models")["object"] == "list"
            assert time.monotonic() - started < patience / 4
        else:
            until(lambda: set(worker_pids(fresh)) - seen, patience)
            (pid,) = set(worker_pids(fresh)) - seen
            seen.add(pid)
            time.sleep(kill % 4 * 0.1)
            os.kill(pid, signal.SIGKILL)

    def statuses() -> list[str]:
        return [video["status"] for video in ask(fresh, "GET", "/v1/videos?limit=100")["data"]]

    until(lambda: not {"queued", "in_progress"} & set(statuses()), 6 * patience)
    assert statuses() == ["completed"] * JOBS
    assert [video["id"] for video in ask(fresh, "GET", "/v1/videos?limit=100&order=asc")["data"]] == ids
    assert len(files(fresh)) == JOBS
    assert fresh.stop() == 0
    assert [path for path in fresh.data.rglob("*.tmp") if path.exists()] == []


def test_a_killed_worker_is_replaced_and_its_job_done_again(fresh: "Live", patience: float) -> None:
    fresh.start().wait_for_worker()
    job = ask(fresh, "POST", "/v1/videos", {"prompt": "x", "steps": 200})["id"]
    path = f"/v1/videos/{job}"
    until(lambda: ask(fresh, "GET", path)["status"] == "in_progress", patience)
    (pid,) = worker_pids(fresh)
    os.kill(pid, signal.SIGKILL)
    until(lambda: ask(fresh, "GET", path)["status"] == "completed", 3 * patience)
    assert worker_pids(fresh) != [pid]
    assert len(files(fresh)) == 1


def test_a_job_that_kills_every_worker_fails_in_the_end(fresh: "Live", patience: float) -> None:
    fresh.start().wait_for_worker()
    job = ask(fresh, "POST", "/v1/videos", {"prompt": "x", "steps": 1000})["id"]
    path = f"/v1/videos/{job}"
    killed: set[int] = set()

    def kill_and_see() -> bool:
        video = ask(fresh, "GET", path)
        if video["status"] == "in_progress":
            for pid in worker_pids(fresh):
                if pid not in killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
        return bool(video["status"] == "failed")

    until(kill_and_see, 4 * patience)
    assert ask(fresh, "GET", path)["error"]["code"] == "worker_died"
    assert len(killed) == 3


def test_a_frozen_worker_is_overtaken_and_cannot_publish(fresh: "Live", patience: float) -> None:
    fresh.start().wait_for_worker()
    job = ask(fresh, "POST", "/v1/videos", {"prompt": "x", "steps": 300})["id"]
    path = f"/v1/videos/{job}"
    until(lambda: ask(fresh, "GET", path)["status"] == "in_progress", patience)
    (frozen,) = worker_pids(fresh)
    os.kill(frozen, signal.SIGSTOP)
    until(lambda: ask(fresh, "GET", path)["status"] == "completed", 4 * patience)
    before = files(fresh)
    os.kill(frozen, signal.SIGCONT)
    until(lambda: frozen not in worker_pids(fresh), patience)
    time.sleep(2)
    assert files(fresh) == before
    assert len(before) == 1


def test_sigterm_drains_and_keeps_the_queue(fresh: "Live", patience: float) -> None:
    fresh.start().wait_for_worker()
    ids = [ask(fresh, "POST", "/v1/videos", {"prompt": "x", "steps": 20})["id"] for _ in range(4)]
    time.sleep(0.5)
    assert fresh.stop() == 0
    fresh.start()
    until(
        lambda: all(ask(fresh, "GET", f"/v1/videos/{job}")["status"] == "completed" for job in ids),
        3 * patience,
    )


def test_the_server_takes_its_workers_with_it(fresh: "Live", patience: float) -> None:
    fresh.start().wait_for_worker()
    (pid,) = worker_pids(fresh)
    worker = owner_of(pid)
    assert fresh.process is not None
    os.kill(fresh.process.pid, signal.SIGKILL)
    fresh.process.communicate()
    until(lambda: is_gone(worker), patience)


class Lossy(ThreadingHTTPServer):
    """Passes requests on and loses the answers of the first two tries of each POST."""

    def __init__(self, url: str) -> None:
        self.target, self.tries = url, 0
        super().__init__(("127.0.0.1", 0), Pass)


class Pass(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Lossy)
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        request = urllib.request.Request(self.server.target + self.path, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:
            data = answer.read()
        self.server.tries += 1
        if self.server.tries % 3:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def lossy(live: "Live") -> Iterator[Lossy]:
    with Lossy(live.url) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lost_replies_make_one_job_each(live: "Live", lossy: Lossy, patience: float) -> None:
    from openai import OpenAI

    before = len(ask(live, "GET", "/v1/videos?limit=100")["data"])
    url = f"http://127.0.0.1:{lossy.server_port}/v1"
    with OpenAI(base_url=url, api_key="local", timeout=patience, max_retries=2) as client:
        ids = {client.videos.create(prompt=f"lost {n}", seconds="0.2").id for n in range(4)}
    assert lossy.tries == 12
    assert len(ids) == 4
    assert len(ask(live, "GET", "/v1/videos?limit=100")["data"]) == before + 4


def test_the_log_keeps_no_secrets(live: "Live", patience: float) -> None:
    with pytest.raises(urllib.error.HTTPError):
        ask(live, "POST", "/v1/videos", {"prompt": "a secret wish", "seed": -1})
    told = ask(live, "POST", "/v1/videos", {"prompt": "a secret wish", "seconds": "0.2"})
    path = f"/v1/videos/{told['id']}"
    until(lambda: ask(live, "GET", path)["status"] == "completed", patience)
    until(lambda: told["id"] in live.log.read_text(), patience)
    assert "secret wish" not in live.log.read_text()
    assert "Traceback" not in live.log.read_text()
