"""What a clip will cost is told by the same options as generate, and what does not fit is refused."""

import json
import sys
from pathlib import Path

import pytest

from mutoscope import cli
from wan_models import DIT, diffusers, write_model


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mutoscope", "plan", *words])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_the_plan_follows_size_length_and_draft(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path
) -> None:
    costs = []
    for words in (["--seconds", "30"], ["--seconds", "60"], ["--seconds", "60", "--draft", "128x72"]):
        assert (
            call(monkeypatch, "a ball", "-m", str(model_folder), "--size", "640x360", "--json", *words) == 0
        )
        costs.append(json.loads(capsys.readouterr().out))
    half, minute, drafted = costs
    assert minute["frames"] == 2 * half["frames"] == 480
    assert minute["sampling_flop"] == pytest.approx(2 * half["sampling_flop"], rel=0.05)
    assert minute["memory_bytes"] < 1.5 * half["memory_bytes"]
    assert drafted["sampling_flop"] < minute["sampling_flop"] / 10
    assert drafted["disk_bytes"] < minute["disk_bytes"]
    assert min(cost["seconds"] for cost in costs) > 0


def test_people_read_a_table_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "-m", str(model_folder), "--draft", "32x32") == 0
    out = capsys.readouterr().out
    for word in ("memory", "time", "disk", "drawn at 32x32", "are free"):
        assert word in out
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused_with_what_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path
) -> None:
    assert call(monkeypatch, "-m", str(model_folder), "--size", "8192x8192", "--frames", "99999") == 2
    assert "fits at this length" in capsys.readouterr().err
    monkeypatch.setattr("mutoscope.generation.plan.free_disk", lambda folder: 1000)
    assert call(monkeypatch, "-m", str(model_folder)) == 2
    assert "of disk" in capsys.readouterr().err


def test_a_card_is_for_models_whose_parts_take_turns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path
) -> None:
    assert call(monkeypatch, "-m", str(model_folder), "--card", "24") == 2
    assert "--card 24 is for Wan's models" in capsys.readouterr().err


def test_the_plan_of_a_wan_model_says_where_its_weights_go(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    dit = diffusers().WanTransformer3DModel(**DIT)
    folder = str(write_model(tmp_path / "T2V", {"_class_name": "WanPipeline"}, transformer=dit))
    words = ["-m", folder, "--size", "64x64", "--frames", "5"]
    assert call(monkeypatch, *words) == 0
    assert "weights  text encoder" in capsys.readouterr().out
    assert call(monkeypatch, *words, "--card", "24") == 0
    out = capsys.readouterr().out
    for word in ("bfloat16", "23.2 GiB are free", "not foretold"):
        assert word in out
    assert call(monkeypatch, *words, "--card", "24", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["weights"], told["seconds"]) == ("memory", None)
    assert call(monkeypatch, *words, "--card", "0.5") == 2
    capsys.readouterr()
    assert call(monkeypatch, *words, "--card", "24", "--weights", "int8") == 0
    assert "in 8 bits and bfloat16" in capsys.readouterr().out
    assert call(monkeypatch, *words, "--weights", "int8", "--json") == 0
    assert json.loads(capsys.readouterr().out)["weight_type"] == "int8"
    monkeypatch.setattr("mutoscope.weights.residence.chosen", lambda *_: "file")
    assert call(monkeypatch, *words) == 0
    assert "or       --weights int8 takes" in capsys.readouterr().out


def test_weights_in_8_bits_are_for_wans_transformers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path
) -> None:
    assert call(monkeypatch, "-m", str(model_folder), "--weights", "int8") == 2
    assert "has no Wan transformer" in capsys.readouterr().err
    assert call(monkeypatch, "-m", str(model_folder), "--weights", "fp8") == 2
    assert "use exact or int8" in capsys.readouterr().err
