"""`mutoscope verify` tells by its words and its exit code what holds."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mutoscope.cli import app
from mutoscope.serving.provenance import open_authority, seal
from mutoscope.video import Video, write_video
from mutoscope.watermark import marked, number_of_record

pytest.importorskip("c2pa")

RECORD = {"model": {"name": "tiny"}, "recipe": {"seed": 1}}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    still = np.kron(rng.integers(40, 200, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    pieces = list(marked([np.repeat(still[None], 9, 0)], 8.0, number_of_record(RECORD)))
    path = write_video(tmp_path / "video.mp4", Video(np.concatenate(pieces), 8.0, RECORD))
    (tmp_path / "recipe.json").write_text(json.dumps({"model": RECORD["model"]}))
    seal(tmp_path, "video_1", open_authority(tmp_path / "data" / "provenance"))
    return path


def test_what_holds_and_what_does_not(sealed: Path, tmp_path: Path) -> None:
    arguments = ["verify", str(sealed), "--data", str(tmp_path / "data"), "--json"]
    result = CliRunner().invoke(app, arguments)
    told = json.loads(result.stdout)
    assert (result.exit_code, told["verdict"]) == (0, "holds")
    assert {each["kind"]: each["state"] for each in told["traces"]} == dict.fromkeys(
        ("recipe", "sidecar", "c2pa", "watermark"), "holds"
    )
    data = bytearray(sealed.read_bytes())
    data[-40] ^= 1
    sealed.write_bytes(data)
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, json.loads(result.stdout)["verdict"]) == (1, "broken")


def test_a_clip_without_any_trace(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mp4", Video(np.zeros((5, 32, 32, 3), np.uint8), 8.0))
    result = CliRunner().invoke(app, ["verify", str(path), "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "absent" in result.output
