"""Two databases behind the same calls: what PostgreSQL adds is that machines share it, and what it must not tell."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mutoscope.errors import InputError
from mutoscope.serving import database, jobs, worker
from mutoscope.serving.bundles import Asked, Bundles
from mutoscope.serving.database import Unreachable, open_database
from mutoscope.serving.jobs import Character, Job, Store
from mutoscope.serving.processes import owner_of
from mutoscope.serving.shelf import Shelf

HERE = owner_of(os.getpid())
ELSEWHERE = "another-boot:1:1"

TAKER = """
import os, sys, time
from mutoscope.serving.jobs import Store
from mutoscope.serving.processes import owner_of
store, seen = Store(sys.argv[1]), 0
owner = store.register(sys.argv[2], "tiny", "cpu")
print("ready", flush=True)
sys.stdin.readline()
while (job := store.claim(owner)) is not None:
    print(job.id, store.complete(job, None), flush=True)
"""

SLEEPER = """
import sys, time
from mutoscope.serving.jobs import Store
from mutoscope.serving.processes import owner_of
store = Store(sys.argv[1])
job = store.claim(store.register("sleeper", "tiny", "cpu"))
print(job.id, flush=True)
sys.stdin.readline()
print(store.holds(job), store.renew(job), store.complete(job, None), flush=True)
"""


def started(script: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_workers_never_take_the_same_job(postgres: str, submit_to: Callable[..., Job]) -> None:
    made = {submit_to(Store(postgres), tenant).id for tenant in ("a", "b") for _ in range(20)}
    workers = [started(TAKER, postgres, name) for name in ("one", "two")]
    for taker in workers:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
    for taker in workers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    shares = [worker.communicate(timeout=120)[0].split() for worker in workers]
    taken = Counter(word for share in shares for word in share if word != "True")
    assert set(taken) == made
    assert set(taken.values()) == {1}
    assert all(shares)


def test_a_claim_passes_by_a_row_that_another_is_taking(postgres: str, submit_to: Callable[..., Job]) -> None:
    store, other = Store(postgres), Store(postgres)
    first, second = submit_to(store), submit_to(store)
    with other.transaction() as db:
        db.execute("SELECT 1 FROM jobs WHERE id = ? FOR UPDATE", (first.id,))
        began = time.monotonic()
        claimed = store.claim(HERE)
        assert time.monotonic() - began < 10
    assert claimed is not None
    assert claimed.id == second.id


def test_a_worker_stopped_with_sigstop_loses_its_lease_and_cannot_publish(
    postgres: str, submit_to: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(postgres)
    job = submit_to(store)
    sleeper = started(SLEEPER, postgres)
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline().strip() == job.id
    sleeper.send_signal(signal.SIGSTOP)
    assert store.rescue() == 0
    later = store.database.now() + jobs.LEASE + 1
    with monkeypatch.context() as patch:
        patch.setattr(store.database, "now", lambda: later)
        assert store.rescue() == 1
    taken = store.claim(HERE)
    assert taken is not None
    assert taken.id == job.id
    sleeper.send_signal(signal.SIGCONT)
    assert sleeper.communicate("wake up\n", timeout=60)[0].split() == ["False", "False", "False"]
    assert store.complete(taken, None)


def test_of_a_worker_elsewhere_only_its_silence_tells(
    postgres: str, submit_to: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(postgres)
    submit_to(store)
    store.connection().execute(
        "INSERT INTO workers VALUES (?, 'far', 'tiny', 'cuda', ?)", (ELSEWHERE, store.database.now())
    )
    assert store.claim(ELSEWHERE) is not None
    assert store.rescue() == 0
    store.forget_gone_workers()
    assert [worker["name"] for worker in store.workers()] == ["far"]
    later = store.database.now() + jobs.FORGOTTEN + 1
    monkeypatch.setattr(store.database, "now", lambda: later)
    assert store.rescue() == 1
    store.forget_gone_workers()
    assert store.workers() == []
    assert not store.beat(ELSEWHERE)


def test_a_lost_connection_is_an_error_once_and_then_made_anew(
    postgres: str, submit_to: Callable[..., Job]
) -> None:
    store, other = Store(postgres), Store(postgres)
    job = submit_to(store)
    number = store.connection().execute("SELECT pg_backend_pid()").fetchone()[0]
    other.connection().execute("SELECT pg_terminate_backend(?)", (number,))
    with pytest.raises(Unreachable):
        store.find(job.id)
    assert store.find(job.id) == job


def test_a_database_has_one_server(postgres: str) -> None:
    one, two = open_database(postgres), open_database(postgres)
    with one.alone(), pytest.raises(InputError, match="Another server uses the database"), two.alone():
        pass
    with two.alone():
        pass


def test_an_answer_that_was_lost_is_asked_for_again(
    postgres: str, submit_to: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published stays published, and what was not is not, whatever the connection does."""
    store = Store(postgres)
    place = worker.Place(Shelf(tmp_path), store, None, HERE, None)
    monkeypatch.setattr(worker.time, "sleep", lambda seconds: None)
    complete = store.complete

    def lost_on_the_way_back(job: Job, expires_at: int | None) -> bool:
        complete(job, expires_at)
        raise Unreachable("the connection was lost")

    def lost_on_the_way_there(job: Job, expires_at: int | None) -> bool:
        monkeypatch.setattr(store, "complete", complete)
        raise Unreachable("the connection was lost")

    for trouble, answer in ((lost_on_the_way_back, None), (lost_on_the_way_there, True)):
        submit_to(store)
        job = store.claim(HERE)
        assert job is not None
        monkeypatch.setattr(store, "complete", trouble)
        assert worker._publish(place, job) is answer
        monkeypatch.setattr(store, "complete", complete)
        assert worker._publish(place, job) is True
        assert worker._publish(place, dataclasses.replace(job, lease=job.lease + 1)) is False


def test_batches_and_files_are_kept_there_too(postgres: str, submit_to: Callable[..., Job]) -> None:
    store = Store(postgres)
    bundles = Bundles(store)
    line = b'{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "x"}}'
    file = bundles.add_file("t", "in.jsonl", line)
    assert file.bytes == len(line)
    assert bundles.content("t", file.id) == line
    batch = bundles.begin(Asked("t", "/v1/videos", file.id))
    assert batch is not None
    assert (batch.total, batch.completed, batch.failed) == (1, 0, 0)
    (waiting,) = bundles.waiting(batch)
    job = submit_to(store, "t")
    bundles.answer(waiting, 200, f'{{"id": "{job.id}"}}')
    assert bundles.unfinished(batch) == [job.id]
    claimed = store.claim(HERE)
    assert claimed is not None
    store.complete(claimed, None)
    assert not bundles.is_open(batch)
    bundles.finish(batch, "completed")
    ended = bundles.batch("t", batch.id)
    assert ended is not None
    assert (ended.status, ended.completed, ended.failed) == ("completed", 1, 0)
    found = bundles.files("t", None, 10, True, "batch_output")
    assert found is not None
    assert [file.id for file in found[0]] == [ended.output_file]


def test_a_nul_in_a_name_is_no_error(postgres: str) -> None:
    store = Store(postgres)
    assert store.get("a", "video\0") is None
    assert store.add_character("a", Character("char_1", "A\0B", 0), ("print", None, False)).id == "char_1"
    kept = store.character("a", "char_1")
    assert kept is not None
    assert kept.name == "A\ufffdB"


@pytest.mark.parametrize(
    ("statement", "other"),
    [
        ("a = ? AND b = :name", "a = %s AND b = %(name)s"),
        ("a = '?:x' AND b % 2 = ?", "a = '?:x' AND b %% 2 = %s"),
        ("x LIKE '50%'", "x LIKE '50%%'"),
        ("now()::float8", "now()::float8"),
    ],
)
def test_placeholders_are_told_apart_from_text(statement: str, other: str) -> None:
    assert database._spelled(statement) == other


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hunter2@127.0.0.1:1/videos",
        "postgresql://ann:hunter2@127.0.0.1:1:2/videos",
        "postgresql://ann:hunter2%zz@127.0.0.1/videos",
        "mysql://ann:hunter2@127.0.0.1/videos",
    ],
)
def test_a_password_is_in_no_message(url: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InputError) as raised:
        open_database(url)
    error: BaseException | None = raised.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert str(raised.value).count(".") >= 1
    assert "hunter2" not in caplog.text


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match=r"pip install 'mutoscope\[postgres\]'"):
        open_database("postgresql://ann@127.0.0.1/videos")


def test_a_file_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    opened: Any = open_database(tmp_path / "jobs.sqlite3")
    assert not opened.is_shared
