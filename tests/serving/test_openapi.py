"""The OpenAPI description is true: schemathesis finds no answer that it does not foresee."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from mutoscope.serving.api import build
from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Gate, PunctualProtocol
from mutoscope.serving.jobs import QueueLimits

EXAMPLES = os.environ.get("MUTOSCOPE_TEST_EXAMPLES", "10")


@pytest.fixture
def url(desk: Desk) -> Iterator[str]:
    """A real server in this process, whose one worker is alive and idle."""
    desk.limits = QueueLimits(100_000, 100_000)
    desk.door.hosts = None
    owner = desk.store.register("worker-1", "tiny", "cpu")
    app = Gate(build(desk), desk.door)  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=PunctualProtocol, log_level="warning", lifespan="off")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    threads = [threading.Thread(target=server.run, args=([listener],))]
    threads.append(threading.Thread(target=beat, args=(desk, owner, server)))
    for thread in threads:
        thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    for thread in threads:
        thread.join()


def beat(desk: Desk, owner: str, server: uvicorn.Server) -> None:
    while not server.should_exit:
        desk.store.beat(owner)
        time.sleep(1)


@pytest.mark.slow
def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"]
    options = ["--checks", "all", "--max-examples", EXAMPLES, "--seed", "1"]
    options += ["--request-timeout", "60", "--max-response-time", "60"]  # a crowded machine is no fault
    options += ["--suppress-health-check", "too_slow,filter_too_much,data_too_large"]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "samples",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, "\n".join(line[:300] for line in done.stdout.splitlines())


def test_every_operation_names_its_failures_and_its_links(desk: Desk) -> None:
    paths = build(desk).openapi()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            answers = operation["responses"]
            if path.startswith("/v1/"):
                assert {"401", "403", "503"} <= answers.keys(), (method, path)
            if method == "post":
                assert {"404", "409", "413", "415", "422", "429", "507"} <= answers.keys(), (method, path)
    links = paths["/v1/videos"]["post"]["responses"]["200"]["links"]
    names = {operation["operationId"] for path in paths.values() for operation in path.values()}
    assert (
        {"retrieve_video", "download_content", "delete_video"}
        <= {link["operationId"] for link in links.values()}
        <= names
    )


def test_bodies_are_described_without_null_in_forms_and_need_a_video(desk: Desk) -> None:
    paths = build(desk).openapi()["paths"]
    for path in ("/v1/videos/edits", "/v1/videos/extensions", "/v1/videos/characters"):
        for content in paths[path]["post"]["requestBody"]["content"].values():
            assert "video" in content["schema"]["required"]
    form = paths["/v1/videos"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    fields = {name: field for name, field in form["properties"].items() if name != "storyboard"}  # JSON text
    assert '"null"' not in json.dumps(fields)
