"""Recaptioning: the old caption stays, a stopped run goes on, bad files are told, and the new ones train a model."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mutoscope.data.latents import read_captions
from mutoscope.data.recaption import (
    State,
    as_trained,
    find_clips,
    our_writer,
    recaption,
    recaptioned,
    written_by,
)
from mutoscope.data.world_clips import write_clips
from mutoscope.errors import InputError
from mutoscope.video import Video, write_video
from mutoscope.weights.store import CaptionModel
from mutoscope.world.stage import View

NEW = {"short": "a clip", "medium": "A clip.", "detailed": "A clip. It is new."}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_clips(folder, range(5), View(32, 32, 9))
    return folder


@pytest.fixture
def clips(world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(world, tmp_path / "clips")


def write_new(videos: Sequence[Video]) -> list[dict[str, str]]:
    return [NEW for _ in videos]


def read(clip: Path) -> dict:
    return json.loads(clip.with_suffix(".json").read_text())


def test_the_original_stays_beside_the_new_caption(clips: Path) -> None:
    first = sorted(clips.glob("*.mp4"))[0]
    before = read(first)
    outcome = recaption(find_clips(clips), write_new, "test 1")
    after = read(first)
    assert outcome.written == 5
    assert after["captions"] == NEW | {"alt": before["captions"]["alt"]}
    assert after["original"] == before["captions"]
    assert after["truth"] == before["truth"]
    assert read_captions(first)["detailed"] == [NEW["detailed"]]  # what `data encode` will train on
    recaption(find_clips(clips), write_new, "test 2")
    assert read(first)["original"] == before["captions"]
    assert read(first)["recaptioned"] == {"by": "test 2"}


def test_a_stopped_run_goes_on_and_nothing_is_written_twice(clips: Path) -> None:
    seen: list[int] = []

    def stops(videos: Sequence[Video]) -> list[dict[str, str]]:
        seen.append(len(videos))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return write_new(videos)

    with pytest.raises(KeyboardInterrupt):
        recaption(find_clips(clips), stops, "test", batch=2)
    reports: list[State] = []
    outcome = recaption(find_clips(clips), write_new, "test", reports.append, batch=2)
    assert (outcome.passed, outcome.written) == (2, 3)
    assert reports[-1].total == 5
    assert reports[0].left > 0 == reports[-1].left
    assert recaption(find_clips(clips), write_new, "test").written == 0
    assert recaption(find_clips(clips), write_new, "test", again=True).written == 5


def test_bad_files_are_skipped_told_and_untouched(clips: Path) -> None:
    good, torn, odd, *_ = sorted(clips.glob("*.mp4"))
    torn.write_bytes(torn.read_bytes()[:700])
    odd.with_suffix(".json").write_text("{ not JSON")
    before = torn.with_suffix(".json").read_bytes()
    reports: list[State] = []
    outcome = recaption(find_clips(clips), write_new, "test", reports.append)
    assert outcome.written == 3
    assert torn.name in outcome.skipped[0]
    assert odd.name.replace("mp4", "json") in outcome.skipped[1]
    assert reports[0].skipped == tuple(outcome.skipped)
    assert torn.with_suffix(".json").read_bytes() == before
    assert odd.with_suffix(".json").read_text() == "{ not JSON"
    assert read(good)["recaptioned"]


def test_a_clip_that_the_writer_cannot_do_is_skipped(clips: Path) -> None:
    def picky(videos: Sequence[Video]) -> list[dict[str, str] | InputError]:
        return [InputError("too dull."), *write_new(videos[1:])]

    outcome = recaption(find_clips(clips), picky, "test")
    assert (outcome.written, len(outcome.skipped)) == (4, 1)
    assert "too dull" in outcome.skipped[0]


def test_clips_without_captions_or_with_plain_text(tmp_path: Path) -> None:
    for name in ("bare", "told"):
        write_video(tmp_path / f"{name}.mp4", Video(np.zeros((5, 32, 32, 3), np.uint8), 8.0))
    (tmp_path / "told.txt").write_text("free download my clip\n")
    recaption(find_clips(tmp_path), write_new, "test")
    assert read(tmp_path / "told.mp4")["original"] == "free download my clip"
    assert read(tmp_path / "told.mp4")["captions"]["alt"] == "free download my clip"
    assert read(tmp_path / "bare.mp4")["original"] is None
    assert "alt" not in read(tmp_path / "bare.mp4")["captions"]
    assert recaptioned({"caption": "old"}, NEW, "x") == {
        "captions": NEW | {"alt": "old"}, "original": "old", "recaptioned": {"by": "x"}
    }  # fmt: skip


def test_folders_and_manifests_name_the_same_clips(clips: Path) -> None:
    names = [path.name for path in find_clips(clips)]
    (clips / "list.txt").write_text("# mine\n" + "\n".join(names))
    (clips / "list.jsonl").write_text("\n".join(json.dumps({"path": name}) for name in names))
    assert find_clips(clips / "list.txt") == find_clips(clips / "list.jsonl") == find_clips(clips)
    (clips / "bad.jsonl").write_text('{"path": "a.mp4"}\n{"file": 1}')
    with pytest.raises(InputError, match="line 2"):
        find_clips(clips / "bad.jsonl")
    with pytest.raises(InputError, match="neither"):
        find_clips(clips / "nothing")
    (clips / "empty").mkdir()
    with pytest.raises(InputError, match="no clips"):
        find_clips(clips / "empty")
    shutil.copy(clips / names[0], clips / names[0].replace("mp4", "gif"))
    with pytest.raises(InputError, match="share"):
        find_clips(clips)


def test_our_captioner_writes_all_kinds_and_the_same_in_any_batch(clips: Path, model: CaptionModel) -> None:
    by = written_by(model)
    write_video(clips / "wide.mp4", Video(np.full((30, 40, 90, 3), 99, np.uint8), 24.0))
    recaption(find_clips(clips), our_writer(model), by, batch=4)
    first = {path.name: read(path)["captions"] for path in find_clips(clips)}
    assert all({"short", "medium", "detailed"} <= set(captions) for captions in first.values())
    recaption(find_clips(clips), our_writer(model), by, batch=1, again=True)
    assert first == {path.name: read(path)["captions"] for path in find_clips(clips)}
    assert by == "small 0123456789ab"


def test_variety_repeats_with_its_seed(clips: Path, model: CaptionModel) -> None:
    found = []
    for seed, batch in ((1, 32), (1, 2), (2, 32)):
        recaption(find_clips(clips), our_writer(model, variety=seed), "test", batch=batch, again=True)
        found.append([read(path)["captions"]["detailed"] for path in find_clips(clips)])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("frames", "width", "height", "fps", "shape"),
    [
        (9, 32, 32, 8.0, (9, 32, 32)),
        (11, 32, 32, 8.0, (9, 32, 32)),
        (1, 64, 64, 8.0, (1, 32, 32)),
        (60, 320, 180, 24.0, (17, 32, 64)),  # 20 frames at the trained rate
        (400, 32, 64, 8.0, (17, 64, 32)),  # longer than it was trained for: seen at a lower rate
        (5, 2000, 20, 8.0, (5, 32, 128)),
    ],
)
def test_any_clip_is_brought_near_to_what_was_trained(
    model: CaptionModel, frames: int, width: int, height: int, fps: float, shape: tuple[int, int, int]
) -> None:
    video = Video(np.zeros((frames, height, width, 3), np.uint8), fps)
    assert as_trained(model, video).shape == (1, 3, *shape)
