"""What strangers try: addresses, paths and ids that are not theirs, in every place that takes one."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Gate
from mutoscope.serving.jobs import Character, Job
from mutoscope.serving.keys import create_key

PATHS = [
    "../../jobs.sqlite3",
    "..%2f..%2fjobs.sqlite3",
    "%2e%2e/%2e%2e/jobs.sqlite3",
    "..%252f..%252fjobs.sqlite3",
    "....//....//jobs.sqlite3",
    "..\\\\..\\\\jobs.sqlite3",
    "%5c..%5cjobs.sqlite3",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "file:///etc/passwd",
    ".",
    "..",
    "~root",
    "video_%00",
    "video_x%0d%0aset-cookie:%20a=b",
    "%ff%fe",
    "%ed%a0%80",
    "' OR 1=1 --",
    "*",
    "v" * 5000,
]
"""Ids that are no ids, as they are written into a path."""

ADDRESSES = [
    "{url}/x.png",
    "HTTP{rest}/x.png",
    "//{host}/x.png",
    "http://{host}@{host}/x.png",
    "http://[::ffff:127.0.0.1]:{port}/x.png",
    "http://2130706433:{port}/",
    "http://0x7f.1:{port}/",
    "http://localhost:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "gopher://{host}/_GET",
    "ftp://{host}/x.png",
    "concat:{url}/x.png",
    "subfile,,start,0,end,1,,:{url}/x",
    "data:text/html,<script src={url}>",
    "data:image/svg+xml;base64,PHN2Zy8+",
    "file:///etc/passwd",
    "/etc/passwd",
    "\\\\\\\\{host}\\\\share",
    " {url}/x.png",
    "\u0000{url}",
]

ONE = [
    "GET {}",
    "DELETE {}",
    "GET {}/content",
    "GET {}/recipe",
    "GET {}/events",
    "POST {}/cancel",
    "POST {}/remix",
]


@pytest.fixture
def client(app: Gate) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    """A listener that nobody should come to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def tree(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.name.startswith("jobs.sqlite3")}


@pytest.mark.parametrize("name", PATHS)
def test_no_path_leads_out_of_the_shelf(client: TestClient, desk: Desk, name: str) -> None:
    before = tree(desk.shelf.root.parent)
    for line in ONE:
        method, _, path = line.partition(" ")
        body = {"json": {"prompt": "x"}} if path.endswith("remix") else {}
        answer = client.request(method, path.format(f"/v1/videos/{name}"), **body)  # type: ignore[arg-type]
        assert answer.status_code in (404, 405) or (name in (".", "..") and answer.status_code < 500), line
        assert "set-cookie" not in answer.headers
        assert b"SQLite" not in answer.content
        assert b"root:" not in answer.content
    for answer in (
        client.get(f"/v1/videos/characters/{name}"),
        client.get("/v1/videos", params={"after": name}),
        client.get(f"/{name}"),
    ):
        assert answer.status_code < 500
        assert b"SQLite" not in answer.content
        assert b"root:" not in answer.content
    for path, body_of in (
        ("edits", {"prompt": "x", "video": {"id": name}}),
        ("extensions", {"prompt": "x", "seconds": "1", "video": {"id": name}}),
        ("characters", {"name": "x", "video": {"id": name}}),
    ):
        answer = client.post(f"/v1/videos/{path}", json=body_of)
        assert answer.status_code in (400, 404), answer.text
    assert tree(desk.shelf.root.parent) == before


@pytest.mark.parametrize("form", ADDRESSES)
def test_no_address_is_visited(client: TestClient, desk: Desk, canary: socket.socket, form: str) -> None:
    port = canary.getsockname()[1]
    host = f"127.0.0.1:{port}"
    address = form.format(url=f"http://{host}", rest=f"://{host}", host=host, port=port)
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/videos", {"prompt": "x", "input_reference": {"image_url": address}}),
        ("/v1/videos", {"prompt": "x", "last_frame": {"image_url": address}}),
        ("/v1/videos", {"prompt": "x", "input_reference": {"file_id": address}}),
        ("/v1/videos", {"prompt": "x", "model": address}),
        ("/v1/videos/edits", {"prompt": "x", "video": {"id": address}}),
        ("/v1/videos/edits", {"prompt": "x", "video": {"url": address}}),
        ("/v1/videos/characters", {"name": "x", "video": {"id": address}}),
    ]
    for path, body in bodies:
        answer = client.post(path, json=body)
        assert answer.status_code in (400, 404), (body, answer.text)
        form_fields = {
            f"{name}[{inner}]" if isinstance(value, dict) else name: text
            for name, value in body.items()
            for inner, text in (value.items() if isinstance(value, dict) else [("", value)])
        }
        answer = client.post(path, data=form_fields)
        assert answer.status_code in (400, 404), (body, answer.text)
    with pytest.raises(BlockingIOError):
        canary.accept()
    assert client.get("/v1/videos").json()["data"] == []


@pytest.mark.parametrize(
    "name", ["../../../evil.mp4", "/etc/cron.d/evil", "a\\..\\b", "video.mp4\0.png", "x" * 4000]
)
def test_names_of_files_are_not_used(client: TestClient, desk: Desk, name: str) -> None:
    before = tree(desk.shelf.root.parent)
    body = (
        b'--b\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nx\r\n'
        b'--b\r\ncontent-disposition: form-data; name="input_reference"; filename="'
        + name.encode()
        + b'"\r\ncontent-type: image/png\r\n\r\nno picture\r\n--b--\r\n'
    )
    head = {"content-type": "multipart/form-data; boundary=b"}
    answer = client.post("/v1/videos", content=body, headers=head)
    assert answer.status_code in (400, 413), answer.text
    left = {path for path in tree(desk.shelf.root.parent) - before if not path.is_dir()}
    assert left == set()


def test_what_is_foreign_is_answered_as_what_is_unknown(
    client: TestClient,
    desk: Desk,
    submit: Callable[..., Job],
    finish: Callable[[Job], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For finished, waiting and ended jobs and for characters, in every route, to the byte and the header."""
    monkeypatch.setattr("mutoscope.serving.keys.FRESH", 0.0)
    keys = {name: create_key(desk.store, name)[1] for name in ("ann", "bob")}
    bob = {"authorization": f"Bearer {keys['bob']}"}
    finished = submit("ann")
    finish(finished)
    waiting, ended = submit("ann"), submit("ann")
    desk.store.cancel("ann", ended.id)
    desk.store.add_character("ann", Character("char_" + "a" * 32, "Ann", 0), ("print", None, False))
    video = [finished.id, waiting.id, ended.id]
    reference = '{"prompt": "x", "seconds": "1", "video": {"id": "%s"}}'
    asked = [
        *((line.replace("{}", "/v1/videos/%s"), '{"prompt": "x"}', video) for line in ONE),
        *((f"GET /v1/videos/%s/content?variant={kind}", "", video) for kind in ("thumbnail", "preview")),
        ("GET /v1/videos?after=%s", "", video),
        ("POST /v1/videos/extensions", reference, video),
        ("POST /v1/videos/edits", reference.replace('"seconds": "1", ', ""), video),
        ("POST /v1/videos/characters", '{"name": "x", "video": {"id": "%s"}}', video),
        ("GET /v1/videos/characters/%s", "", ["char_" + "a" * 32]),
    ]
    for line, body, foreign in asked:
        answers = set()
        for identifier in (*foreign, foreign[0].partition("_")[0] + "_" + "f" * 32):
            method, _, path = line.replace("%s", identifier).partition(" ")
            content = body.replace("%s", identifier) if method == "POST" else None
            head = {**bob, **({"content-type": "application/json"} if content else {})}
            answer = client.request(method, path, content=content, headers=head)
            assert answer.status_code == 404, (line, answer.text)
            headers = {name: value for name, value in answer.headers.items() if name != "date"}
            answers.add((answer.content, json.dumps(headers)))
        assert len(answers) == 1, line
    assert [job.status for job in map(desk.store.find, video) if job] == ["completed", "queued", "failed"]
