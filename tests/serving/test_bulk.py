"""Files and batches over HTTP: every line once, its answer kept, nobody else's business."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from mutoscope.serving import bundles
from mutoscope.serving.bulk import go_on
from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Gate
from mutoscope.serving.jobs import Job, QueueLimits
from mutoscope.serving.keys import create_key

if TYPE_CHECKING:
    from .conftest import Live

Finish = Callable[[Job], None]


@pytest.fixture
def client(app: Gate) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def turn(app: Gate, desk: Desk) -> Callable[[], None]:
    """What the server does every half second."""

    def once() -> None:
        for batch in desk.bundles.open_batches():
            asyncio.run(go_on(app.app, desk, batch))  # type: ignore[arg-type]

    return once


def lines_of(*bodies: dict[str, Any]) -> bytes:
    return b"\n".join(
        json.dumps({"custom_id": f"n{number}", "method": "POST", "url": "/v1/videos", "body": body}).encode()
        for number, body in enumerate(bodies)
    )


def begin(client: TestClient, content: bytes, **more: Any) -> dict[str, Any]:
    file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", content)}).json()
    asked = {"input_file_id": file["id"], "endpoint": "/v1/videos", "completion_window": "24h", **more}
    batch: dict[str, Any] = client.post("/v1/batches", json=asked).json()
    return batch


def answers(client: TestClient, file_id: str) -> dict[str, Any]:
    content = client.get(f"/v1/files/{file_id}/content").text
    return {line["custom_id"]: line for line in map(json.loads, content.splitlines())}


def test_every_line_is_made_or_its_refusal_kept(
    client: TestClient, desk: Desk, turn: Callable[[], None], finish: Finish
) -> None:
    content = lines_of({"prompt": "ball"}, {"prompt": "ring", "seed": -1}, {"prompt": "star", "seed": 5})
    batch = begin(client, content, metadata={"who": "me"})
    assert (batch["status"], batch["request_counts"]["total"]) == ("in_progress", 3)
    turn()
    jobs = desk.store.all_jobs(9)[::-1]
    assert [job.order.prompt for job in jobs] == ["ball", "star"]
    finish(jobs[0])
    told = client.get(f"/v1/batches/{batch['id']}").json()
    assert told["request_counts"] == {"total": 3, "completed": 1, "failed": 1}
    desk.store.cancel("local", jobs[1].id)
    turn()
    done = client.get(f"/v1/batches/{batch['id']}").json()
    assert (done["status"], done["metadata"]) == ("completed", {"who": "me"})
    assert done["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
    good, bad = answers(client, done["output_file_id"]), answers(client, done["error_file_id"])
    assert good["n0"]["response"]["body"]["id"] == jobs[0].id
    assert good["n0"]["response"]["body"]["status"] == "completed"
    assert bad["n1"]["response"]["status_code"] == 400
    assert bad["n1"]["response"]["body"]["error"]["param"] == "seed"
    assert bad["n2"]["response"]["body"]["error"]["code"] == "cancelled"
    assert client.delete(f"/v1/files/{done['output_file_id']}").json()["deleted"]
    assert client.get(f"/v1/files/{done['output_file_id']}").status_code == 404
    assert [event.type for event in desk.store.due_events()][-1] == "batch.completed"


def test_a_batch_leaves_room_in_the_queue_and_waits_for_it(
    client: TestClient, desk: Desk, turn: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "AT_ONCE", 2)
    begin(client, lines_of(*({"prompt": f"ball {number}"} for number in range(5))))
    turn()
    turn()
    assert len(desk.store.all_jobs(9)) == 2
    desk.limits = QueueLimits(per_tenant=1, total=1)
    desk.store.cancel("local", desk.store.all_jobs(1)[0].id)
    turn()
    assert len(desk.store.all_jobs(9)) == 2
    desk.limits = QueueLimits()
    turn()
    assert len(desk.store.all_jobs(9)) == 3


def test_a_line_whose_record_was_lost_is_not_made_twice(
    client: TestClient, desk: Desk, turn: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(client, lines_of({"prompt": "ball"}))

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(bundles.Bundles, "answer", killed)
        with pytest.raises(RuntimeError):
            turn()
    turn()
    assert len(desk.store.all_jobs(9)) == 1


def test_the_same_request_again_is_the_same_batch(client: TestClient) -> None:
    file = client.post(
        "/v1/files", data={"purpose": "batch"}, files={"file": ("a", lines_of({"prompt": "x"}))}
    ).json()
    asked = {"input_file_id": file["id"], "endpoint": "/v1/videos", "completion_window": "24h"}

    def ids(*heads: dict[str, str]) -> set[str]:
        return {client.post("/v1/batches", json=asked, headers=head).json()["id"] for head in heads}

    assert len(ids({}, {})) == 2
    assert len(ids({}, {"x-stainless-retry-count": "1"}, {"x-stainless-retry-count": "2"})) == 1
    assert len(ids({"idempotency-key": "k"}, {"idempotency-key": "k"}, {"idempotency-key": "l"})) == 2
    other = {**asked, "metadata": {"a": "b"}}
    answer = client.post("/v1/batches", json=other, headers={"idempotency-key": "k"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_many_bad_lines_do_not_wait_for_each_other(
    client: TestClient, turn: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "AT_ONCE", 1)
    batch = begin(client, lines_of(*({"prompt": ""} for _ in range(20))))
    turn()
    told = client.get(f"/v1/batches/{batch['id']}").json()
    assert (told["status"], told["request_counts"]["failed"]) == ("completed", 20)


def test_a_cancelled_batch_stops_its_jobs(
    client: TestClient, desk: Desk, turn: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "AT_ONCE", 1)
    batch = begin(client, lines_of({"prompt": "ball"}, {"prompt": "ring"}))
    turn()
    path = f"/v1/batches/{batch['id']}"
    assert client.post(f"{path}/cancel").json()["status"] == "cancelling"
    turn()
    told = client.get(path).json()
    assert (told["status"], told["output_file_id"]) == ("cancelled", None)
    assert answers(client, told["error_file_id"])["n1"]["error"]["code"] == "batch_cancelled"
    assert [job.status for job in desk.store.all_jobs(9)] == ["failed"]
    assert client.post(f"{path}/cancel").json() == told


def test_a_batch_that_takes_too_long_expires(
    client: TestClient, turn: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = begin(client, lines_of({"prompt": "ball"}))
    monkeypatch.setattr("mutoscope.serving.bulk.WINDOW", -10)
    turn()
    told = client.get(f"/v1/batches/{batch['id']}").json()
    assert (told["status"], told["expired_at"] is None) == ("expired", False)
    assert answers(client, told["error_file_id"])["n0"]["error"]["code"] == "batch_expired"


def test_a_file_with_a_fault_is_a_failed_batch(client: TestClient, desk: Desk) -> None:
    batch = begin(client, lines_of({"prompt": "ball"}) + b"\nnonsense")
    assert (batch["status"], batch["failed_at"] is None) == ("failed", False)
    assert [fault["line"] for fault in batch["errors"]["data"]] == [2]
    assert desk.bundles.open_batches() == []


def test_pages(client: TestClient) -> None:
    ids = [begin(client, lines_of({"prompt": str(number)}))["id"] for number in range(3)]
    first = client.get("/v1/batches?limit=2").json()
    assert ([batch["id"] for batch in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    rest = client.get(f"/v1/batches?after={first['last_id']}").json()
    assert ([batch["id"] for batch in rest["data"]], rest["has_more"]) == (ids[:1], False)
    names = [file["id"] for file in client.get("/v1/files?order=asc&purpose=batch").json()["data"]]
    assert len(names) == 3
    assert client.get(f"/v1/files?after={names[0]}").json()["data"] == []
    assert client.get("/v1/files?purpose=batch_output").json()["data"] == []


def test_files_and_batches_of_others_are_unknown(
    client: TestClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mutoscope.serving.keys.FRESH", 0.0)
    batch = begin(client, lines_of({"prompt": "ball"}))
    bob = {"authorization": f"Bearer {create_key(desk.store, 'bob')[1]}"}
    asked = {"input_file_id": "", "endpoint": "/v1/videos", "completion_window": "24h"}
    for method, path, body in (
        ("GET", "/v1/files/{file}", None),
        ("GET", "/v1/files/{file}/content", None),
        ("DELETE", "/v1/files/{file}", None),
        ("GET", "/v1/files?after={file}", None),
        ("POST", "/v1/batches", asked),
        ("GET", "/v1/batches/{batch}", None),
        ("POST", "/v1/batches/{batch}/cancel", None),
        ("GET", "/v1/batches?after={batch}", None),
    ):
        told = set()
        for file, number in (
            (batch["input_file_id"], batch["id"]),
            ("file_" + "f" * 32, "batch_" + "f" * 32),
        ):
            named = path.format(file=file, batch=number)
            answer = client.request(method, named, headers=bob, json=body and {**body, "input_file_id": file})
            assert answer.status_code == 404
            told.add(answer.content)
        assert len(told) == 1, path
    assert client.get("/v1/files", headers=bob).json()["data"] == []
    assert client.get("/v1/batches", headers=bob).json()["data"] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_openai_client_runs_a_batch(live: "Live", patience: float) -> None:
    from openai import OpenAI

    bodies = [{"prompt": f"ball {number}", "seconds": "0.2", "steps": 1} for number in range(3)]
    with OpenAI(base_url=f"{live.url}/v1", api_key="local", timeout=patience) as client:
        file = client.files.create(file=("a.jsonl", lines_of(*bodies)), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/videos", completion_window="24h", metadata={"a": "b"}
        )
        until = time.monotonic() + 3 * patience
        while batch.status == "in_progress" and time.monotonic() < until:
            time.sleep(0.5)
            batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 3
        assert batch.output_file_id is not None
        for line in client.files.content(batch.output_file_id).text.splitlines():
            identifier = json.loads(line)["response"]["body"]["id"]
            assert client.videos.download_content(identifier).read()[4:8] == b"ftyp"
        assert batch.id in [found.id for found in client.batches.list(limit=1)]
        assert {file.id, batch.output_file_id} <= {found.id for found in client.files.list()}
        assert client.files.delete(file.id).deleted
