"""Videos made by another server: a well-behaved one, many that are not, and a real second Mutoscope."""

import json
import os
import shutil
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mutoscope.errors import InputError
from mutoscope.generation.request import file_sha256
from mutoscope.serving import adopt
from mutoscope.serving.backend import Backend, Ledger, tidy
from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Gate
from mutoscope.serving.jobs import Job, Store
from mutoscope.serving.offer import UNSAID, Offer, learn
from mutoscope.serving.processes import owner_of
from mutoscope.serving.provenance import trace
from mutoscope.serving.remote import Remote, plain
from mutoscope.serving.server import ServeConfig, serve
from mutoscope.serving.shelf import Shelf
from mutoscope.serving.worker import Heartbeat, Place, Progress, do
from mutoscope.video import Video, read_recipe, read_video, write_video
from mutoscope.watermark import find, number_of_record
from mutoscope.weights.card import ModelCard

if TYPE_CHECKING:
    from .conftest import Live

Submit = Callable[..., Job]
Answer = tuple[int, dict[str, str], bytes] | None
"""Status, headers and body; None breaks the connection."""


def told(code: int = 200, /, **fields: Any) -> Answer:
    return code, {"content-type": "application/json"}, json.dumps(fields).encode()


def video(state: str, **fields: Any) -> Answer:
    answer = told(id="remote_1", object="video", status=state, **fields)
    assert answer is not None
    return answer[0], {**answer[1], "openai-poll-after-ms": "100"}, answer[2]


@dataclass
class Fake:
    """A server that answers by a script: for "METHOD PATH" a list of answers, the last of which stays."""

    script: dict[str, list[Answer]]
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def asked(self, what: str) -> list[dict[str, str]]:
        return [headers for name, headers, _ in self.heard if name == what]

    def body(self, what: str) -> bytes:
        return next(body for name, _, body in self.heard if name == what)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real video, of another size and rate than was asked for."""
    rows, columns, frames = np.mgrid[0:96, 0:128, 0:20]
    levels = (rows + columns + 5 * frames) % 200
    frames_THWC = np.repeat(levels.transpose(2, 0, 1)[..., None], 3, axis=3).astype(np.uint8)
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_video(path, Video(frames_THWC, 10.0)).read_bytes()


@pytest.fixture
def fake(clip: bytes) -> Iterator[Fake]:
    fake = Fake(
        {
            "POST /v1/videos": [video("queued", progress=0)],
            "GET /v1/videos/remote_1": [video("in_progress", progress=50), video("completed", progress=100)],
            "GET /v1/videos/remote_1/content": [(200, {"content-type": "video/mp4"}, clip)],
            "DELETE /v1/videos/remote_1": [(204, {}, b"")],
        }
    )

    class Ear(BaseHTTPRequestHandler):
        def answer(self) -> None:
            name = f"{self.command} {self.path}"
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            fake.heard.append((name, {key.lower(): value for key, value in self.headers.items()}, body))
            answers = fake.script.get(name, [told(404, error={"message": "No such thing."})])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer[0])
            for key, value in ({"content-length": str(len(answer[2]))} | answer[1]).items():
                self.send_header(key, value)
            self.end_headers()
            delay = float(answer[1].get("x-delay", 0))
            for at in range(0, len(answer[2]), 4) if delay else ():
                time.sleep(delay)
                try:
                    self.wfile.write(answer[2][at : at + 4])
                except OSError:
                    return
            if not delay:
                self.wfile.write(answer[2])

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ear) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield fake
        server.shutdown()
        thread.join()


class NoDrain:
    is_asked = is_over = False


@dataclass
class Bench:
    """A worker's place around a backend, without a process of its own."""

    place: Place
    backend: Backend

    def run(self, drain: Any = None) -> Job:
        """Claim the next job, do it, return it as it is afterwards."""
        claimed = self.place.store.claim(self.place.owner)
        assert claimed is not None
        progress = Progress(self.place, claimed, Heartbeat(self.place), drain or NoDrain())
        do(self.place, claimed, progress)
        found = self.place.store.find(claimed.id)
        return claimed if found is None else found

    def files(self, job: Job) -> list[str]:
        folder = self.place.shelf.root / "videos" / job.id
        return sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


@pytest.fixture
def bench(store: Store, fake: Fake) -> Bench:
    return at(store, fake)


def at(store: Store, fake: Fake, is_kin: bool = False, **remote: Any) -> Bench:
    shelf = Shelf(store.path.parent)
    (shelf.root / "backend").mkdir(exist_ok=True)
    offer = Offer(fake.url, ModelCard("wan", defaults=UNSAID), is_kin)
    settings = {"key": "sk-far", "timeout": 1.0, "patience": 30.0} | remote
    backend = Backend(Remote(fake.url, **settings), offer, Ledger(shelf.root / "backend", fake.url))
    place = Place(shelf, store, None, owner_of(os.getpid()), None, draw=backend.draw)
    return Bench(place, backend)


PLAIN = {"steps": 0, "guidance": 0.0, "sampler": "", "width": 1280, "height": 720, "frames": 96, "fps": 24.0}


# --- what goes well -------------------------------------------------------------------------------


def test_a_video_is_asked_for_fetched_and_made_ours(bench: Bench, fake: Fake, submit: Submit) -> None:
    submit(**PLAIN)
    job = bench.run()
    assert job.error is None
    assert job.status == "completed"
    assert (job.order.size, job.order.frames, job.order.fps) == ("128x96", 20, 10.0)
    (asked,) = fake.asked("POST /v1/videos")
    assert asked["authorization"] == "Bearer sk-far"
    assert asked["idempotency-key"] == f"mutoscope-{job.id}-0"
    assert asked["content-type"].startswith("multipart/form-data")
    form = fake.body("POST /v1/videos").decode()
    for name, value in (
        ("prompt", "a red ball"),
        ("model", "wan"),
        ("seconds", "4"),
        ("size", "1280x720"),
        ("seed", "7"),
    ):
        assert f'name="{name}"\r\n\r\n{value}\r\n' in form
    assert "num_inference_steps" not in form
    assert bench.files(job) == ["recipe.json", "spritesheet.jpg", "thumbnail.webp", "video.mp4"]
    path = bench.place.shelf.attempt(job) / "video.mp4"
    record = read_recipe(path)
    assert record is not None
    assert record["model"]["name"] == "wan"
    made = read_video(path)
    assert made.frames_THWC.shape == (20, 96, 128, 3)
    mark = find(made.frames_THWC, made.fps)
    assert mark is not None
    assert mark.number == number_of_record(record)
    assert json.loads((path.parent / "recipe.json").read_text())["sha256"] == file_sha256(path)
    assert {finding.kind for finding in trace(path) if finding.state == "holds"} >= {
        "recipe",
        "sidecar",
        "watermark",
    }


def test_pictures_are_sent_as_files(bench: Bench, fake: Fake, submit: Submit) -> None:
    token = bench.place.shelf.new_inputs()
    (bench.place.shelf.inputs(token) / "first.png").write_bytes(b"\x89PNG picture")
    submit(**PLAIN, inputs=token, first_picture=True)
    assert bench.run().status == "completed"
    body = fake.body("POST /v1/videos")
    assert b'name="input_reference"; filename="first.png"' in body
    assert b"\x89PNG picture" in body


def test_a_job_that_is_there_already_is_not_asked_for_again(bench: Bench, fake: Fake, submit: Submit) -> None:
    job = submit(**PLAIN)
    bench.backend.ledger.put(job.id, "remote_1")
    assert bench.run().status == "completed"
    assert fake.asked("POST /v1/videos") == []


def test_an_id_of_another_backend_does_not_count(bench: Bench, fake: Fake, submit: Submit) -> None:
    job = submit(**PLAIN)
    Ledger(bench.backend.ledger.folder, "http://elsewhere/v1").put(job.id, "remote_9")
    assert bench.run().status == "completed"
    assert len(fake.asked("POST /v1/videos")) == 1


@pytest.mark.parametrize("trouble", [None, told(503), told(429), (200, {}, b"<html>")])
def test_a_lost_answer_is_asked_for_under_the_same_key(
    bench: Bench, fake: Fake, submit: Submit, trouble: Answer
) -> None:
    fake.script["POST /v1/videos"].insert(0, trouble)
    submit(**PLAIN)
    assert bench.run().status == "completed"
    keys = [asked["idempotency-key"] for asked in fake.asked("POST /v1/videos")]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_backend_that_takes_no_seed_or_no_form_is_asked_in_its_own_way(
    bench: Bench, fake: Fake, submit: Submit
) -> None:
    no = told(422, detail="unknown field seed")
    fake.script["POST /v1/videos"][:0] = [no, told(400, detail="a file is required in forms")]
    submit(**PLAIN)
    assert bench.run().status == "completed"
    bodies = [body for name, _, body in fake.heard if name == "POST /v1/videos"]
    assert [b"seed" in body for body in bodies] == [True, False, False]
    assert json.loads(bodies[2])["prompt"] == "a red ball"
    assert len({asked["idempotency-key"] for asked in fake.asked("POST /v1/videos")}) == 3


def test_an_edit_names_the_video_there_and_sends_it_when_it_is_gone(
    store: Store, fake: Fake, submit: Submit, clip: bytes
) -> None:
    bench = at(store, fake, is_kin=True)
    bench.backend.ledger.put("video_source", "remote_0")
    fake.script["POST /v1/videos/edits"] = [told(404, error={"message": "Gone."}), video("queued")]
    token = bench.place.shelf.new_inputs()
    (bench.place.shelf.inputs(token) / "video.mp4").write_bytes(clip)
    submit(task="edit", strength=0.5, inputs=token, source="video_source")
    assert bench.run().status == "completed"
    first, second = (body for name, _, body in fake.heard if name == "POST /v1/videos/edits")
    assert json.loads(first)["video"] == {"id": "remote_0"}
    assert json.loads(first)["strength"] == 0.5
    assert clip in second
    assert b"guidance" in second


def test_another_mutoscope_is_told_everything(store: Store, fake: Fake, submit: Submit) -> None:
    bench = at(store, fake, is_kin=True)
    board = {
        "cards": [
            {
                "at": 0.0,
                "prompt": "a ball",
                "expanded": "a red ball",
                "image": "card-0.png",
                "clip": None,
                "cut": None,
            },
            {"at": 0.5, "prompt": "a box", "expanded": "", "image": None, "clip": None, "cut": True},
        ]
    }
    token = bench.place.shelf.new_inputs()
    (bench.place.shelf.inputs(token) / "card-0.png").write_bytes(b"pixels")
    submit(inputs=token, storyboard=json.dumps(board), negative="fog", frames=17)
    assert bench.run().status == "completed"
    body = json.loads(fake.body("POST /v1/videos"))
    assert body["storyboard"]["cards"] == [
        {"at": 0.0, "prompt": "a red ball", "cut": None, "image": "data:image/png;base64,cGl4ZWxz"},
        {"at": 0.5, "prompt": "a box", "cut": True},
    ]
    wanted = {
        "seconds": "2.125",
        "fps": 8.0,
        "steps": 4,
        "sampler": "euler",
        "negative_prompt": "fog",
        "seed": 7,
    }
    assert body.items() >= wanted.items()


# --- what does not --------------------------------------------------------------------------------


def failure(bench: Bench, job: Job) -> dict[str, Any]:
    """The error of a job that failed and left nothing behind."""
    assert job.status == "failed"
    assert bench.files(job) == []
    assert job.error is not None
    assert job.error["message"].count(". ") == 0
    assert job.error["message"].endswith(".")
    return job.error


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "does not answer"),
        (told(500), "HTTP 500"),
        ((200, {}, b"<html>"), "not JSON"),
        ((200, {}, b"[]"), "not an object"),
        ((200, {}, b"{}"), "no video"),
        ((200, {}, b'{"id": "..", "status": "queued"}'), "an id that is none"),
        ((200, {}, b'{"id": "x", "status": NaN}'), "not JSON"),
        ((200, {}, b"[" * 100_000), "not JSON"),
        ((200, {}, b" " * 1_100_000), "without end"),
        ((200, {"content-length": "999"}, b"{"), "not JSON"),
        ((204, {}, b""), "not JSON"),
        ((200, {"x-delay": "0.2"}, b"{" * 400), "not answer in time"),
    ],
)
def test_a_backend_in_trouble_is_asked_a_few_times_and_no_more(
    store: Store, fake: Fake, submit: Submit, answer: Answer, says: str
) -> None:
    bench = at(store, fake, patience=0.7)
    fake.script["POST /v1/videos"] = [answer]
    submit(**PLAIN)
    error = failure(bench, bench.run())
    assert error["code"] == "backend_unavailable"
    assert says in error["message"]
    assert 1 <= len(fake.asked("POST /v1/videos")) <= 3


def test_a_backend_that_is_down_is_a_sentence(bench: Bench, submit: Submit) -> None:
    away = replace(bench.backend.remote, url="http://127.0.0.1:9/v1", patience=0.7)
    backend = replace(bench.backend, remote=away)
    submit(**PLAIN)
    error = failure(bench, Bench(replace(bench.place, draw=backend.draw), backend).run())
    assert error["code"] == "backend_unavailable"
    assert "connection refused" in error["message"]


@pytest.mark.parametrize(
    ("status", "error", "code", "says"),
    [
        (400, {"code": "moderation_blocked", "message": "No."}, "moderation_blocked", "(HTTP 400): No."),
        (
            400,
            {"code": "x", "message": "The size\n\x1b[31m is odd."},
            "backend_refused",
            "The size [31m is odd.",
        ),
        (401, {}, "backend_refused", "$MUTOSCOPE_BACKEND_KEY"),
        (413, None, "backend_refused", "(HTTP 413)."),
        (307, None, "backend_refused", "redirect"),
    ],
)
def test_a_refusal_is_passed_on_and_not_repeated(
    bench: Bench, fake: Fake, submit: Submit, status: int, error: Any, code: str, says: str
) -> None:
    fake.script["POST /v1/videos"] = [
        (
            status,
            {"location": f"{fake.url}/elsewhere"},
            json.dumps({"error": error}).encode(),
        )
    ]
    submit(**PLAIN)
    found = failure(bench, bench.run())
    assert (found["code"], says in found["message"]) == (code, True), found
    assert len(fake.asked("POST /v1/videos")) <= 3  # the ways of asking, each once
    assert not any("elsewhere" in name for name, _, _ in fake.heard)


def test_what_fails_there_fails_here_with_its_reason(bench: Bench, fake: Fake, submit: Submit) -> None:
    fake.script["GET /v1/videos/remote_1"] = [
        video("failed", error={"code": "oom", "message": "Out of memory."})
    ]
    submit(**PLAIN)
    error = failure(bench, bench.run())
    assert error == {
        "code": "backend_failed",
        "message": "The backend failed to make this video: Out of memory.",
    }


def test_a_job_that_is_forgotten_there_fails_here(bench: Bench, fake: Fake, submit: Submit) -> None:
    fake.script["GET /v1/videos/remote_1"] = [video("queued"), told(404)]
    submit(**PLAIN)
    assert failure(bench, bench.run())["code"] == "backend_lost"


@pytest.mark.parametrize("kind", ["text", "empty", "picture", "half", "short", "moved", "late"])
def test_what_is_no_video_is_never_published(
    store: Store, fake: Fake, submit: Submit, clip: bytes, kind: str, tmp_path: Path
) -> None:
    bench = at(store, fake, patience=0.7)
    still = write_video(tmp_path / "a.png", Video(np.zeros((1, 64, 64, 3), np.uint8), 8.0)).read_bytes()
    answer, code = {
        "text": ((200, {}, b"#EXTM3U\nhttp://127.0.0.1/secret"), "backend_bad_video"),
        "picture": ((200, {}, still), "backend_bad_video"),
        "half": ((200, {}, clip[: len(clip) // 2]), "backend_bad_video"),
        "empty": ((200, {}, b""), "backend_unavailable"),
        "short": ((200, {"content-length": str(len(clip) + 9)}, clip), "backend_unavailable"),
        "moved": ((302, {"location": f"{fake.url}/elsewhere"}, b""), "backend_refused"),
        "late": ((404, {}, b"{}"), "backend_refused"),
    }[kind]
    fake.script["GET /v1/videos/remote_1/content"] = [answer]
    submit(**PLAIN)
    assert failure(bench, bench.run())["code"] == code
    assert not any("elsewhere" in name for name, _, _ in fake.heard)


def test_a_download_that_breaks_off_is_begun_again(
    bench: Bench, fake: Fake, submit: Submit, clip: bytes
) -> None:
    fake.script["GET /v1/videos/remote_1/content"].insert(
        0, (200, {"content-length": str(len(clip))}, clip[:99])
    )
    submit(**PLAIN)
    assert bench.run().status == "completed"


def test_a_decoder_that_hangs_is_ended(bench: Bench, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "WALL_SECONDS", 0.0)
    submit(**PLAIN)
    assert "in time" in failure(bench, bench.run())["message"]


@pytest.mark.parametrize(
    "changes",
    [
        {"loop": True},
        {"backward": True, "task": "extend"},
        {"last_picture": True},
        {"sampler": "heun"},
        {"storyboard": '{"cards": [{}]}'},
    ],
)
def test_what_only_we_know_is_not_asked_of_others(
    bench: Bench, fake: Fake, submit: Submit, changes: dict[str, Any]
) -> None:
    submit(**{**PLAIN, **changes})
    assert failure(bench, bench.run())["code"] == "not_supported"
    assert fake.heard == []


# --- ending it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_deleted", [True, False])
def test_cancelling_here_deletes_it_there(
    bench: Bench, fake: Fake, submit: Submit, store: Store, is_deleted: bool
) -> None:
    fake.script["GET /v1/videos/remote_1"] = [video("in_progress", progress=10)]
    job = submit(**PLAIN)
    end = store.delete if is_deleted else store.cancel
    timer = threading.Timer(0.6, end, (job.tenant, job.id))
    timer.start()
    bench.run()
    timer.join()
    assert bench.files(job) == []
    assert fake.asked("DELETE /v1/videos/remote_1") == []
    fake.script["DELETE /v1/videos/remote_1"].insert(0, told(503))
    assert not tidy(bench.backend.remote, bench.backend.ledger, store)  # kept for later
    assert tidy(bench.backend.remote, bench.backend.ledger, store)
    assert len(fake.asked("DELETE /v1/videos/remote_1")) == 2
    assert list(bench.backend.ledger.entries()) == []


def test_a_finished_video_stays_there_until_it_is_deleted_here(
    bench: Bench, fake: Fake, submit: Submit, store: Store
) -> None:
    submit(**PLAIN)
    job = bench.run()
    assert tidy(bench.backend.remote, bench.backend.ledger, store)
    assert fake.asked("DELETE /v1/videos/remote_1") == []
    store.delete(job.tenant, job.id)
    assert tidy(bench.backend.remote, bench.backend.ledger, store)
    assert len(fake.asked("DELETE /v1/videos/remote_1")) == 1


def test_a_worker_that_is_to_end_gives_the_job_back_and_it_goes_on_there(
    bench: Bench, fake: Fake, submit: Submit, store: Store
) -> None:
    class Ending:
        is_asked, is_over = True, False

    fake.script["GET /v1/videos/remote_1"].insert(0, video("in_progress", progress=10))
    submit(**PLAIN)
    job = bench.run(Ending())
    assert (job.status, job.attempts) == ("queued", 0)
    assert tidy(bench.backend.remote, bench.backend.ledger, store)
    assert bench.run().status == "completed"
    assert len(fake.asked("POST /v1/videos")) == 1
    assert fake.asked("DELETE /v1/videos/remote_1") == []


# --- what it offers -------------------------------------------------------------------------------

KIN = {
    "id": "tiny",
    "object": "model",
    "owned_by": "mutoscope",
    "aliases": [],
    "size": "64x64",
    "seconds": "2.125",
    "fps": 8.0,
    "steps": 30,
    "guidance": 4.0,
    "sampler": "dpmpp_2m",
}


def test_what_it_offers_is_asked_and_remembered(fake: Fake, tmp_path: Path) -> None:
    fake.script["GET /v1/models"] = [told(data=[{"id": "wan", "owned_by": "vllm"}, KIN])]
    remote = Remote(fake.url, timeout=1.0)
    assert learn(remote, "", tmp_path).card == ModelCard("wan", licence="", defaults=UNSAID)
    offer = learn(remote, "tiny", tmp_path)
    assert offer.is_kin
    assert (offer.card.defaults.frames, offer.card.defaults.width) == (17, 64)
    fake.script["GET /v1/models"] = [None]
    assert learn(remote, "", tmp_path) == offer
    with pytest.raises(InputError, match="does not answer"):
        learn(remote, "wan", tmp_path)
    with pytest.raises(InputError, match="start it first"):
        learn(remote, "", tmp_path / "new")


def test_it_must_have_the_model_and_take_the_key(fake: Fake, tmp_path: Path) -> None:
    remote = Remote(fake.url)
    fake.script["GET /v1/models"] = [told(data=[KIN])]
    with pytest.raises(InputError, match="no model 'wan'; it offers tiny"):
        learn(remote, "wan", tmp_path)
    fake.script["GET /v1/models"] = [told(401)]
    with pytest.raises(InputError, match="MUTOSCOPE_BACKEND_KEY"):
        learn(remote, "", tmp_path)
    fake.script["GET /v1/models"] = [told(404)]
    assert learn(remote, "", tmp_path).card.name == "sora-2"


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "file:///etc/passwd",
        "http://",
        "http://a b/v1",
        "http://u:p@host/v1",
        "http://host/v1?x=1",
        "http://host:99999/v1",
        "http://host/v1\r\nx: y",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        Remote(url)


def test_a_path_is_added_and_the_key_is_not_shown() -> None:
    assert Remote("http://127.0.0.1:8000").path == "/v1"
    assert Remote("http://127.0.0.1:8000/api/v1/").path == "/api/v1"
    assert "secret" not in repr(Remote("http://host", "secret"))


def test_foreign_sentences_are_one_line_of_letters() -> None:
    assert plain("a\n\tb\x00c") == "a b c"
    assert plain(["a"]) == ""
    assert len(plain("x" * 10_000)) == 200


def test_a_relay_does_not_say_at_which_size_another_draws(app: Gate, desk: Desk) -> None:
    said = {}
    for desk.is_relay in (False, True):
        with TestClient(app) as client:
            answer = client.post(
                "/v1/videos", json={"prompt": "x", "model": "tiny", "size": "1280x720"}
            ).json()
        said[desk.is_relay] = (answer["drawn_size"], answer["note"])
    assert said[True] == ("1280x720", None)
    assert said[False][0] != "1280x720"


def test_a_server_with_a_dead_backend_says_so_and_does_not_start(tmp_path: Path) -> None:
    config = ServeConfig(data=tmp_path / "data", port=0, model="", backend="http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match="does not answer"):
        serve(config)


# --- a real second server -------------------------------------------------------------------------


def ask(live: "Live", method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{live.url}/v1/videos{path}", data, {"content-type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        reply: dict[str, Any] = json.load(answer)
    return reply


def until(condition: Callable[[], Any], patience: float) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@pytest.fixture
def relay(live: "Live", fresh: "Live") -> "Live":
    """A server whose videos another one makes."""
    fresh.backend = f"{live.url}/v1"
    return fresh


@pytest.mark.slow
def test_a_second_server_makes_the_videos_whatever_is_killed(
    live: "Live", relay: "Live", patience: float
) -> None:
    """Two kills of the whole group in the middle, one job there, the same pictures, deleted in both."""
    before = {job["id"] for job in ask(live, "GET", "?limit=100")["data"]}
    relay.start().wait_for_worker()
    asked = {
        "prompt": "a red ball",
        "seed": 3,
        "steps": 60,
        "negative_prompt": "fog",
        "fps": 8,
        "seconds": "2",
    }
    name = ask(relay, "POST", "", asked)["id"]
    for state in ("in_progress", "in_progress"):
        until(lambda: ask(relay, "GET", f"/{name}")["status"] in (state, "completed"), patience)  # noqa: B023
        relay.kill()
        relay.start().wait_for_worker()
    until(lambda: ask(relay, "GET", f"/{name}")["status"] not in ("queued", "in_progress"), 2 * patience)
    done = ask(relay, "GET", f"/{name}")
    assert done["error"] is None
    assert (done["status"], done["served_by"], done["frames"], done["drawn_size"]) == (
        "completed",
        "random",
        16,
        "64x64",
    )
    (far,) = [job for job in ask(live, "GET", "?limit=100")["data"] if job["id"] not in before]
    assert (far["seed"], far["steps"], far["negative_prompt"]) == (3, 60, "fog")
    (there,) = (live.data / "videos" / far["id"]).rglob("video.mp4")
    (here,) = (relay.data / "videos" / name).rglob("video.mp4")
    first, second = (read_video(path).frames_THWC.ravel() for path in (there, here))
    assert np.corrcoef(first, second)[0, 1] > 0.95  # the random model's noise loses a little to the codec
    edited = ask(relay, "POST", "/edits", {"prompt": "a box", "video": {"id": name}})["id"]
    until(lambda: ask(relay, "GET", f"/{edited}")["status"] == "completed", 2 * patience)
    for identifier in (name, edited):
        ask(relay, "DELETE", f"/{identifier}")
    until(lambda: {job["id"] for job in ask(live, "GET", "?limit=100")["data"]} == before, patience)
    with sqlite3.connect(relay.data / "jobs.sqlite3") as db:
        assert db.execute("SELECT COUNT(*) FROM jobs").fetchone() == (0,)
    assert relay.stop() == 0
    shutil.rmtree(relay.data)
