"""A shelf over a real S3 server: what one machine sends, another brings, whole or not at all."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mutoscope.errors import InputError
from mutoscope.serving.database import Unreachable
from mutoscope.serving.jobs import Job, Store
from mutoscope.serving.objects import open_objects
from mutoscope.serving.shelf import Shelf

Submit = Callable[..., Job]


@pytest.fixture
def here(bucket: str, tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "here", open_objects(bucket))


@pytest.fixture
def there(bucket: str, tmp_path: Path) -> Shelf:
    """Another machine: another disk, the same objects."""
    return Shelf(tmp_path / "there", open_objects(bucket))


def filled(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode() * 1000)
    return folder


def test_what_one_machine_sends_another_brings(here: Shelf, there: Shelf, submit: Submit) -> None:
    job = submit()
    here.send(filled(here.attempt(job), "video.mp4", "recipe.json"))
    folder = there.bring(there.attempt(job))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: name.encode() * 1000 for name in ("video.mp4", "recipe.json")
    }
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not there.bring(there.attempt(replace(job, lease=7))).exists()


def test_a_folder_that_cannot_be_brought_whole_is_absent(
    here: Shelf, there: Shelf, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()
    here.send(filled(here.attempt(job), "video.mp4", "recipe.json"))
    assert there.objects is not None
    get, brought = type(there.objects).get, list[str]()

    def fails_at_the_second(self: object, name: str, path: Path) -> None:
        brought.append(name)
        if len(brought) == 2:
            raise Unreachable("gone")
        get(self, name, path)  # type: ignore[arg-type]

    monkeypatch.setattr(type(there.objects), "get", fails_at_the_second)
    with pytest.raises(Unreachable):
        there.bring(there.attempt(job))
    assert list(there.attempt(job).parent.iterdir()) == []
    monkeypatch.undo()
    assert len(list(there.bring(there.attempt(job)).iterdir())) == 2


def test_a_dropped_job_leaves_no_object(here: Shelf, there: Shelf, submit: Submit) -> None:
    token = here.new_inputs()
    here.send(filled(here.inputs(token), "first.png"))
    job, other = submit(inputs=token), submit()
    there.send(filled(there.attempt(job), "video.mp4"))
    there.send(filled(there.attempt(other), "video.mp4"))
    copy = there.copy_inputs(token)
    assert (there.inputs(copy) / "first.png").read_bytes() == b"first.png" * 1000
    here.drop(job)
    assert here.objects is not None
    assert here.objects.names("") == [f"videos/{other.id}/0/video.mp4"]


def test_sweeping_keeps_what_is_published_wanted_and_being_made(
    here: Shelf, there: Shelf, submit: Submit, store: Store
) -> None:
    submit()
    claimed = store.claim("boot:1:1")
    assert claimed is not None
    store.complete(claimed, None)
    token = here.new_inputs()
    waiting = submit(inputs=token)
    kept = [there.attempt(claimed), there.attempt(replace(waiting, lease=1)), there.inputs(token)]
    stray = [
        there.attempt(replace(claimed, lease=9)),
        there.root / "videos" / "video_gone" / "1",
        there.inputs("gone"),
    ]
    for folder in (*kept, *stray):
        there.send(filled(folder, "file"))
    here.sweep(store)
    assert here.objects is not None
    assert here.objects.names("") == sorted(f"{folder.relative_to(there.root)}/file" for folder in kept)


def test_two_prefixes_of_a_bucket_know_nothing_of_each_other(bucket: str, tmp_path: Path) -> None:
    one, two = open_objects(f"{bucket}/one"), open_objects(f"{bucket}/two/")
    file = filled(tmp_path, "file") / "file"
    one.put("a", file)
    assert (one.names(""), two.names("")) == (["a"], [])
    two.remove(["a", "b"])
    assert one.names("") == ["a"]


def test_more_objects_than_one_answer_holds_are_all_told_and_removed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = open_objects(bucket)
    paginator = objects.client.get_paginator
    file = filled(tmp_path, "file") / "file"
    for number in range(5):
        objects.put(f"n/{number}", file)

    def small_pages(name: str) -> object:
        pages = paginator(name)
        paginate = pages.paginate
        pages.paginate = lambda **named: paginate(**named, PaginationConfig={"PageSize": 2})
        return pages

    monkeypatch.setattr(objects.client, "get_paginator", small_pages)
    monkeypatch.setattr("mutoscope.serving.objects.AT_ONCE", 2)
    assert objects.names("n/") == [f"n/{number}" for number in range(5)]
    objects.remove(objects.names("n/"))
    assert objects.names("") == []


def test_a_bucket_that_is_not_there_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'no-such-bucket' cannot be used"):
        open_objects("s3://no-such-bucket")
    with pytest.raises(InputError, match="write s3://BUCKET"):
        open_objects("https://no-such-bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(InputError, match="cannot be used") as raised:
        open_objects(bucket)
    assert "hunter2" not in str(raised.value)


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(InputError, match=r"pip install 'mutoscope\[s3\]'"):
        open_objects("s3://videos")


def test_without_objects_nothing_is_sent(tmp_path: Path, submit: Submit) -> None:
    shelf, job = Shelf(tmp_path), submit()
    shelf.send(filled(shelf.attempt(job), "video.mp4"))
    shutil.rmtree(shelf.attempt(job))
    assert not shelf.bring(shelf.attempt(job)).exists()
