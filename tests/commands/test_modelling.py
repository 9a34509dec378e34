"""The verbs of models: what is listed, imported, converted, checked, removed and pulled, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mutoscope import cli, load
from mutoscope.errors import InputError
from mutoscope.weights import hub
from mutoscope.weights.convert import convert
from mutoscope.weights.hub import look, pull
from mutoscope.weights.library import import_model, installed, located
from wan_models import DIT, diffusers, randomised, write_model


@pytest.fixture(autouse=True)
def own_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for variable in hub.OFFLINE:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MUTOSCOPE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    dits = {name: diffusers().WanTransformer3DModel(**DIT) for name in ("transformer", "transformer_2")}
    told = {"_class_name": "WanPipeline", "boundary_ratio": 0.8}
    return write_model(tmp_path_factory.mktemp("wan") / "A14B", told, **dits)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["mutoscope", "models", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_an_imported_model_is_listed_found_checked_and_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wan: Path, own_library: Path
) -> None:
    assert run(monkeypatch, capsys, "import", str(wan), "--name", "twin") == (
        0,
        f"{own_library / 'twin'}\n",
        "",
    )
    code, out, _ = run(monkeypatch, capsys, "list", "--json")
    lines = {line["name"]: line for line in map(json.loads, out.splitlines())}
    assert code == 0
    assert lines["twin"]["origin"] == "imported"
    assert lines["tiny"]["origin"] == "built in"
    assert "wan2.2-t2v-a14b" in run(monkeypatch, capsys, "show", "twin")[1]
    assert run(monkeypatch, capsys, "path", "twin")[1].strip() == str((own_library / "twin").resolve())
    assert "is sound" in run(monkeypatch, capsys, "verify", "twin")[1]
    assert load("twin").card.training["family"] == "wan2.2-t2v-a14b"
    weights = own_library / "twin" / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    code, _, err = run(monkeypatch, capsys, "verify", "twin")
    assert code == 2
    assert "transformer/diffusion_pytorch_model.safetensors is not what came" in err
    assert run(monkeypatch, capsys, "rm", "twin")[0] == 0
    assert installed() == []
    assert run(monkeypatch, capsys, "rm", "twin")[0] == 2
    assert "belongs to the package" in run(monkeypatch, capsys, "rm", "tiny")[2]


def test_our_own_models_are_imported_and_checked_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, own_library: Path
) -> None:
    assert run(monkeypatch, capsys, "import", str(model_folder), "--name", "mine")[0] == 0
    assert "4 files are what came" in run(monkeypatch, capsys, "verify", "mine")[1]
    assert load("mine").card.name == "random"
    code, _, err = run(monkeypatch, capsys, "import", str(model_folder), "--name", "mine")
    assert (code, "already" in err) == (2, True)
    assert run(monkeypatch, capsys, "import", str(model_folder), "--name", "../mine")[0] == 2


def tensors_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        path.relative_to(folder).as_posix(): load_file(path) for path in sorted(folder.rglob("*.safetensors"))
    }


def test_conversion_to_our_names_and_back_keeps_every_bit(wan: Path, tmp_path: Path) -> None:
    ours = convert(wan, tmp_path / "ours", "mutoscope")
    back = convert(ours, tmp_path / "back", "diffusers")
    first, middle, last = tensors_of(wan), tensors_of(ours), tensors_of(back)
    assert first.keys() == last.keys()
    for file, tensors in first.items():
        assert tensors.keys() == last[file].keys(), file
        for key, tensor in tensors.items():
            assert tensor.dtype == last[file][key].dtype
            assert torch.equal(tensor, last[file][key]), key
    assert "blocks.0.text_attention.query.weight" in middle["transformer/diffusion_pytorch_model.safetensors"]
    for name in ("transformer", "vae", "text_encoder"):
        again = json.loads((back / name / "config.json").read_text())
        told = json.loads((wan / name / "config.json").read_text())
        shared = {key for key in again if told.get(key) is not None} - {"transformers_version"}
        assert {key: again[key] for key in shared} == {key: told[key] for key in shared}
    for one, other in zip(load(ours).dit.parameters(), load(wan).dit.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="exists"):
        convert(wan, ours, "diffusers")
    with pytest.raises(InputError, match="nowhere is neither"):
        convert(Path("nowhere"), tmp_path / "new", "diffusers")


def test_an_imported_model_is_converted_by_its_name(wan: Path, tmp_path: Path, own_library: Path) -> None:
    import_model(wan, "twin")
    assert tensors_of(convert(Path("twin"), tmp_path / "ours", "mutoscope")).keys() == tensors_of(wan).keys()


@pytest.mark.parametrize("kind", ["flf2v", "vace"])
def test_other_kinds_are_converted_too(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "vace":
        dit = diffusers().WanVACETransformer3DModel(**DIT | {"vace_layers": [0, 1], "vace_in_channels": 11})
    else:
        more = {"in_channels": 12, "image_dim": 20, "added_kv_proj_dim": 36, "pos_embed_seq_len": 34}
        dit = diffusers().WanTransformer3DModel(**DIT | more)
    folder = write_model(tmp_path / kind, {"_class_name": "X"}, transformer=randomised(dit))
    back = convert(convert(folder, tmp_path / "ours", "mutoscope"), tmp_path / "back", "diffusers")
    file = "transformer/diffusion_pytorch_model.safetensors"
    first, last = tensors_of(folder)[file], tensors_of(back)[file]
    assert first.keys() == last.keys()
    assert all(torch.equal(first[key], last[key]) for key in first)
    told, again = (
        json.loads((place / "transformer" / "config.json").read_text()) for place in (folder, back)
    )
    shared = {key for key in again if told.get(key) is not None}
    assert {key: again[key] for key in shared} == {key: told[key] for key in shared}


class FakeHub:
    """huggingface_hub with one model, a copy of a folder; `stops_after` files the line breaks."""

    def __init__(self, source: Path, stops_after: int | None = None) -> None:
        self.source, self.stops_after, self.fetched = source, stops_after, 0
        self.names = [
            path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file()
        ]

    def model_info(self, repo: str, files_metadata: bool) -> Any:
        assert files_metadata
        siblings = [
            SimpleNamespace(rfilename=name, size=(self.source / name).stat().st_size, lfs=self.large(name))
            for name in [*self.names, "bad.pth"]
            if (self.source / name).is_file()
        ]
        card = SimpleNamespace(to_dict=lambda: {"license": "apache-2.0"})
        return SimpleNamespace(sha="c0ffee" * 6, siblings=siblings, card_data=card)

    def large(self, name: str) -> Any:
        import hashlib

        data = (self.source / name).read_bytes()
        return (
            SimpleNamespace(sha256=hashlib.sha256(data).hexdigest())
            if name.endswith(".safetensors")
            else None
        )

    def snapshot_download(self, repo: str, revision: str, local_dir: Path, allow_patterns: list[str]) -> None:
        (local_dir / ".cache").mkdir(exist_ok=True)
        for name in allow_patterns:
            if (local_dir / name).is_file():
                continue
            if self.stops_after is not None and self.fetched >= self.stops_after:
                raise ConnectionError("the line broke")
            self.fetched += 1
            (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.source / name, local_dir / name)


def test_a_pulled_model_is_whole_or_none_and_a_broken_download_goes_on(wan: Path) -> None:
    broken = FakeHub(wan, stops_after=3)
    listing = look("Owner/Twin", broken)
    assert listing.licence == "apache-2.0"
    assert listing.bytes == sum((wan / name).stat().st_size for name in listing.files)
    with pytest.raises(InputError, match="a second try goes on"):
        pull(listing, hub=broken)
    assert installed() == []
    whole = FakeHub(wan)
    place = pull(listing, hub=whole)
    assert whole.fetched == len(listing.files) - 3
    assert installed() == ["Twin"]
    assert located("Twin") == place
    with pytest.raises(InputError, match="already"):
        pull(listing, hub=whole)


def test_the_licence_is_shown_and_must_be_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wan: Path
) -> None:
    monkeypatch.setattr(hub, "_hub", lambda: FakeHub(wan))
    code, out, err = run(monkeypatch, capsys, "pull", "Owner/Twin")
    assert code == 2
    assert "apache-2.0" in out
    assert "GiB in" in out
    assert "--yes" in err
    assert installed() == []
    assert run(monkeypatch, capsys, "pull", "Owner/Twin", "--yes")[0] == 0
    assert installed() == ["Twin"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = run(monkeypatch, capsys, "pull", "Owner/Other", "--yes")
    assert code == 2
    assert "HF_HUB_OFFLINE is set" in err
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "OWNER/NAME" in run(monkeypatch, capsys, "pull", "Twin")[2]
