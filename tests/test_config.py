"""Run files: what is right comes back unchanged, what is wrong is named by file and key."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.config import from_dict, load_config, read_table, to_dict, write_atomically, write_json
from mutoscope.errors import InputError
from mutoscope.files import replacing


@dataclass(frozen=True)
class Rate:
    peak: float = 1e-3
    schedule: Literal["cosine", "linear"] = "cosine"


@dataclass(frozen=True)
class Bucket:
    size: tuple[int, int]
    weight: float = 1.0


@dataclass(frozen=True)
class Run:
    name: str
    steps: int = 100
    rate: Rate = field(default_factory=Rate)
    warm: Rate | None = None
    buckets: tuple[Bucket, ...] = ()
    strides: tuple[int, int, int] = (4, 8, 8)
    notes: dict[str, float] = field(default_factory=dict)
    crop: int | Literal["none"] = "none"
    data: Path = Path("clips")
    resume: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}; it is at least 1.")


def toml(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_toml_becomes_nested_dataclasses(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        """
        name = "a"
        strides = [1, 2, 3]
        [rate]
        peak = 1
        schedule = "linear"
        [warm]
        [[buckets]]
        size = [64, 64]
        [notes]
        x = 0.5
        """,
    )
    run = load_config(Run, path)
    assert run == Run(
        "a",
        rate=Rate(1.0, "linear"),
        warm=Rate(),
        buckets=(Bucket((64, 64)),),
        strides=(1, 2, 3),
        notes={"x": 0.5},
    )
    assert isinstance(run.data, Path)


runs = st.builds(
    Run,
    name=st.text(),
    steps=st.integers(1, 10**12),
    rate=st.builds(Rate, st.floats(allow_nan=False), st.sampled_from(["cosine", "linear"])),
    warm=st.none() | st.builds(Rate),
    buckets=st.lists(st.builds(Bucket, st.tuples(st.integers(), st.integers()))).map(tuple),
    notes=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    crop=st.just("none") | st.integers(),
    data=st.sampled_from([Path("a/b"), Path("/c d")]),
    resume=st.booleans(),
)


@settings(deadline=None)
@given(runs)
def test_round_trip_through_json(run: Run) -> None:
    assert from_dict(Run, json.loads(json.dumps(to_dict(run))), "test") == run


def test_saved_resolved_config_loads_again(tmp_path: Path) -> None:
    run = Run("ü \n", buckets=(Bucket((1, 2)),), notes={"a": float("inf")})
    assert load_config(Run, write_json(tmp_path / "run.json", run)) == run


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rate.peak=3e-4", Run("a", rate=Rate(peak=3e-4))),
        ("rate.schedule=linear", Run("a", rate=Rate(schedule="linear"))),
        ('name="b = c"', Run("b = c")),
        ("name=b=c", Run("b=c")),
        ("strides=[1, 2, 3]", Run("a", strides=(1, 2, 3))),
        ("warm.peak=2", Run("a", warm=Rate(peak=2.0))),
        ("warm=null", Run("a")),
        ("notes.k=1.5", Run("a", notes={"k": 1.5})),
        ("resume=true", Run("a", resume=True)),
        ("data=/x/y", Run("a", data=Path("/x/y"))),
        ("name=1\nsteps = 3", Run("1\nsteps = 3")),
    ],
)
def test_set_overrides_one_key(tmp_path: Path, override: str, expected: Run) -> None:
    assert load_config(Run, toml(tmp_path, 'name = "a"'), [override]) == expected


def test_later_overrides_win(tmp_path: Path) -> None:
    assert load_config(Run, toml(tmp_path, 'name = "a"'), ["steps=2", "steps=3"]).steps == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nam = 'a'", ["run.toml", "nam", "did you mean name"]),
        ("name = 'a'\n[rate]\npeek = 1", ["run.toml", "rate.peek", "did you mean rate.peak"]),
        ("name = 'a'\n[rate]\nzzz = 1", ["rate.zzz", "known: peak, schedule"]),
        ("name = 'a'\n[warm]\npeek = 1", ["warm.peek", "warm.peak"]),
        ("name = 'a'\n[[buckets]]\nsize=[1,2]\nwieght=1", ["buckets[0].wieght", "buckets[0].weight"]),
        ("steps = 1", ["name", "missing"]),
        ("name = 'a'\n[[buckets]]\nweight = 1", ["buckets[0].size", "missing"]),
        ("name = 'a'\nsteps = '3'", ["steps", "integer", '"3"']),
        ("name = 'a'\nsteps = 3.0", ["steps", "integer", "3.0"]),
        ("name = 'a'\nsteps = true", ["steps", "integer", "true"]),
        ("name = 'a'\nsteps = 0", ["steps is 0", "at least 1"]),
        ("name = 'a'\nresume = 1", ["resume", "boolean"]),
        ("name = 'a'\nstrides = [1, 2]", ["strides"]),
        ("name = 'a'\nstrides = [1, 2, 3, 4]", ["strides"]),
        ("name = 'a'\nstrides = [1, 2, 'x']", ["strides[2]", "integer"]),
        ("name = 'a'\nrate.schedule = 'cosin'", ["rate.schedule", "'cosine' or 'linear'", "cosin"]),
        ("name = 'a'\nrate = 3", ["rate", "not 3"]),
        ("name = 'a'\ncrop = 'some'", ["crop", "integer or", "'none'"]),
        ("name = 'a'\nnotes.k = 'x'", ["notes.k", "number"]),
        ("name = 'a", ["run.toml", "not valid TOML"]),
        ("name = 'a'\nname = 'b'", ["not valid TOML"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_config(Run, toml(tmp_path, text))
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rate.peek=1", ["--set rate.peek=1", "rate.peak"]),
        ("steps=x", ["--set steps=x", "integer"]),
        ("steps", ["key.key=value"]),
        ("=3", ["key.key=value"]),
        ("name.first=3", ["name is text, not a table"]),
        ("strides=[1, 2", ["--set strides=[1, 2", "not valid TOML"]),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_config(Run, toml(tmp_path, 'name = "a"'), [override])
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.json", b'{"name": "a", "name": "b"}', "occurs twice"),
        ("a.json", b"[1]", "a list"),
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b"[" * 200_000, "nested too deeply"),
        ("a.toml", b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, name: str, data: bytes, word: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=word):
        read_table(tmp_path / name)


def test_absent_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file .*none\.toml"):
        read_table(tmp_path / "none.toml")
    with pytest.raises(InputError, match="Cannot read"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="Cannot write"):
        write_json(tmp_path / "none" / "a.json", {})
    with pytest.raises(InputError, match="a folder is there"):
        write_atomically(tmp_path, b"")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomically(tmp_path / "a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="no space left"):
        write_atomically(path, b"new")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        assert partial.write_bytes(b"half") // 0
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_light_modules_leave_torch_alone() -> None:
    code = "import sys, mutoscope.config, mutoscope.files, mutoscope.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
