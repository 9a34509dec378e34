"""Signed manifests, sidecars and numbers in the pictures: what they say holds, and what was tampered with is told."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from mutoscope.errors import InputError
from mutoscope.serving import provenance
from mutoscope.serving.provenance import (
    Authority,
    Source,
    open_authority,
    read_manifest,
    seal,
    trace,
)
from mutoscope.video import Video, read_recipe, read_video, write_video
from mutoscope.watermark import marked, number_of_record

pytest.importorskip("c2pa")

RECORD = {
    "mutoscope": "0.1.0",
    "model": {"name": "tiny"},
    "recipe": {"prompt": "a red ball", "guidance": 3.1},
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = open_authority(tmp_path_factory.mktemp("data") / "provenance")
    assert made is not None
    return made


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """A square that moves over a slope: (17, 64, 64, 3)."""
    frames_THWC = np.empty((17, 64, 64, 3), np.uint8)
    frames_THWC[:] = np.linspace(40, 200, 64, dtype=np.uint8)[None, :, None, None]
    for index in range(17):
        frames_THWC[index, 20:40, 2 * index : 2 * index + 20] = (200, 40, 40)
    return frames_THWC


def clip(folder: Path, frames_THWC: np.ndarray) -> Path:
    """A clip as the worker leaves it before it is sealed."""
    folder.mkdir()
    pieces = list(marked([frames_THWC], 8.0, number_of_record(RECORD)))
    path = write_video(folder / "video.mp4", Video(np.concatenate(pieces), 8.0, RECORD))
    order = {"prompt": "a red ball", "seed": 7}
    (folder / "recipe.json").write_text(json.dumps({"model": RECORD["model"], "order": order}))
    return path


def states(path: Path, authority: Authority) -> dict[str, str]:
    return {finding.kind: finding.state for finding in trace(path, authority.anchor)}


def test_keys_are_made_once_and_kept_private(tmp_path: Path) -> None:
    folder = tmp_path / "provenance"
    first = open_authority(folder)
    assert first == open_authority(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.key")}
    assert modes == {"ca.key": 0o600, "signer.key": 0o600}


def test_a_sealed_clip_holds_in_every_way(tmp_path: Path, frames: np.ndarray, authority: Authority) -> None:
    path = clip(tmp_path / "a", frames)
    before = read_video(path)
    seal(path.parent, "video_1", authority)
    assert states(path, authority) == dict.fromkeys(("recipe", "sidecar", "c2pa", "watermark"), "holds")
    assert np.array_equal(read_video(path).frames_THWC, before.frames_THWC)
    assert read_recipe(path) == RECORD
    manifest = read_manifest(path, authority.anchor)
    assert manifest is not None
    assert manifest.statement["job"] == "video_1"
    assert manifest.statement["watermark"] == f"{number_of_record(RECORD):08x}"
    assert "a red ball" not in json.dumps(manifest.statement)
    assert sorted(each.name for each in path.parent.iterdir()) == ["recipe.json", "video.mp4"]


def test_strangers_see_that_it_is_unchanged(tmp_path: Path, frames: np.ndarray, authority: Authority) -> None:
    path = clip(tmp_path / "a", frames)
    seal(path.parent, "video_1", authority)
    manifest = read_manifest(path)
    assert manifest is not None
    assert (manifest.state, manifest.reasons) == ("unknown signer", ("signingCredential.untrusted",))


def test_lineage_is_in_the_manifest_and_the_sidecar(
    tmp_path: Path, frames: np.ndarray, authority: Authority
) -> None:
    parent, child = clip(tmp_path / "a", frames), clip(tmp_path / "b", frames[::-1])
    seal(parent.parent, "video_1", authority)
    sources = (
        Source("remixed_from", "video_1", parent),
        Source("extended_from", "video_gone", tmp_path / "no"),
    )
    seal(child.parent, "video_2", authority, sources)
    expected = [
        {"relation": "remixed_from", "id": "video_1"},
        {"relation": "extended_from", "id": "video_gone"},
    ]
    manifest = read_manifest(child, authority.anchor)
    assert manifest is not None
    assert (manifest.state, manifest.statement["lineage"]) == ("holds", expected)
    assert json.loads(child.with_name("recipe.json").read_text())["lineage"] == expected


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_changed_byte_is_told(
    tmp_path: Path, frames: np.ndarray, authority: Authority, place: float
) -> None:
    path = clip(tmp_path / "a", frames)
    seal(path.parent, "video_1", authority)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start + int(place * (len(data) - start))] ^= 1
    path.write_bytes(data)
    found = states(path, authority)
    assert (found["c2pa"], found["sidecar"]) == ("broken", "broken")


def test_another_recipe_is_told(tmp_path: Path, frames: np.ndarray, authority: Authority) -> None:
    path = clip(tmp_path / "a", frames)
    seal(path.parent, "video_1", authority)
    forged = {**RECORD, "recipe": {"prompt": "somebody famous"}}
    write_video(path, Video(read_video(path).frames_THWC, 8.0, forged))
    found = states(path, authority)
    assert (found["recipe"], found["c2pa"], found["watermark"]) == ("broken", "absent", "holds")


def test_the_number_outlives_the_metadata(tmp_path: Path, frames: np.ndarray, authority: Authority) -> None:
    path = clip(tmp_path / "a", frames)
    seal(path.parent, "video_1", authority)
    bare = write_video(tmp_path / "bare.mp4", Video(read_video(path).frames_THWC, 8.0), crf=24)
    assert states(bare, authority) == {
        "recipe": "absent",
        "sidecar": "absent",
        "c2pa": "absent",
        "watermark": "holds",
    }


def test_other_clips_carry_nothing(tmp_path: Path, frames: np.ndarray, authority: Authority) -> None:
    path = write_video(tmp_path / "x.mp4", Video(frames, 8.0))
    assert set(states(path, authority).values()) == {"absent"}


def test_without_the_extra_the_sidecar_remains(
    tmp_path: Path, frames: np.ndarray, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_c2pa", lambda: None)
    assert open_authority(tmp_path / "provenance") is None
    path = clip(tmp_path / "a", frames)
    seal(path.parent, "video_1", None)
    found = states(path, authority)
    assert (found["recipe"], found["sidecar"], found["c2pa"]) == ("holds", "holds", "absent")
    with pytest.raises(InputError, match="provenance"):
        read_manifest(path)


def test_a_failed_signature_leaves_the_file_as_it_was(tmp_path: Path, frames: np.ndarray) -> None:
    path = clip(tmp_path / "a", frames)
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"."):
        seal(path.parent, "video_1", Authority("no certificate", "no key", ""))
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["recipe.json", "video.mp4"]
