"""Clips of the world on disk: what was rendered, with captions that `data encode` can read."""

import json
from pathlib import Path

import numpy as np
import pytest

from mutoscope.data import world_clips
from mutoscope.data.latents import KINDS, read_captions
from mutoscope.data.world_clips import write_clips
from mutoscope.errors import InputError
from mutoscope.video import read_video
from mutoscope.world.scene import EVERYTHING, View

VIEW = View(64, 48, 9, 8.0)


def test_clips_captions_and_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    monkeypatch.setattr(world_clips, "PIXELS_AT_ONCE", 2 * 64 * 48 * 9)  # two batches
    write_clips(tmp_path / "new" / "clips", range(7, 10), VIEW, heard.append)
    assert heard == [2, 3]
    names = sorted(path.name for path in (tmp_path / "new" / "clips").iterdir())
    assert names == [f"world-00000{seed}.{kind}" for seed in (7, 8, 9) for kind in ("json", "mp4")]
    for path in (tmp_path / "new" / "clips").glob("*.mp4"):
        assert read_video(path).frames_THWC.shape == (9, 48, 64, 3)
        assert list(read_captions(path)) == list(KINDS)
        beside = json.loads(path.with_suffix(".json").read_text())
        assert beside["truth"]["things"][0]["colour"]
        assert beside["seed"] == int(path.stem[-6:])


def test_the_same_seed_is_the_same_file(tmp_path: Path) -> None:
    write_clips(tmp_path / "one", [3], VIEW)
    write_clips(tmp_path / "two", [2, 3], VIEW)
    one, two = (tmp_path / folder / "world-000003.mp4" for folder in ("one", "two"))
    assert np.array_equal(read_video(one).frames_THWC, read_video(two).frames_THWC)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot make the folder"):
        write_clips(tmp_path / "file" / "clips", [1], VIEW)


def test_everything_that_the_world_can_do_is_told_on_disk(tmp_path: Path) -> None:
    write_clips(tmp_path, range(40), View(32, 32, 17), mix=EVERYTHING)
    truths = [json.loads(path.read_text())["truth"] for path in tmp_path.glob("*.json")]
    assert any(told["shots"] for told in truths)
    assert any(thing["events"] for told in truths for thing in told["things"])
