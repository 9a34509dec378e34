"""Training the expander: resumed equals uninterrupted bit for bit, lessons ask for a part of the caption, it learns."""

import hashlib
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mutoscope.errors import InputError
from mutoscope.generation.author import read_author
from mutoscope.generation.expand import fits
from mutoscope.generation.stated import lost
from mutoscope.models.expander import ExpanderConfig
from mutoscope.training import train_expander as recipe
from mutoscope.training.optimizer import OptimizerConfig
from mutoscope.training.state import checkpoints
from mutoscope.training.train_expander import TrainExpanderConfig, fresh_lessons, lessons, train_expander
from mutoscope.world.captions import parse

STEPS = 16


def config(out: Path, **change: object) -> TrainExpanderConfig:
    small = TrainExpanderConfig(
        out=str(out),
        expander=ExpanderConfig(width=32, heads=2, decoder_depth=1, max_tokens=60),
        prompts=4,
        optimizer=OptimizerConfig(steps=STEPS, warmup=2),
        threads=1,
        checkpoint_every=5,
        validate_every=8,
        validation_prompts=2,
        report_prompts=3,
    )
    return replace(small, **change)  # type: ignore[arg-type]


def digests(out: Path) -> dict[str, str]:
    paths = [*checkpoints(out / "checkpoints")[-1].glob("*.safetensors"), out / "log.jsonl"]
    paths += (out / "model").glob("*.safetensors")
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert train_expander(config(out)) == out / "model"
    return out


def test_stopped_and_resumed_equals_undisturbed(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, loss_of = config(tmp_path / "run"), recipe.expansion_loss
    for stop_at in (3, 6):  # before and after a checkpoint of its own
        calls = iter(range(1, 100))

        def loss(*arguments: object, stop_at: int = stop_at, calls: object = calls) -> object:
            if next(calls) == stop_at:  # type: ignore[call-overload]
                os.kill(os.getpid(), signal.SIGTERM)
            return loss_of(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(recipe, "expansion_loss", loss)
        with pytest.raises(SystemExit) as exit_:
            train_expander(settings, "auto")
        assert exit_.value.code == 75
    monkeypatch.setattr(recipe, "expansion_loss", loss_of)
    train_expander(settings, "auto")
    assert digests(tmp_path / "run") == digests(undisturbed)
    with pytest.raises(InputError, match="prompts"):
        train_expander(replace(settings, prompts=5), "auto")


def test_a_finished_run_can_be_read_and_tells_what_it_is(undisturbed: Path) -> None:
    author = read_author(undisturbed / "model")
    assert isinstance(author.write("A red ball.", "medium", (0,)), str)
    record = json.loads((undisturbed / "model" / "expander.json").read_text())
    assert set(record["training"]["first draw passes"]) == {"medium", "detailed"}
    losses = [
        line["loss"]
        for line in map(json.loads, (undisturbed / "log.jsonl").read_text().splitlines())
        if "loss" in line
    ]
    assert len(losses) == STEPS
    assert sum(losses[-3:]) < sum(losses[:3]) - 1


@pytest.mark.parametrize("kind", ["medium", "detailed"])
def test_a_lesson_asks_for_a_part_of_its_caption_that_the_guard_lets_pass(tmp_path: Path, kind: str) -> None:
    taught = fresh_lessons(config(tmp_path), kind, 60)  # type: ignore[arg-type]
    passed = []
    for one in taught:
        asked, said = parse(one.source)[0], parse(one.caption)[0]
        assert lost(asked, said) == (), one
        passed.append(fits(one.caption, asked, kind))  # type: ignore[arg-type]
    assert np.mean(passed) > 0.9
    assert np.mean([len(parse(one.source)[0]) < len(parse(one.caption)[0]) for one in taught]) > 0.2


def test_a_step_is_a_pure_function_of_seed_and_number(tmp_path: Path) -> None:
    settings = config(tmp_path)
    assert lessons(settings, 3) == lessons(settings, 3)
    assert lessons(settings, 3) != lessons(settings, 4)
    assert {lessons(settings, step)[0] for step in range(9)} == {"medium", "detailed"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kinds": {}}, "kinds"),
        ({"prompts": 0}, "prompts"),
        ({"tokenizer": "huge"}, "huge"),
        ({"threads": -1}, "threads"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        train_expander(config(tmp_path, **change))
