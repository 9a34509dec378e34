"""The doctor tries things, tells what it found, and outlives whatever is broken."""

import pytest

from mutoscope import doctor
from mutoscope.errors import InputError


def test_every_check_has_a_finding_here() -> None:
    findings = {finding.name: finding for finding in doctor.examine()}
    assert list(findings) == list(doctor.CHECKS)
    for name in ("python", "torch", "companions", "video", "memory", "disk"):
        assert findings[name].remedy is None, findings[name]


def test_a_broken_part_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[str, str | None]:
        raise OSError("no such\nlibrary")

    def damaged() -> tuple[str, str | None]:
        raise InputError("vae.safetensors is not the file of this model.")

    monkeypatch.setattr(doctor, "CHECKS", {"one": broken, "two": damaged})
    one, two = doctor.examine()
    assert one.found == "OSError: no such library"
    assert two.found == "vae.safetensors is not the file of this model."
    assert one.remedy
    assert two.remedy


def test_a_companion_of_another_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "0.28.0")
    monkeypatch.setattr(doctor.importlib, "import_module", import_module)
    finding = doctor._guarded("companions", doctor.CHECKS["companions"])
    assert "torchvision" in finding.found
    assert finding.remedy is not None
    assert "pip uninstall torchvision" in finding.remedy
