"""The house keeps its shape: the README's file map is the tree, inner packages are empty, versions agree."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import mutoscope

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mutoscope"
BANNED = re.compile(r"(Manager|Factory|Registry|Handler|Helper|Base|Mixin|Utils|Common|Core)$")


def modules() -> list[Path]:
    return sorted(
        path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent == PACKAGE
    )


def test_readme_maps_every_file_once() -> None:
    text = (ROOT / "README.md").read_text()
    mapped = re.findall(r"^\| `([\w/]+\.py)` \|", text, flags=re.MULTILINE)
    assert sorted(mapped) == sorted(str(path.relative_to(PACKAGE)) for path in modules())


def test_inner_packages_are_empty() -> None:
    inner = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    assert inner
    assert [path for path in inner if path.read_text().strip()] == []


def test_no_two_files_share_a_name() -> None:
    names = [path.name for path in modules()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_classes_are_named_after_things(path: Path) -> None:
    classes = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if BANNED.search(name)] == []


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert project == mutoscope.__version__ == newest.group(1)


def test_constraints_pin_torch() -> None:
    assert re.search(r"^torch==\d", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
