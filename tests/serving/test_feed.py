"""Server-sent events of a job: every change once, pictures while it is made, an end."""

import json
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Gate
from mutoscope.serving.jobs import Job

Submit = Callable[..., Job]


@pytest.fixture
def client(app: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("mutoscope.serving.feed.STREAM_SECONDS", 0.3)
    monkeypatch.setattr("mutoscope.serving.feed.LOOK_EVERY", 0.02)
    with TestClient(app) as client:
        yield client


def told(client: TestClient, job: Job) -> list[tuple[str, dict[str, object]]]:
    answer = client.get(f"/v1/videos/{job.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if block.startswith("event: ")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


def test_a_running_job_is_told_once_with_its_picture(client: TestClient, desk: Desk, submit: Submit) -> None:
    job = submit()
    claimed = desk.store.claim("boot:1:1")
    assert claimed is not None
    desk.shelf.preview(job).parent.mkdir(parents=True)
    desk.shelf.preview(job).write_bytes(b"picture")
    (kind, video), (second, picture) = told(client, job)
    assert (kind, video["status"], second) == ("video", "in_progress", "preview")
    assert picture["image_url"] == "data:image/webp;base64,cGljdHVyZQ=="


def test_a_crowd_of_watchers_looks_less_often(
    client: TestClient, desk: Desk, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    get = desk.store.get
    monkeypatch.setattr(desk.store, "get", lambda tenant, job: looked.append(job) or get(tenant, job))  # type: ignore[func-returns-value]
    job = submit()
    told(client, job)
    few = len(looked)
    desk.watchers = 500
    told(client, job)
    assert desk.watchers == 500
    assert len(looked) - few < few


def test_a_stream_ends_with_its_job(client: TestClient, desk: Desk, submit: Submit) -> None:
    job = submit()
    desk.store.cancel("local", job.id)
    ((kind, video),) = told(client, job)
    assert (kind, video["status"]) == ("video", "failed")
    assert client.get("/v1/videos/video_x/events").status_code == 404
