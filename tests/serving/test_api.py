"""The routes in one process, without workers: what every client may rely on, and what nobody may do."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Gate
from mutoscope.serving.jobs import Job, QueueLimits
from mutoscope.serving.keys import FRESH, create_key, revoke_key
from mutoscope.serving.policy import Policy, Rule
from mutoscope.serving.shelf import Shelf
from mutoscope.serving.tasks import _request
from mutoscope.serving.webhooks import Webhook

Finish = Callable[[Job], None]
Submit = Callable[..., Job]


@pytest.fixture
def client(app: Gate) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def error_of(answer: Any) -> dict[str, Any]:
    """The error object of an answer, which must be complete and nothing else."""
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["message"].endswith(".")
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("method", "path", "content", "kind", "status", "code"),
    [
        ("GET", "/v1/nothing", b"", "", 404, "not_found"),
        ("GET", "/v1/videos/video_" + "0" * 32, b"", "", 404, "not_found"),
        ("GET", "/v1/videos/..%2f..%2fjobs.sqlite3/content", b"", "", 404, "not_found"),
        ("PUT", "/v1/videos", b"", "", 405, "method_not_allowed"),
        ("GET", "/v1/videos?limit=0", b"", "", 400, "invalid_value"),
        ("GET", "/v1/videos?limit=x", b"", "", 400, "invalid_value"),
        ("GET", "/v1/videos?order=up", b"", "", 400, "invalid_value"),
        ("GET", "/v1/videos?after=video_x", b"", "", 404, "not_found"),
        ("POST", "/v1/videos", b"{", "application/json", 400, "invalid_json"),
        ("POST", "/v1/videos", b"[]", "application/json", 400, "invalid_json"),
        ("POST", "/v1/videos", b"\xff", "application/json", 400, "invalid_json"),
        ("POST", "/v1/videos", b'{"prompt":"x","seed":NaN}', "application/json", 400, "invalid_json"),
        ("POST", "/v1/videos", b"[" * 100_000, "application/json", 400, "invalid_json"),
        ("POST", "/v1/videos", b"{}", "application/json", 400, "missing_required_parameter"),
        ("POST", "/v1/videos", b'{"prompt":"x","seed":"7"}', "application/json", 400, "invalid_value"),
        ("POST", "/v1/videos", b'{"prompt":"x","n":2}', "application/json", 400, "unknown_parameter"),
        ("POST", "/v1/videos", b'{"prompt":"x","size":"9x9"}', "application/json", 400, "invalid_value"),
        ("POST", "/v1/videos", b'{"prompt":"x","seconds":"1000"}', "application/json", 400, "invalid_value"),
        ("POST", "/v1/videos", b'{"prompt":"x\\u0000"}', "application/json", 400, "invalid_value"),
        ("POST", "/v1/videos", b'{"prompt":"\\ud800"}', "application/json", 400, "invalid_json"),
        ("POST", "/v1/videos", b'{"prompt":"x","size":"\\ud800"}', "application/json", 400, "invalid_json"),
        ("POST", "/v1/videos", b'{"prompt":"x","\\ud800":1}', "application/json", 400, "invalid_json"),
        ("POST", "/v1/videos", b"x", "text/plain", 415, "unsupported_media_type"),
        ("POST", "/v1/videos", b"x", "multipart/form-data", 400, "invalid_form"),
        ("POST", "/v1/videos", b"x", "multipart/form-data; boundary=y", 400, "invalid_form"),
        ("POST", "/v1/videos/extensions", b'{"prompt":"x","seconds":"1"}', "application/json", 400, None),
        ("POST", "/v1/videos/characters", b'{"name":"x"}', "application/json", 400, None),
    ],
)
def test_every_failure_has_the_one_form(
    client: TestClient, method: str, path: str, content: bytes, kind: str, status: int, code: str | None
) -> None:
    answer = client.request(method, path, content=content, headers={"content-type": kind} if kind else {})
    assert answer.status_code == status, answer.text
    assert error_of(answer)["code"] in (code, "missing_required_parameter")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"storyboard": {"cards": []}}, "storyboard.cards", "at least 1 item"),
        ({"storyboard": {"cards": [{"at": 0.5, "prompt": "a"}]}}, "storyboard", "begins at 0 s"),
        ({"storyboard": {"cards": [{"at": 0}]}}, "storyboard", "is empty"),
        ({"storyboard": {"cards": [{"at": 0, "prompt": "a"}] * 2}}, "storyboard", "overlap"),
        (
            {"seconds": "1", "storyboard": {"cards": [{"at": 0, "prompt": "a"}, {"at": 3, "prompt": "b"}]}},
            "storyboard",
            "outside the storyboard of 1 s",
        ),
        ({"storyboard": {"cards": [{"at": 0, "promt": "a"}]}}, "storyboard.cards.0.promt", "no parameter"),
        ({"loop": True, "storyboard": {"cards": [{"at": 0, "prompt": "a"}]}}, "loop", "does not go with"),
        (
            {"storyboard": {"cards": [{"at": 0, "image": "http://127.0.0.1/x.png"}]}},
            "storyboard.cards.0.image",
            "fetches no URLs",
        ),
        ({"expand": "yes"}, "expand", "must be true or false"),
    ],
)
def test_cards_that_do_not_go_together(
    client: TestClient, desk: Desk, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = client.post("/v1/videos", json={"prompt": "a film", **fields})
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert not list((desk.shelf.root / "inputs").glob("*"))


def test_a_storyboard_is_queued_with_its_clip_and_its_words_are_judged(
    client: TestClient, desk: Desk, submit: Submit, finish: Finish
) -> None:
    source = submit()
    finish(source)
    cards = [{"at": 0, "clip": source.id}, {"at": 1.0, "prompt": "a Villain rolls", "cut": True}]
    board = {"prompt": "a film", "seconds": "2", "storyboard": {"cards": cards}}
    reply = client.post("/v1/videos", json=board).json()
    assert [card["shows"] for card in reply["storyboard"]["cards"]] == ["clip", None]
    as_form = {"prompt": "a film", "seconds": "2", "storyboard": json.dumps(board["storyboard"])}
    assert client.post("/v1/videos", data=as_form).json()["storyboard"] == reply["storyboard"]
    job = desk.store.get("local", reply["id"])
    assert job is not None
    assert (desk.shelf.inputs(job.order.inputs) / "card-0.mp4").read_bytes().startswith(b"video.mp4")
    desk.policy = Policy((Rule(words=("villain",), reason="No villains."),))
    refused = client.post("/v1/videos", json=board)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "moderation_blocked")


def test_a_prompt_is_expanded_when_that_is_asked(client: TestClient) -> None:
    plain = client.post("/v1/videos", json={"prompt": "a red ball"}).json()
    assert plain["expanded_prompt"] is None
    asked = {"prompt": "a red ball", "expand": True, "seed": 4}
    first, second = (client.post("/v1/videos", json=asked).json() for _ in range(2))
    assert first["prompt"] == "a red ball"
    assert "red ball" in first["expanded_prompt"]
    assert first["expanded_prompt"] == second["expanded_prompt"]


def test_bodies_beyond_the_limits(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"prompt":"'
        for _ in range(80):
            yield b"x" * 2**20

    head = {"content-type": "application/json"}
    assert client.post("/v1/videos", content=endless(), headers=head).status_code == 413
    assert (
        client.post("/v1/videos", content=b"", headers={**head, "content-length": str(2**40)}).status_code
        == 413
    )
    fields = {f"f{number}": "x" for number in range(100)}
    many = client.post("/v1/videos", files={name: (None, value) for name, value in fields.items()})
    assert many.status_code == 413
    assert client.post("/v1/videos", files={"prompt": (None, "x" * 2**21)}).status_code == 413
    packed = client.post("/v1/videos", content=b"x", headers={**head, "content-encoding": "gzip"})
    assert packed.status_code == 415


def test_a_form_and_json_say_the_same(client: TestClient) -> None:
    fields = {"prompt": " a  ball ", "seed": 7, "steps": 3, "seconds": "1", "size": "64x48", "guidance": 1.5}
    as_json = client.post("/v1/videos", json=fields).json()
    as_form = client.post(
        "/v1/videos", files={name: (None, str(value)) for name, value in fields.items()}
    ).json()
    as_text = client.post("/v1/videos", data={name: str(value) for name, value in fields.items()}).json()
    for reply in (as_json, as_form, as_text):
        for own in ("id", "created_at"):
            del reply[own]
    assert as_json == as_form == as_text
    assert (as_json["prompt"], as_json["steps"], as_json["size"]) == ("a  ball", 3, "64x48")


def test_options_of_sampling_reach_the_request_and_stay_in_a_remix(
    client: TestClient, desk: Desk, finish: Finish
) -> None:
    options = {"guidance_kind": "apg", "guidance_interval": "0.9-0.2", "step_cache": 0.05}
    made = client.post("/v1/videos", json={"prompt": "x", **options}).json()
    as_form = client.post(
        "/v1/videos", files={name: (None, str(value)) for name, value in {"prompt": "x", **options}.items()}
    )
    assert as_form.status_code == 200
    job = desk.store.find(made["id"])
    assert job is not None
    finish(job)
    again = client.post(f"/v1/videos/{job.id}/remix", json={"prompt": "y", "guidance_rescale": 0.5}).json()
    remix = desk.store.find(again["id"])
    assert remix is not None
    for order, rescale in ((job.order, 0.0), (remix.order, 0.5)):
        request = _request(order, 9)
        assert (request.guidance_kind, request.guidance_interval) == ("apg", (0.2, 0.9))
        assert (request.step_cache, request.guidance_rescale) == (0.05, rescale)
    for name, value in (("guidance_kind", "cgf"), ("guidance_interval", "0.2"), ("step_cache", 2)):
        refused = client.post("/v1/videos", json={"prompt": "x", name: value})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == name


def test_what_is_left_open_comes_from_the_model(client: TestClient, desk: Desk) -> None:
    own = desk.card.defaults
    reply = client.post("/v1/videos", json={"prompt": "x"}).json()
    assert reply["size"] == f"{own.width}x{own.height}"
    assert (reply["frames"], reply["steps"], reply["sampler"]) == (own.frames, own.steps, own.sampler)
    assert reply["seconds"] == "2.125"
    seeds = {client.post("/v1/videos", json={"prompt": "x"}).json()["seed"] for _ in range(5)}
    assert len(seeds) > 1


def test_replies_tell_when_to_ask_again(client: TestClient, submit: Submit, finish: Finish) -> None:
    job = submit()
    waiting = client.get(f"/v1/videos/{job.id}")
    assert int(waiting.headers["openai-poll-after-ms"]) > 0
    assert "private" in waiting.headers["cache-control"]
    finish(job)
    assert "openai-poll-after-ms" not in client.get(f"/v1/videos/{job.id}").headers


def test_content_comes_whole_and_in_ranges(client: TestClient, submit: Submit, finish: Finish) -> None:
    job = submit()
    early = client.get(f"/v1/videos/{job.id}/content")
    assert (early.status_code, error_of(early)["code"]) == (409, "video_not_ready")
    finish(job)
    for variant, kind in (("video", "video/mp4"), ("thumbnail", "image/webp"), ("spritesheet", "image/jpeg")):
        answer = client.get(f"/v1/videos/{job.id}/content?variant={variant}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "attachment" in answer.headers["content-disposition"]
    whole = client.get(f"/v1/videos/{job.id}/content").content
    part = client.get(f"/v1/videos/{job.id}/content", headers={"range": "bytes=3-8"})
    assert (part.status_code, part.content) == (206, whole[3:9])
    beyond = client.get(f"/v1/videos/{job.id}/content", headers={"range": f"bytes={len(whole)}-"})
    assert beyond.status_code == 416


def test_deleting_takes_files_and_row(client: TestClient, desk: Desk, submit: Submit, finish: Finish) -> None:
    job = submit()
    finish(job)
    assert client.delete(f"/v1/videos/{job.id}").json() == {
        "id": job.id,
        "object": "video.deleted",
        "deleted": True,
    }
    assert list((desk.shelf.root / "videos").iterdir()) == []
    assert client.get(f"/v1/videos/{job.id}/content").status_code == 404


def test_cancelling_is_a_failure_that_says_so(client: TestClient, submit: Submit) -> None:
    job = submit()
    reply = client.post(f"/v1/videos/{job.id}/cancel").json()
    assert (reply["status"], reply["error"]["code"]) == ("failed", "cancelled")


def test_a_full_queue_asks_for_patience(client: TestClient, desk: Desk) -> None:
    desk.limits = QueueLimits(per_tenant=1, total=1)
    assert client.post("/v1/videos", json={"prompt": "x"}).status_code == 200
    full = client.post("/v1/videos", json={"prompt": "x"})
    assert (full.status_code, error_of(full)["type"]) == (429, "rate_limit_error")
    assert "x-should-retry" not in full.headers
    assert int(full.headers["retry-after"]) > 0


def test_the_clients_keyless_retry_makes_one_job(client: TestClient, desk: Desk) -> None:
    ids = {
        client.post("/v1/videos", json={"prompt": "x"}, headers={"x-stainless-retry-count": count}).json()[
            "id"
        ]
        for count in ("0", "1", "2")
    }
    assert len(ids) == 1
    other = client.post("/v1/videos", json={"prompt": "y"}, headers={"x-stainless-retry-count": "1"}).json()
    assert other["id"] not in ids


@pytest.mark.parametrize(
    "headers", [{"idempotency-key": "mine"}, {"x-stainless-retry-count": "1"}], ids=["key", "retry"]
)
def test_characters_and_files_are_made_once_too(
    client: TestClient, desk: Desk, submit: Submit, finish: Finish, headers: dict[str, str]
) -> None:
    job = submit()
    finish(job)
    asked = {"name": "Rolf", "video": {"id": job.id}}

    def character(name: str) -> Any:
        return client.post("/v1/videos/characters", json={**asked, "name": name}, headers=headers)

    def file(content: bytes) -> Any:
        return client.post(
            "/v1/files",
            headers={**headers, "idempotency-key": "f"},
            files={"file": ("a.png", content)},
            data={"purpose": "vision"},
        )

    assert len({character("Rolf").json()["id"] for _ in range(3)}) == 1
    assert len(list((desk.shelf.root / "characters").iterdir())) == 1
    assert client.post("/v1/videos/characters", json=asked).status_code == 200
    assert len(list((desk.shelf.root / "characters").iterdir())) == 2
    assert len({file(b"x").json()["id"] for _ in range(3)}) == 1
    assert file(b"y").status_code == 422
    if "idempotency-key" in headers:
        assert error_of(character("Anna"))["code"] == "idempotency_key_reused"
        assert len(list((desk.shelf.root / "characters").iterdir())) == 2


def test_a_remix_takes_everything_but_the_words(client: TestClient, submit: Submit, finish: Finish) -> None:
    job = submit(negative="fog", seed=11, steps=9)
    assert client.post(f"/v1/videos/{job.id}/remix", json={"prompt": "y"}).status_code == 409
    finish(job)
    reply = client.post(f"/v1/videos/{job.id}/remix", json={"prompt": "y"}).json()
    assert (reply["prompt"], reply["seed"], reply["steps"], reply["negative_prompt"]) == ("y", 11, 9, "fog")
    assert (reply["task"], reply["remixed_from_video_id"]) == ("remix", job.id)


def test_an_extension_outlives_its_source(
    client: TestClient, desk: Desk, submit: Submit, finish: Finish
) -> None:
    job = submit()
    finish(job)
    body = {"prompt": "on", "seconds": "1", "video": {"id": job.id}}
    reply = client.post("/v1/videos/extensions", json=body).json()
    assert (reply["frames"], reply["extended_from_video_id"]) == (9 + 8, job.id)
    client.delete(f"/v1/videos/{job.id}")
    queued = desk.store.get("local", reply["id"])
    assert queued is not None
    assert (desk.shelf.inputs(queued.order.inputs) / "video.mp4").read_bytes().startswith(b"video.mp4")


def test_a_full_disk_is_told_and_passes(
    client: TestClient, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "upload").symlink_to("/dev/full")
    files = {"input_reference": ("a.png", b"x" * 10_000, "image/png")}
    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "new_upload", lambda shelf: folder)
        answer = client.post("/v1/videos", data={"prompt": "x"}, files=files)
    assert (answer.status_code, error_of(answer)["code"]) == (507, "storage_full")
    assert client.get("/v1/videos").json()["data"] == []
    assert client.post("/v1/videos", json={"prompt": "x"}).status_code == 200


def test_what_all_bodies_hold_is_bounded(
    client: TestClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mutoscope.serving.gate.HELD_BYTES", 1000)
    answer = client.post("/v1/videos", json={"prompt": "x" * 2000})
    assert (answer.status_code, error_of(answer)["code"]) == (503, "busy")
    assert desk.door.held == 0
    assert client.post("/v1/videos", json={"prompt": "x"}).status_code == 200
    assert desk.door.held == 0


def test_a_refused_request_leaves_no_file(
    client: TestClient, desk: Desk, submit: Submit, finish: Finish
) -> None:
    job = submit()
    finish(job)
    desk.limits = QueueLimits(0, 0)
    body = {"prompt": "on", "seconds": "1", "video": {"id": job.id}}
    assert client.post("/v1/videos/extensions", json=body).status_code == 429
    assert list((desk.shelf.root / "inputs").iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x.png",
        "https://example.com/x.png",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:image/png,plain",
        "data:image/png;base64,%%%",
        "//host/x.png",
        "",
    ],
)
def test_no_url_is_fetched(client: TestClient, url: str) -> None:
    answer = client.post("/v1/videos", json={"prompt": "x", "input_reference": {"image_url": url}})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "input_reference.image_url"


def test_a_webhook_of_a_video_is_one_that_the_server_was_told_of(client: TestClient, desk: Desk) -> None:
    asked = {"prompt": "x", "webhook_url": "https://hooks.example/mine"}
    refused = client.post("/v1/videos", json=asked)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "webhook_not_allowed")
    desk.webhook = Webhook("", "whsec_" + "A" * 32, ("https://hooks.example",))
    job = client.post("/v1/videos", json=asked).json()
    assert "hooks.example" not in str(job)
    client.post(f"/v1/videos/{job['id']}/cancel")
    assert [event.url for event in desk.store.due_events()] == ["https://hooks.example/mine"]
    elsewhere = client.post("/v1/videos", json={**asked, "webhook_url": "http://169.254.169.254/"})
    assert (elsewhere.status_code, error_of(elsewhere)["param"]) == (403, "webhook_url")
    assert client.get("/v1/videos").json()["data"] == [client.get(f"/v1/videos/{job['id']}").json()]


def test_tenants_cannot_see_each_other(
    client: TestClient, desk: Desk, submit: Submit, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mutoscope.serving.keys.FRESH", 0.0)
    assert FRESH > 0
    keys = {name: create_key(desk.store, name)[1] for name in ("ann", "bob")}
    ann, bob = ({"authorization": f"Bearer {keys[name]}"} for name in ("ann", "bob"))
    job = submit("ann")
    finish(job)
    unknown = "video_" + "f" * 32
    body = {"prompt": "x", "seconds": "1"}
    for method, path, content in (
        ("GET", "/v1/videos/{}", None),
        ("GET", "/v1/videos/{}/content", None),
        ("GET", "/v1/videos/{}/recipe", None),
        ("GET", "/v1/videos?after={}", None),
        ("POST", "/v1/videos/{}/remix", {"prompt": "x"}),
        ("POST", "/v1/videos/{}/cancel", None),
        ("DELETE", "/v1/videos/{}", None),
        ("POST", "/v1/videos/extensions", {**body, "video": {"id": "{}"}}),
    ):

        def ask(identifier: str, method: str = method, path: str = path, content: Any = content) -> Any:
            data = None if content is None else json.dumps(content).replace("{}", identifier)
            head = {**bob, **({"content-type": "application/json"} if data else {})}
            return client.request(method, path.format(identifier), content=data, headers=head)

        foreign, missing = ask(job.id), ask(unknown)
        assert foreign.status_code == missing.status_code == 404
        assert foreign.content == missing.content
    assert client.get("/v1/videos", headers=bob).json()["data"] == []
    assert len(client.get("/v1/videos", headers=ann).json()["data"]) == 1


def test_keys_are_needed_once_there_is_one(
    client: TestClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mutoscope.serving.keys.FRESH", 0.0)
    assert client.get("/v1/videos").status_code == 200
    key, secret = create_key(desk.store, "ann")
    for header in (None, "Bearer", "Bearer wrong", f"Basic {secret}", f"Bearer {secret}x"):
        answer = client.get("/v1/videos", headers={} if header is None else {"authorization": header})
        assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")
    assert client.get("/metrics").status_code == 401
    assert client.get("/").status_code == 200
    right = {"authorization": f"Bearer {secret}"}
    assert client.get("/v1/videos", headers=right).status_code == 200
    revoke_key(desk.store, key.id)
    assert client.get("/v1/videos", headers=right).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8000"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_other_sites_are_kept_out(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/v1/videos", json={"prompt": "x"}, headers=headers)
    assert (answer.status_code, error_of(answer)["type"]) == (403, "permission_error")
    assert client.get("/v1/videos").json()["data"] == []


def test_a_draining_server_takes_no_work(client: TestClient, desk: Desk) -> None:
    desk.door.draining = True
    answer = client.post("/v1/videos", json={"prompt": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert client.get("/v1/videos").status_code == 200


def test_health_follows_the_worker(client: TestClient, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/health").json()["status"] == "starting"
    desk.store.register("worker-1", "tiny", "cpu")
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    monkeypatch.setattr("mutoscope.serving.metrics.LEASE", -1.0)
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "degraded")


def test_metrics_count_jobs_and_answers(client: TestClient, submit: Submit) -> None:
    submit()
    client.get("/v1/nothing")
    text = client.get("/metrics").text
    assert 'mutoscope_jobs{status="queued"} 1' in text
    assert 'mutoscope_http_responses_total{method="GET",status="404"} 1' in text
    assert "a red ball" not in text


def test_the_page_is_here_and_needs_nobody_else(client: TestClient) -> None:
    page = client.get("/")
    assert (
        "script-src" in page.headers["content-security-policy"]
        or "default-src 'self'" in (page.headers["content-security-policy"])
    )
    for path in ("/", "/app.js", "/style.css", "/icon.svg"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert len(answer.content) < 100_000
        outside = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in outside
        assert "https://" not in outside


def test_the_contract_is_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert paths["/v1/videos"].keys() == {"get", "post"}
    body = paths["/v1/videos"]["post"]["requestBody"]["content"]
    assert body.keys() == {"application/json", "multipart/form-data"}
    assert "$ref" not in json.dumps(body)


def test_a_text_where_an_object_belongs_is_told_in_our_words(client: TestClient) -> None:
    answer = client.post("/v1/videos", json={"prompt": "x", "input_reference": "a.png"})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "input_reference")
    assert "PictureReference" not in answer.text


def test_what_the_client_has_already_is_not_sent_again(
    client: TestClient, submit: Submit, finish: Finish
) -> None:
    job = submit()
    finish(job)
    path = f"/v1/videos/{job.id}/content"
    whole = client.get(path)
    tag, date = whole.headers["etag"], whole.headers["last-modified"]
    for name, value in (
        ("if-none-match", tag),
        ("if-none-match", f'"other", W/{tag}'),
        ("if-none-match", "*"),
        ("if-modified-since", date),
    ):
        answer = client.get(path, headers={name: value})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), (name, value)
    for headers in ({"if-none-match": '"other"', "if-modified-since": date}, {"if-modified-since": "never"}):
        assert client.get(path, headers=headers).content == whole.content
    assert client.get("/", headers={"if-none-match": client.get("/").headers["etag"]}).status_code == 304


def test_ranges_that_are_there_are_sent_and_foreign_units_overlooked(
    client: TestClient, submit: Submit, finish: Finish
) -> None:
    job = submit()
    finish(job)
    path = f"/v1/videos/{job.id}/content"
    whole = client.get(path)
    size, tag = len(whole.content), whole.headers["etag"]
    for headers, status, content in (
        ({"range": f"bytes=0-1,{size}-"}, 206, whole.content[:2]),
        ({"range": f"bytes=-0,{size - 1}-"}, 206, whole.content[-1:]),
        ({"range": "items=0-1"}, 200, whole.content),
        ({"range": f"bytes={size}-", "if-range": '"other"'}, 200, whole.content),
        ({"range": "bytes=0-1", "if-range": tag}, 206, whole.content[:2]),
        ({"range": "bytes=0-1", "if-range": f"W/{tag}"}, 200, whole.content),
    ):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (status, content), headers
    for wrong in ("bytes=5-2", "bytes=x", "bytes=0-" + "9" * 5000):
        answer = client.get(path, headers={"range": wrong})
        assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_range")


def test_head_is_get_without_a_body(client: TestClient, submit: Submit, finish: Finish) -> None:
    job = submit()
    finish(job)
    one = f"/v1/videos/{job.id}"
    for path in (f"{one}/content", one, f"{one}/events", "/v1/videos", "/", "/health", "/v1/videos/video_x"):
        got, told = client.get(path), client.head(path)
        assert (told.status_code, told.content) == (got.status_code, b"")
        for name in ("content-type", "content-length"):
            assert told.headers.get(name) == got.headers.get(name)


def test_every_answer_but_a_refusal_has_an_id_of_its_own(client: TestClient) -> None:
    assert "x-request-id" not in client.get("/v1/videos/video_x").headers
    answers = [client.get(path) for path in ("/v1/videos", "/v1/models", "/metrics", "/")]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == len(answers)


def test_a_model_by_each_of_its_names(client: TestClient, desk: Desk) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    for name in (desk.card.name, *model["aliases"]):
        assert client.get(f"/v1/models/{name}").json() == model
    unknown = client.get("/v1/models/gpt-4")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")


def test_a_loop_that_is_too_short_is_not_queued(client: TestClient) -> None:
    asked = {"prompt": "x", "fps": 8, "loop": True}
    refused = client.post("/v1/videos", json={**asked, "seconds": "0.875"})
    assert (refused.status_code, error_of(refused)["code"]) == (409, "too_short")
    assert client.post("/v1/videos", json={**asked, "seconds": "1"}).status_code == 200
