import json
from pathlib import Path

import pytest

from mutoscope.commands.worlds import world
from mutoscope.errors import InputError


def truths(folder: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text())["truth"] for path in sorted(folder.glob("*.json"))]


def test_the_mix_is_what_was_asked_for(tmp_path: Path) -> None:
    for mix in ("plain", "everything"):
        world(30, "32x32", 17, 8.0, 0, mix, tmp_path / mix, quiet=True)
    plain, everything = truths(tmp_path / "plain"), truths(tmp_path / "everything")
    assert len(plain) == len(everything) == 30
    assert not any(told["shots"] or told["camera"] != "static" for told in plain)
    assert any(told["shots"] for told in everything)
    assert any(told["camera"] != "static" for told in everything)


def test_a_mix_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="plain or everything"):
        world(1, "32x32", 17, 8.0, 0, "some", tmp_path, quiet=True)
