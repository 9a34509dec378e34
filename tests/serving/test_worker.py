"""A worker with a real, tiny model: it publishes whole or not at all, and stops within one step."""

import contextlib
import errno
import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.generation.request import file_sha256
from mutoscope.serving import worker
from mutoscope.serving.jobs import Job, QueueLimits, Store, Submission
from mutoscope.serving.orders import Order
from mutoscope.serving.policy import Refusal
from mutoscope.serving.processes import owner_of
from mutoscope.serving.provenance import open_authority, read_manifest, trace
from mutoscope.serving.sheet import Sheet
from mutoscope.serving.shelf import Shelf
from mutoscope.serving.worker import Heartbeat, Place, Progress, do, explain
from mutoscope.video import Video, read_recipe, read_video, write_video
from mutoscope.weights.store import Model, load

Submit = Callable[..., Job]


class NoDrain:
    """Nobody asks the worker to stop."""

    is_asked = is_over = False


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


@pytest.fixture
def place(store: Store, model: Model) -> Place:
    return Place(Shelf(store.path.parent), store, model, owner_of(os.getpid()), None)


@pytest.fixture
def run(place: Place) -> Callable[[], Job]:
    """Claim the next job, do it, return it as it is afterwards."""

    def work() -> Job:
        claimed = place.store.claim(place.owner)
        assert claimed is not None
        do(place, claimed, Progress(place, claimed, Heartbeat(place), NoDrain()))  # type: ignore[arg-type]
        done = place.store.get(claimed.tenant, claimed.id)
        assert done is not None
        return done

    return work


def test_a_job_becomes_four_files(place: Place, submit: Submit, run: Callable[[], Job]) -> None:
    submit(width=80, height=48, drawn_width=80, drawn_height=48)
    job = run()
    assert (job.status, job.error) == ("completed", None)
    folder = place.shelf.attempt(job)
    assert sorted(path.name for path in folder.iterdir()) == [
        "recipe.json",
        "spritesheet.jpg",
        "thumbnail.webp",
        "video.mp4",
    ]
    video = read_video(folder / "video.mp4")
    assert video.frames_THWC.shape == (9, 48, 80, 3)
    told = json.loads((folder / "recipe.json").read_text())
    assert told["sha256"] == file_sha256(folder / "video.mp4")
    assert read_recipe(folder / "video.mp4") == {
        key: told[key] for key in ("mutoscope", "model", "machine", "recipe", "served")
    }
    assert not place.shelf.preview(job).exists()


def test_every_attempt_makes_the_same_bytes(place: Place, submit: Submit, run: Callable[[], Job]) -> None:
    hashes = set()
    for _ in range(2):
        submit()
        hashes.add(file_sha256(place.shelf.attempt(run()) / "video.mp4"))
    assert len(hashes) == 1


def test_a_cancelled_job_stops_within_a_step_and_leaves_nothing(
    place: Place, submit: Submit, run: Callable[[], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(steps=50)
    steps: list[int] = []
    call = Progress.__call__

    def counted(self: Progress, percent: int, x0: Any) -> bool:
        steps.append(percent)
        if len(steps) == 2:
            place.store.cancel("local", self.job.id)
        return call(self, percent, x0)

    monkeypatch.setattr(Progress, "__call__", counted)
    job = run()
    assert len(steps) == 2
    assert job.error is not None
    assert job.error["code"] == "cancelled"
    assert not (place.shelf.root / "videos" / job.id).exists()


def test_a_job_given_back_while_draining_waits_again(
    place: Place, submit: Submit, run: Callable[[], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit()
    monkeypatch.setattr(NoDrain, "is_over", True)
    job = run()
    assert (job.status, job.attempts) == ("queued", 0)
    monkeypatch.setattr(NoDrain, "is_over", False)
    assert run().status == "completed"


def test_the_next_attempt_goes_on_from_the_last_step(
    place: Place, submit: Submit, run: Callable[[], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(steps=8)
    whole = file_sha256(place.shelf.attempt(run()) / "video.mp4")
    asked: list[int] = []
    dit, call = type(place.model.dit), type(place.model.dit).forward

    def counted(self: Any, *values: Any, **named: Any) -> Any:
        asked.append(1)
        if len(asked) == 6:
            monkeypatch.setattr(NoDrain, "is_over", True)
        return call(self, *values, **named)

    monkeypatch.setattr(dit, "forward", counted)
    submit(steps=8)
    job = run()
    assert (job.status, len(asked)) == ("queued", 6)
    assert list(place.shelf.steps(job).rglob("*.safetensors"))
    place.shelf.sweep(place.store)  # as a server that starts again
    monkeypatch.setattr(NoDrain, "is_over", False)
    job = run()
    assert (job.status, len(asked)) == ("completed", 8)
    assert file_sha256(place.shelf.attempt(job) / "video.mp4") == whole
    assert not place.shelf.steps(job).exists()


def test_what_a_full_disk_stops_is_told_and_made_later(
    tmp_path: Path, order: Order, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real disk of 2 MB: it fills up, the job says so, nothing half is there; when there is space, all is well."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], capture_output=True)
    if made.returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        store = Store(mount / "jobs.sqlite3")
        place = Place(
            Shelf(mount), store, model, owner_of(os.getpid()), None, open_authority(mount / "provenance")
        )
        store.submit(Submission("local", order, "print"), QueueLimits())
        store.submit(Submission("local", order, "print"), QueueLimits())
        ballast, said = mount / "ballast", list[int]()
        call = Progress.__call__

        def fill_up(self: Progress, percent: int, x0: Any) -> bool:
            said.append(percent)
            if len(said) == 2:
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while file.write(bytes(512)):
                        pass
            return call(self, percent, x0)

        monkeypatch.setattr(Progress, "__call__", fill_up)
        free = threading.Timer(3.0, ballast.unlink)
        free.start()  # somebody frees space while the worker tries to tell the store
        first, second = (_claimed_and_done(place) for _ in range(2))
        free.join()
        assert (first.status, first.error and first.error["code"]) == ("failed", "storage_full")
        assert not (mount / "videos" / first.id).exists()
        assert (second.status, second.error) == ("completed", None)
        assert sorted(path.name for path in place.shelf.attempt(second).iterdir())[-1] == "video.mp4"
        store.connection().close()
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def _claimed_and_done(place: Place) -> Job:
    claimed = place.store.claim(place.owner)
    assert claimed is not None
    do(place, claimed, Progress(place, claimed, Heartbeat(place), NoDrain()))  # type: ignore[arg-type]
    done = place.store.find(claimed.id)
    assert done is not None
    return done


def test_a_video_that_the_policy_refuses_is_never_there(
    place: Place, submit: Submit, run: Callable[[], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit()
    monkeypatch.setattr(worker, "judge", lambda *_: Refusal("moderation_blocked", "Not here."))
    job = run()
    assert job.error == {"code": "moderation_blocked", "message": "Not here."}
    assert not (place.shelf.root / "videos" / job.id).exists()


def test_what_the_worker_makes_can_be_verified(place: Place, submit: Submit) -> None:
    pytest.importorskip("c2pa")
    authority = open_authority(place.shelf.provenance)
    assert authority is not None
    place = replace(place, authority=authority)
    submit()
    source = _claimed_and_done(place)
    submit(task="remix", source=source.id)
    child = _claimed_and_done(place)
    path = place.shelf.attempt(child) / "video.mp4"
    assert {found.state for found in trace(path, authority.anchor)} == {"holds"}
    manifest = read_manifest(path, authority.anchor)
    assert manifest is not None
    assert manifest.statement["lineage"] == [{"relation": "remixed_from", "id": source.id}]


def test_an_extension_begins_with_its_source(place: Place, submit: Submit, run: Callable[[], Job]) -> None:
    token = place.shelf.new_inputs()
    frames_THWC = np.zeros((7, 48, 64, 3), np.uint8)
    frames_THWC[:, :, 20:] = (250, 30, 30)
    write_video(place.shelf.inputs(token) / "video.mp4", Video(frames_THWC, 8.0))
    size = {"width": 64, "height": 48, "drawn_width": 64, "drawn_height": 48}
    submit(task="extend", inputs=token, source_frames=7, frames=6, **size)
    job = run()
    assert job.status == "completed", job.error
    video = read_video(place.shelf.attempt(job) / "video.mp4")
    assert video.frames == 13
    assert np.abs(video.frames_THWC[:7].astype(int) - frames_THWC).mean() < 4


def test_a_first_picture_is_the_first_frame(place: Place, submit: Submit, run: Callable[[], Job]) -> None:
    token = place.shelf.new_inputs()
    picture_THWC = np.full((1, 64, 64, 3), 128, np.uint8)
    write_video(place.shelf.inputs(token) / "first.png", Video(picture_THWC, 8.0))
    submit(inputs=token, first_picture=True)
    job = run()
    assert job.status == "completed", job.error
    recipe = read_recipe(place.shelf.attempt(job) / "video.mp4")
    assert recipe is not None
    assert recipe["recipe"]["image"] == "first.png"


def test_a_large_size_is_drawn_small_and_scaled_up(
    place: Place, submit: Submit, run: Callable[[], Job]
) -> None:
    submit(width=320, height=180, drawn_width=80, drawn_height=48)
    path = place.shelf.attempt(run()) / "video.mp4"
    assert read_video(path).frames_THWC.shape[1:3] == (180, 320)
    recipe = read_recipe(path)
    assert recipe is not None
    assert recipe["served"] == {"marked": True, "upscaled_to": "320x180"}


def _disk_full() -> Exception:
    try:
        raise InputError("Cannot write x.") from OSError(errno.ENOSPC, "No space left on device")
    except InputError as error:
        return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("The size is odd."), "invalid_request"),
        (_disk_full(), "storage_full"),
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("x"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (FloatingPointError("nan"), "numerical_error"),
        (ValueError("/secret/path"), "server_error"),
    ],
)
def test_failures_are_explained_without_internals(error: Exception, code: str) -> None:
    reason = explain(error)
    assert reason["code"] == code
    assert "/secret" not in reason["message"]
    assert reason["message"].endswith(".")


@pytest.mark.parametrize("error", [FloatingPointError("nan"), OSError(errno.ENOSPC, "full"), ValueError("x")])
def test_a_failed_job_leaves_nothing_and_the_next_is_fine(
    place: Place, submit: Submit, run: Callable[[], Job], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    submit()
    submit()
    monkeypatch.setattr(worker, "make", fail)
    job = run()
    assert job.status == "failed"
    assert not (place.shelf.root / "videos" / job.id).exists()
    monkeypatch.undo()
    assert run().status == "completed"


def test_sweeping_keeps_what_is_published_and_queued(
    place: Place, submit: Submit, run: Callable[[], Job]
) -> None:
    submit()
    done = run()
    waiting = submit(inputs=place.shelf.new_inputs())
    strays = [
        place.shelf.root / "videos" / "video_gone" / "1",
        place.shelf.attempt(replace(done, lease=99)),
        place.shelf.attempt(done).with_name(".1.abc.tmp"),
        place.shelf.inputs(place.shelf.new_inputs()),
        place.shelf.new_upload(),
    ]
    for stray in strays:
        stray.mkdir(parents=True, exist_ok=True)
    place.shelf.sweep(place.store)
    assert not any(stray.exists() for stray in strays)
    assert (place.shelf.attempt(done) / "video.mp4").exists()
    assert place.shelf.inputs(waiting.order.inputs).exists()


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 17, 200])
def test_a_sheet_has_evenly_spaced_frames(frames: int) -> None:
    sheet = Sheet(frames)
    for index in range(frames):
        sheet.add(np.full((1, 8, 12, 3), index, np.uint8))
    assert len(sheet.kept) == min(frames, 16)
    shown = [int(frame[0, 0, 0]) for frame in sheet.kept]
    assert shown[0] == 0
    assert shown[-1] == frames - 1
    assert sheet.picture().shape[1] == 12 * min(4, frames)
