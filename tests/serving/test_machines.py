"""A server and workers that share a PostgreSQL and a bucket, but no disk: as on several machines."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mutoscope.serving.jobs import Store
from mutoscope.serving.objects import open_objects

SERVER = """
import os
import sys
from pathlib import Path
from mutoscope.serving.server import ServeConfig, serve
data, model, workers = sys.argv[1:]
database, objects = os.environ.pop("MUTOSCOPE_DATABASE"), os.environ.pop("MUTOSCOPE_OBJECTS")
config = ServeConfig(
    Path(data), model, port=0, workers=int(workers), device="cpu", database=database, objects=objects
)
serve(config, lambda url: print(url, flush=True))
"""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path, postgres: str, bucket: str) -> Iterator[Run]:
    """Start processes that find both stores in their environment; none is left behind."""
    started: list[subprocess.Popen[str]] = []
    database = postgres.replace("tester@", "tester:hunter2@")  # it trusts all who come through its socket
    shared = {"MUTOSCOPE_DATABASE": database, "MUTOSCOPE_OBJECTS": bucket}

    def start(name: str, *command: str) -> "subprocess.Popen[str]":
        with (tmp_path / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **shared},
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def asked(url: str, body: dict[str, Any] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        read: bytes = answer.read()
        return read


def until(patience: float, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with suppress(OSError):
            if ready():
                return
        time.sleep(0.2)
    raise AssertionError("it did not come")


@pytest.mark.slow
def test_a_video_made_elsewhere_is_served_here(
    run: Run, tmp_path: Path, postgres: str, bucket: str, model_folder: Path, patience: float
) -> None:
    """Two workers without a server's disk; one is stopped in the middle of a job, the other takes it over."""
    server = run("server", "-c", SERVER, str(tmp_path / "server"), str(model_folder), "0")
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    assert url, (tmp_path / "server.log").read_text()

    def worker(name: str) -> "subprocess.Popen[str]":
        words = ["worker", "-m", str(model_folder), "--device", "cpu", "--data", str(tmp_path / name)]
        return run(name, "-m", "mutoscope.cli", *words, "--name", name)

    first = worker("one")
    until(patience, lambda: json.loads(asked(f"{url}/health"))["workers"] == 1)
    pixel = "data:image/png;base64," + PIXEL
    video = json.loads(
        asked(
            f"{url}/v1/videos",
            {
                "prompt": "a red ball",
                "size": "64x64",
                "seconds": "5",
                "steps": 150,
                "input_reference": {"image_url": pixel},
            },
        )
    )
    store = Store(postgres)
    try:
        until(patience, lambda: store.find(video["id"]).progress > 0)  # type: ignore[union-attr]
        first.send_signal(signal.SIGSTOP)
        with store.transaction() as db:  # as when the lease's 30 seconds are over
            db.execute("UPDATE jobs SET lease_until = lease_until - 60 WHERE id = ?", (video["id"],))
        worker("two")
        until(
            2 * patience, lambda: json.loads(asked(f"{url}/v1/videos/{video['id']}"))["status"] == "completed"
        )
        content = asked(f"{url}/v1/videos/{video['id']}/content")
        assert content[4:8] == b"ftyp"
        first.send_signal(signal.SIGCONT)
        until(patience, lambda: "stopped" in (tmp_path / "one.log").read_text())
        done = store.find(video["id"])
        assert done is not None
        assert (done.status, done.attempts) == ("completed", 2)
        names = open_objects(bucket).names("videos/")
        assert {name.rpartition("/")[0] for name in names} == {f"videos/{done.id}/{done.lease}"}
        assert asked(f"{url}/v1/videos/{video['id']}/content") == content
        first.terminate()
        assert first.wait(patience) == 0
        assert not list((tmp_path / "one" / "videos").iterdir())
    finally:
        store.connection().close()


@pytest.mark.slow
def test_a_server_with_workers_of_its_own_tells_nobody_the_password(
    run: Run, tmp_path: Path, postgres: str, bucket: str, model_folder: Path, patience: float
) -> None:
    server = run("server", "-c", SERVER, str(tmp_path / "server"), str(model_folder), "1")
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    assert url, (tmp_path / "server.log").read_text()
    until(patience, lambda: json.loads(asked(f"{url}/health"))["workers"] == 1)
    video = json.loads(asked(f"{url}/v1/videos", {"prompt": "a red ball", "size": "64x64", "steps": 2}))
    where = f"{url}/v1/videos/{video['id']}"
    until(patience, lambda: json.loads(asked(where))["status"] == "completed")
    assert asked(f"{where}/content")[4:8] == b"ftyp"
    (worker,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    for number in (str(server.pid), worker):
        assert b"hunter2" not in Path(f"/proc/{number}/cmdline").read_bytes()
    answer = asked(f"{url}/metrics") + asked(where)
    second = run("second", "-c", SERVER, str(tmp_path / "second"), str(model_folder), "1")
    assert second.wait(patience) != 0
    told = (tmp_path / "second.log").read_text()
    assert "Another server uses the database" in told
    server.terminate()
    assert server.wait(patience) == 0
    for text in (answer.decode(), told, (tmp_path / "server.log").read_text()):
        assert "hunter2" not in text


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
