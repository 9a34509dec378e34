"""The job store: nothing is lost, nothing is published twice, nobody waits behind a flood."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mutoscope.errors import InputError
from mutoscope.serving import jobs
from mutoscope.serving.jobs import ATTEMPTS, Job, KeyReused, QueueFull, QueueLimits, Store, Submission
from mutoscope.serving.orders import Order, drawn_size, dump, parse, whole_frames
from mutoscope.serving.processes import is_gone, owner_of
from mutoscope.weights.card import Defaults

HERE = owner_of(os.getpid())
GONE = HERE.rpartition(":")[0] + ":1"
ELSEWHERE = "another-boot:1:1"
WIDE = QueueLimits()
Submit = Callable[..., Job]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """All of this holds for both databases."""
    if request.param == "sqlite":
        yield Store(tmp_path / "data" / "jobs.sqlite3")
        return
    store = Store(request.getfixturevalue("postgres"))
    yield store
    store.connection().close()


def shift_clock(monkeypatch: pytest.MonkeyPatch, clock: str, seconds: float) -> None:
    """Stop a clock at another time than now."""
    then = getattr(time, clock)() + seconds
    monkeypatch.setattr(time, clock, lambda: then)


def test_an_order_survives_the_store(order: Order) -> None:
    odd = replace(
        order, prompt='Ä "quoted" 球\n', negative="—", seed=2**63 - 1, fps=0.1, characters=("Ana", "球")
    )
    assert parse(dump(odd)) == odd
    earlier = json.loads(dump(odd)) | {"unsupported": ""}
    del earlier["step_cache"]
    assert parse(json.dumps(earlier)) == odd  # of a data folder that another version filled


def test_a_job_goes_its_way_and_its_lease_ends_with_it(store: Store, submit: Submit) -> None:
    job = submit()
    assert job.status == "queued"
    claimed = store.claim(HERE)
    assert claimed is not None
    assert (claimed.id, claimed.status, claimed.attempts) == (job.id, "in_progress", 1)
    assert store.advance(claimed, 40)
    assert store.complete(claimed, None)
    done = store.get("local", job.id)
    assert done is not None
    assert (done.status, done.progress) == ("completed", 100)
    assert not store.complete(claimed, None)
    assert not store.fail(claimed, {"code": "x", "message": "y"})
    assert store.claim(HERE) is None


def test_the_client_of_a_lost_lease_can_write_nothing(store: Store, submit: Submit) -> None:
    submit()
    first = store.claim(GONE)
    assert first is not None
    assert store.rescue() == 1
    second = store.claim(HERE)
    assert second is not None
    assert second.lease > first.lease
    for write in (
        store.holds(first),
        store.advance(first, 99),
        store.renew(first),
        store.release(first),
        store.fail(first, {"code": "x", "message": "y"}),
        store.complete(first, None),
    ):
        assert not write
    assert store.complete(second, None)


def test_a_job_of_a_living_worker_is_left_alone_until_its_lease_ends(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit()
    assert store.claim(HERE) is not None
    assert store.rescue() == 0
    then = store.database.now() + jobs.LEASE + 1
    monkeypatch.setattr(store.database, "now", lambda: then)
    assert store.rescue() == 1


def test_a_job_that_ends_three_workers_fails(store: Store, submit: Submit) -> None:
    job = submit()
    for _ in range(ATTEMPTS):
        assert store.claim(GONE) is not None
        store.rescue()
    failed = store.get("local", job.id)
    assert failed is not None
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "worker_died"
    assert [event.type for event in store.due_events()] == ["video.failed"]


def test_a_job_given_back_has_not_used_an_attempt(store: Store, submit: Submit) -> None:
    submit()
    for _ in range(ATTEMPTS + 2):
        claimed = store.claim(HERE)
        assert claimed is not None
        assert claimed.attempts == 1
        assert store.release(claimed)


def test_one_key_one_job_even_when_eight_ask_at_once(store: Store, order: Order) -> None:
    made: list[tuple[Job, bool]] = []

    def ask() -> None:
        made.append(store.submit(Submission("a", order, "print", key="k"), WIDE))
        store.connection().close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len({job.id for job, _ in made}) == 1
    assert sum(is_new for _, is_new in made) == 1
    with pytest.raises(KeyReused):
        store.submit(Submission("a", order, "another print", key="k"), WIDE)
    assert store.submit(Submission("b", order, "another print", key="k"), WIDE)[1]


def test_a_key_is_forgotten_after_a_day(store: Store, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Submission("a", order, "print", key="k")
    first, _ = store.submit(asked, WIDE)
    shift_clock(monkeypatch, "time", jobs.KEY_WINDOW + 1)
    second, is_new = store.submit(asked, WIDE)
    assert is_new
    assert second.id != first.id


def test_a_keyless_retry_is_the_same_request_and_a_first_try_is_not(store: Store, order: Order) -> None:
    first = Submission("a", order, "print")
    retry = replace(first, is_retry=True)
    job, _ = store.submit(first, WIDE)
    assert store.submit(retry, WIDE) == (job, False)
    assert store.submit(replace(retry, fingerprint="other"), WIDE)[1]
    assert store.submit(replace(retry, tenant="b"), WIDE)[1]
    assert store.submit(first, WIDE)[1]


def test_the_queue_is_bounded_per_tenant_and_in_all(store: Store, order: Order) -> None:
    limits = QueueLimits(per_tenant=2, total=3)
    for tenant in ("a", "a", "b"):
        store.submit(Submission(tenant, order, "print"), limits)
    for tenant in ("a", "b"):
        with pytest.raises(QueueFull):
            store.submit(Submission(tenant, order, "print"), limits)
    claimed = store.claim(HERE)
    assert claimed is not None
    store.complete(claimed, None)
    assert store.submit(Submission("b", order, "print"), limits)[1]


def test_tenants_take_turns(store: Store, submit: Submit) -> None:
    flood = [submit("flood").id for _ in range(6)]
    others = [submit(name).id for name in ("x", "y")]
    served = [job for _ in range(5) if (job := store.claim(HERE)) is not None]
    assert {job.id for job in served[:3]} == {flood[0], *others}
    assert [job.id for job in served if job.tenant == "flood"] == flood[:3]


def test_a_foreign_job_is_an_unknown_one(store: Store, submit: Submit) -> None:
    job = submit("a")
    assert store.get("b", job.id) is None
    assert store.delete("b", job.id) is None
    assert store.cancel("b", job.id) is None
    assert store.page("b", job.id, 10, False) is None
    assert store.page("b", None, 10, False) == ([], False)
    still = store.get("a", job.id)
    assert still is not None
    assert still.status == "queued"


@pytest.mark.parametrize("ascending", [True, False])
def test_pages_together_are_the_whole_list(store: Store, submit: Submit, ascending: bool) -> None:
    made = [submit().id for _ in range(7)]
    submit("another")
    seen: list[str] = []
    after, has_more = None, True
    while has_more:
        found = store.page("local", after, 3, ascending)
        assert found is not None
        page, has_more = found
        seen += [job.id for job in page]
        after = seen[-1]
    assert seen == (made if ascending else made[::-1])


def test_creation_times_never_fall_even_when_the_clock_does(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submit()
    shift_clock(monkeypatch, "time", -86_400)
    assert submit().created_at >= first.created_at


def test_cancel_and_delete_end_a_running_job(store: Store, submit: Submit) -> None:
    for end in (store.cancel, store.delete):
        job = submit()
        claimed = store.claim(HERE)
        assert claimed is not None
        assert end("local", job.id) is not None
        assert not store.holds(claimed)
        assert not store.complete(claimed, None)
    assert [job.status for job in store.all_jobs(10)] == ["failed"]


def test_expired_videos_leave(store: Store, submit: Submit) -> None:
    keep, lose = submit(), submit()
    for expires in (None, 1):
        claimed = store.claim(HERE)
        assert claimed is not None
        store.complete(claimed, expires)
    assert [job.id for job in store.expire()] == [lose.id]
    assert store.get("local", keep.id) is not None
    assert store.get("local", lose.id) is None


def test_identifiers_cannot_be_guessed(submit: Submit) -> None:
    identifiers = {submit().id for _ in range(20)}
    assert len(identifiers) == 20
    assert all(len(identifier) == len("video_") + 32 for identifier in identifiers)


def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite3"
    path.write_bytes(b"This is not a database, but it is longer than a header of SQLite." * 20)
    before = path.read_bytes()
    with pytest.raises(InputError, match="cannot be used as a job store"):
        Store(path)
    assert path.read_bytes() == before


def test_who_is_gone() -> None:
    assert not is_gone(HERE)
    assert is_gone(GONE)
    assert is_gone(ELSEWHERE)
    boot, pid, started = HERE.split(":")
    assert is_gone(f"{boot}:{pid}:{int(started) - 1}")


def test_small_sizes_are_drawn_as_asked_and_large_ones_smaller() -> None:
    defaults = Defaults(width=64, height=64)
    assert drawn_size(96, 128, defaults) == (96, 128)
    width, height = drawn_size(1280, 720, defaults)
    assert (width % 16, height % 16) == (0, 0)
    assert 0.5 < width * height / 64**2 < 2
    assert width > height


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 121])
def test_lengths_out_of_range(seconds: float) -> None:
    with pytest.raises(InputError, match="seconds is"):
        whole_frames(seconds, 8.0, 120.0)


class Queue(RuleBasedStateMachine):
    """Workers that claim, finish, die, and wake up again, users that cancel and delete, in any order."""

    store: Store
    order: Order

    def __init__(self) -> None:
        super().__init__()
        for job in self.store.all_jobs(10_000):
            self.store.delete(job.tenant, job.id)
        self.made: set[str] = set()
        self.ended: set[str] = set()
        self.published: list[str] = []
        self.held: list[Job] = []

    @rule()
    def create(self) -> None:
        self.made.add(self.store.submit(Submission("local", self.order, "print"), WIDE)[0].id)

    @rule(owner=st.sampled_from([HERE, GONE]))
    def claim(self, owner: str) -> None:
        job = self.store.claim(owner)
        if job is not None:
            self.held.append(job)

    @rule()
    def rescue(self) -> None:
        self.store.rescue()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), what=st.sampled_from(["complete", "fail", "release", "advance"]))
    def work(self, data: st.DataObject, what: str) -> None:
        job = data.draw(st.sampled_from(self.held))
        match what:
            case "complete" if self.store.complete(job, None):
                self.published.append(job.id)
            case "fail":
                self.store.fail(job, {"code": "x", "message": "y"})
            case "release":
                self.store.release(job)
            case "advance":
                self.store.advance(job, 50)

    @precondition(lambda self: self.made - self.ended)
    @rule(data=st.data(), what=st.sampled_from(["cancel", "delete"]))
    def end(self, data: st.DataObject, what: str) -> None:
        identifier = data.draw(st.sampled_from(sorted(self.made - self.ended)))
        getattr(self.store, what)("local", identifier)
        if what == "delete":
            self.ended.add(identifier)

    @invariant()
    def nothing_is_lost_and_nothing_is_published_twice(self) -> None:
        rows = {job.id: job for job in self.store.all_jobs(10_000)}
        assert rows.keys() == self.made - self.ended
        assert len(self.published) == len(set(self.published))
        for job in rows.values():
            assert (job.status == "completed") == (job.id in self.published)
            assert job.attempts <= ATTEMPTS
            assert (job.error is not None) == (job.status == "failed")
        holding = [job for job in self.held if self.store.holds(job)]
        assert len({job.id for job in holding}) == len(holding)


def test_any_interleaving_keeps_the_promises(store: Store, order: Order) -> None:
    if not store.database.is_shared:
        store.connection().execute("PRAGMA synchronous = OFF")  # durability is not what is tested here
    Queue.store, Queue.order = store, order
    run_state_machine_as_test(
        Queue,
        settings=settings(
            max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_events_are_tried_until_settled(store: Store, submit: Submit) -> None:
    job = submit()
    store.cancel("local", job.id)
    (event,) = store.due_events()
    assert (event.type, event.job, event.tries) == ("video.failed", job.id, 0)
    store.settle_event(event, False, time.time() + 1000)
    assert store.due_events() == []
    store.settle_event(event, False, 0.0)
    assert store.due_events()[0].tries == 2
    store.settle_event(event, True, 0.0)
    assert store.due_events() == []


def test_errors_are_json_in_the_row(store: Store, submit: Submit) -> None:
    job = submit()
    claimed = store.claim(HERE)
    assert claimed is not None
    store.fail(claimed, {"code": "out_of_memory", "message": "ä"})
    failed = store.get("local", job.id)
    assert failed is not None
    assert json.dumps(failed.error) == json.dumps({"code": "out_of_memory", "message": "ä"})


def test_a_job_that_lost_its_worker_lets_the_others_pass(store: Store, submit: Submit) -> None:
    first, second = submit(), submit()
    taken = store.claim(GONE)
    assert taken is not None
    assert taken.id == first.id
    assert store.rescue() == 1
    order = []
    while (job := store.claim(HERE)) is not None:
        order.append(job.id)
    assert order == [second.id, first.id]
