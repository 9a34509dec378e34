"""Training the judge: lessons are true, resumed equals uninterrupted bit for bit, it learns, its file is small."""

import hashlib
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.evaluation.judge import CELL, LOOKS, MOMENTS, JudgeConfig, load_judge
from mutoscope.training import train_judge as recipe
from mutoscope.training.optimizer import OptimizerConfig
from mutoscope.training.state import checkpoints
from mutoscope.training.train_judge import (
    IGNORED,
    UNSAID,
    TrainJudgeConfig,
    labels_of,
    lesson,
    made_worse,
    train_judge,
)
from mutoscope.world.facts import truth
from mutoscope.world.render import render
from mutoscope.world.scene import BACKGROUNDS, SceneMix, View, sample_scene

STEPS = 24


def config(out: Path, **change: object) -> TrainJudgeConfig:
    small = TrainJudgeConfig(
        out=str(out),
        judge=JudgeConfig(wide=8, middle=16, deep=16, deep_blocks=1),
        optimizer=OptimizerConfig(kind="adamw", adamw_lr=1e-2, steps=STEPS, warmup=2),
        clips=4,
        ema=0.8,
        threads=1,
        checkpoint_every=10,
        validate_every=0,
        validation_clips=2,
        report_clips=4,
    )
    return replace(small, **change)  # type: ignore[arg-type]


def digests(out: Path) -> dict[str, str]:
    files = [
        *checkpoints(out / "checkpoints")[-1].glob("*.safetensors"),
        out / "log.jsonl",
        out / "report.json",
    ]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("judge")
    assert train_judge(config(out)) == out / "judge.safetensors"
    return out


def test_it_learns_and_leaves_a_file_and_a_report(undisturbed: Path) -> None:
    records = [json.loads(line) for line in (undisturbed / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == STEPS
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    report = json.loads((undisturbed / "report.json").read_text())
    assert {"right", "right colour", "right count", "agree"} <= set(report)
    assert all(0 <= share <= 1 for share in report.values())
    assert load_judge(undisturbed / "judge.safetensors").config == config(undisturbed).judge


def test_stopped_and_resumed_equals_undisturbed(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = recipe.mistakes
    for stop_at in (3, 12):
        calls = iter(range(1, 1000))

        def stopping(logits, labels, calls=calls, stop_at=stop_at):  # type: ignore[no-untyped-def]
            if next(calls) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(logits, labels)

        monkeypatch.setattr(recipe, "mistakes", stopping)
        with pytest.raises(SystemExit) as exit_:
            train_judge(config(tmp_path), "auto")
        assert exit_.value.code == 75
    monkeypatch.setattr(recipe, "mistakes", original)
    train_judge(config(tmp_path), "auto")
    assert digests(tmp_path) == digests(undisturbed)


def test_labels_are_where_the_objects_are(tmp_path: Path) -> None:
    """The paint of a plain box is found in the cell that the labels name, at every aspect."""
    mix = SceneMix(objects=(1.0,), shapes=("box",), colours=("red",), backgrounds=("night",))
    for width, height in ((64, 64), (112, 64), (64, 112)):
        view = View(width, height, MOMENTS, 2.0)
        scenes = [sample_scene(seed, mix) for seed in range(4)]
        labels = labels_of([truth(scene, view) for scene in scenes], view)
        assert labels.place_BHW.shape == (4, height // CELL, width // CELL)
        assert (labels.place_BHW == 1).sum() == 4
        assert (labels.place_BHW == IGNORED).sum() >= 4 * 5
        for scene, video_CTHW, place_HW in zip(scenes, render(scenes, view), labels.place_BHW, strict=True):
            row, column = (int(i) for i in (place_HW == 1).nonzero()[0])
            red, green, blue = video_CTHW[:, MOMENTS // 2, row * CELL + 2, column * CELL + 2].tolist()
            assert red > 0.4, scene.seed
            assert max(green, blue) < 0, scene.seed
        assert labels.count_B.tolist() == [1] * 4
        assert labels.background_B.tolist() == [BACKGROUNDS.index("night")] * 4
        said = labels.looks["colour"][labels.place_BHW == 1]
        assert said.tolist() == [LOOKS["colour"].index("red")] * 4
        assert (labels.looks["colour"] == UNSAID).sum() == labels.place_BHW.numel() - 4


def test_lessons_are_a_function_of_seed_and_step(tmp_path: Path) -> None:
    settings = config(tmp_path)
    (one, labels), (same, _), (other, _) = (lesson(settings, step) for step in (1, 1, 2))
    assert torch.equal(one, same)
    assert one.shape == (4, 3 * MOMENTS, 64, 64)
    assert other.shape == (4, 3 * MOMENTS, 64, 112)
    assert labels.place_BHW.shape == (4, 16, 16)


def test_what_is_made_worse_is_still_the_clip() -> None:
    view = View(64, 64, MOMENTS, 2.0)
    video_BCTHW = render([sample_scene(seed) for seed in range(6)], view)
    worse_BCTHW = made_worse(video_BCTHW, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(made_worse(video_BCTHW, 0.0, torch.Generator()), video_BCTHW)
    far_B = (worse_BCTHW - video_BCTHW).abs().mean((1, 2, 3, 4))
    assert (far_B > 0.005).all()
    assert (far_B < 0.25).all()
    assert worse_BCTHW.abs().max() <= 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"worse": 2.0}, "worse"),
        ({"clips": 0}, "at least 1"),
        ({"mix": SceneMix(plays={"story": 1.0})}, "one shot"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        config(tmp_path, **change)
