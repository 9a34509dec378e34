"""The names that others build on, and what importing them costs."""

import subprocess
import sys

import pytest

import mutoscope

HEAVY = "{'torch', 'transformers', 'av', 'pydantic', 'rich', 'tokenizers'}"


@pytest.mark.parametrize("name", [name for name in mutoscope.__all__ if name != "__version__"])
def test_every_name_is_there(name: str) -> None:
    assert getattr(mutoscope, name).__name__ == name


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        _ = mutoscope.paint


@pytest.mark.parametrize(
    "module",
    ["mutoscope", "mutoscope.cli", "mutoscope.errors", "mutoscope.config", "mutoscope.generation.request"],
)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*({HEAVY} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_video_does_not_import_torch() -> None:
    code = "import sys, mutoscope.video; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
