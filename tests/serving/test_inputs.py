"""Pictures that come with a request by their id: uploaded before, or made here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Gate
from mutoscope.serving.jobs import Job
from mutoscope.serving.keys import create_key
from mutoscope.video import Video, read_video, write_video

if TYPE_CHECKING:
    from .conftest import Live

Submit = Callable[..., Job]


@pytest.fixture
def client(app: Gate) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    frames_THWC = np.random.default_rng(0).integers(0, 255, (1, 32, 48, 3), np.uint8)
    return write_video(tmp_path / "a.png", Video(frames_THWC, 8.0)).read_bytes()


def upload(client: TestClient, content: bytes, purpose: str, **headers: str) -> str:
    files = {"file": ("a.png", content)}
    answer = client.post("/v1/files", data={"purpose": purpose}, files=files, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["purpose"] == purpose
    name: str = answer.json()["id"]
    return name


def first_frame(desk: Desk, identifier: str) -> np.ndarray:
    job = desk.store.find(identifier)
    assert job is not None
    assert job.order.first_picture
    return read_video(desk.shelf.inputs(job.order.inputs) / "first.png").frames_THWC[0]


@pytest.mark.parametrize("purpose", ["vision", "user_data"])
def test_an_uploaded_picture_is_the_first_frame(
    client: TestClient, desk: Desk, picture: bytes, purpose: str, tmp_path: Path
) -> None:
    name = upload(client, picture, purpose)
    for sent in (
        {"json": {"prompt": "x", "input_reference": {"file_id": name}}},
        {"data": {"prompt": "x", "input_reference[file_id]": name}},
    ):
        answer = client.post("/v1/videos", **sent)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        expected = read_video(tmp_path / "a.png").frames_THWC[0]
        assert np.array_equal(first_frame(desk, answer.json()["id"]), expected)
    assert client.delete(f"/v1/files/{name}").json()["deleted"]
    assert client.post("/v1/videos", json={"prompt": "x", "last_frame": {"file_id": name}}).status_code == 404


def test_a_video_of_one_frame_is_a_picture(client: TestClient, desk: Desk, submit: Submit) -> None:
    frames_THWC = np.full((9, 64, 64, 3), 90, np.uint8)
    for frames in (1, 9):
        job = submit(frames=frames)
        asked = {"prompt": "x", "input_reference": {"file_id": job.id}}
        assert client.post("/v1/videos", json=asked).status_code == 404  # it is not made yet
        claimed = desk.store.claim("boot:1:1")
        assert claimed is not None
        folder = desk.shelf.attempt(claimed)
        folder.mkdir(parents=True)
        write_video(folder / "video.mp4", Video(frames_THWC[:frames], 8.0))
        assert desk.store.complete(claimed, None)
        answer = client.post("/v1/videos", json=asked)
        if frames > 1:
            assert answer.status_code == 404
            continue
        assert answer.status_code == 200, answer.text
        queued = answer.json()["id"]
        assert abs(int(first_frame(desk, queued)[32, 32, 0]) - 90) < 3
        assert desk.store.delete("local", queued) is not None


def test_no_other_id_is_a_picture(
    client: TestClient, desk: Desk, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mutoscope.serving.keys.FRESH", 0.0)
    ann, bob = (f"Bearer {create_key(desk.store, name, None)[1]}" for name in ("ann", "bob"))
    hers = upload(client, picture, "vision", authorization=ann)
    lines = upload(client, b"{}", "batch", authorization=bob)
    said = set()
    for name in (hers, lines, "file_" + "0" * 32, "../../x"):
        asked: dict[str, Any] = {"prompt": "x", "input_reference": {"file_id": name}}
        answer = client.post("/v1/videos", json=asked, headers={"authorization": bob})
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "input_reference.file_id"
        said.add(answer.text)
    assert len(said) == 1
    noise = upload(client, b"no picture", "vision", authorization=bob)
    asked = {"prompt": "x", "input_reference": {"file_id": noise}}
    answer = client.post("/v1/videos", json=asked, headers={"authorization": bob})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_picture")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_openai_client_names_a_picture(live: "Live", picture: bytes, patience: float) -> None:
    from openai import OpenAI

    with OpenAI(base_url=f"{live.url}/v1", api_key="local", timeout=patience) as client:
        file = client.files.create(file=("a.png", picture), purpose="vision")
        named = {"input_reference": {"file_id": file.id}}
        video = client.videos.create(
            prompt="x", seconds="4", size="720x1280", extra_body={**named, "steps": 1}
        )
        assert video.status in ("queued", "in_progress")
        assert client.videos.delete(video.id).deleted
        assert client.files.delete(file.id).deleted
