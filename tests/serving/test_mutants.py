"""Files made to harm a decoder: whatever is sent, the server refuses or takes it, within its limits."""

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mutants
import pytest
from fastapi.testclient import TestClient

from mutoscope.serving import ingest
from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Gate

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("MUTOSCOPE_TEST_MUTANTS", "200"))
"""Spoilt files that are decoded; the acceptance takes 10,000."""

SEED = int(os.environ.get("MUTOSCOPE_TEST_SEED", "1"))


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    """A listener that nobody should come to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        yield listener


def nobody_came(canary: socket.socket) -> bool:
    try:
        canary.accept()[0].close()
    except TimeoutError:
        return True
    return False


def address(canary: socket.socket) -> str:
    return f"http://127.0.0.1:{canary.getsockname()[1]}"


def test_the_limited_child_outlives_spoilt_files(tmp_path: Path, canary: socket.socket) -> None:
    """No hang, no memory beyond the limit, no word to the network, and every failure is a refusal."""
    command = [sys.executable, "-m", "mutants", str(COUNT), str(SEED), str(tmp_path), address(canary)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["odd"] == []
    assert told["memory"] <= ingest.MEMORY_BYTES
    assert told["seconds"] <= ingest.CPU_SECONDS + 1
    assert told["outcomes"]["refused"] > COUNT / 10
    assert told["outcomes"].get("taken", 0) > 0, "the mutations are so coarse that no decoder is reached"
    assert nobody_came(canary)


@pytest.mark.parametrize("name", list(mutants.traps("")))
def test_a_trap_is_taken_or_refused_in_a_sentence(
    app: Gate, desk: Desk, canary: socket.socket, name: str
) -> None:
    """Through HTTP, as a picture and as a clip: never a failure of the server, and no file stays."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    data = mutants.traps(address(canary))[name]
    with TestClient(app, raise_server_exceptions=False) as client:
        for path, field, said in (
            ("/v1/videos", "input_reference", {"prompt": "x"}),
            ("/v1/videos/characters", "video", {"name": "x"}),
        ):
            files = {field: (f"../../{name}.mp4", data, "video/mp4")}
            answer = client.post(path, data=said, files=files)
            assert answer.status_code in (200, 400), answer.text
            if answer.status_code == 400:
                error = answer.json()["error"]
                assert error["param"] == field
                assert str(desk.shelf.root) not in error["message"]
                assert "root:" not in error["message"]  # /etc/passwd
    uploads = desk.shelf.root / "uploads"
    assert not uploads.exists() or not any(uploads.iterdir())
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert after <= max(before, ingest.MEMORY_BYTES)
    assert nobody_came(canary)
