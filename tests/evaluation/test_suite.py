import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.evaluation import suite
from mutoscope.evaluation.suite import (
    FRESH,
    Exam,
    Frames,
    evaluate,
    examine,
    fresh_scenes,
    prompt_of,
    score,
    stated,
    vae_facts,
)
from mutoscope.video import to_frames
from mutoscope.weights.store import load
from mutoscope.world.captions import HELD_OUT_SYNONYMS, facts, truth
from mutoscope.world.render import render
from mutoscope.world.scene import View, is_hole, sample_scene

VIEW = View(64, 64, 17)
SMALL = (Exam("P0", 12), Exam("P1", 6, holes=True))


def real_clips(prompts: Sequence[str], seeds: Sequence[int], view: View) -> list[Frames]:
    """A perfect model: it renders the scene whose seed it is given."""
    return [to_frames(video_CTHW) for video_CTHW in render([sample_scene(seed) for seed in seeds], view)]


def test_a_perfect_model_reaches_the_floor_and_another_scene_does_not() -> None:
    sets, answers, _ = examine(real_clips, VIEW, (SMALL[0],), 5)
    scores = sets["P0"]
    assert scores["all"] == scores["floor"]["all"] >= 0.9  # type: ignore[index]
    assert scores["n"] == 12
    assert scores["chance"]["all"] <= 0.2  # type: ignore[index]
    low, high = scores["intervals"]["colour"]  # type: ignore[index]
    assert low <= scores["colour"] <= high  # type: ignore[operator]
    assert sets["P0_one"]["n"] + sets["P0_two"]["n"] == len(answers) == 12  # type: ignore[operator]
    json.dumps(sets)


def test_a_blind_model_scores_nothing() -> None:
    def grey(prompts: Sequence[str], seeds: Sequence[int], view: View) -> list[Frames]:
        return [np.full((view.frames, view.height, view.width, 3), 128, np.uint8) for _ in prompts]

    sets, _, _ = examine(grey, VIEW, (SMALL[0],), 5)
    assert sets["P0"]["all"] == sets["P0"]["colour"] == sets["P0"]["count"] == 0.0


def test_prompts_state_true_facts() -> None:
    for exam in (*SMALL, Exam("P4", 12, strange_words=True)):
        for index, scene in enumerate(fresh_scenes(exam, VIEW, 2)):
            true_facts = facts(truth(scene, VIEW))
            values = {(fact.kind, fact.value) for fact in true_facts}
            told = stated(prompt_of(scene, VIEW, exam, index))
            assert {(fact.kind, fact.value) for fact in told if fact.kind != "relation"} <= values
            assert {"colour", "shape", "count"} <= {fact.kind for fact in told}


def test_exams_are_fresh_and_of_their_kind() -> None:
    scenes = fresh_scenes(Exam("P1", 20, holes=True), VIEW, 3)
    assert all(scene.seed >= FRESH for scene in scenes)
    for scene in scenes:
        things = truth(scene, VIEW).things
        assert any(is_hole(thing.colour, thing.shape, thing.direction) for thing in things)
    others = fresh_scenes(Exam("P0", 20), VIEW, 4)
    assert not {scene.seed for scene in scenes} & {scene.seed for scene in others}
    strange = Exam("P4", 20, strange_words=True)
    prompts = [prompt_of(scene, VIEW, strange, index) for index, scene in enumerate(others)]
    assert sum(any(word in prompt for word in HELD_OUT_SYNONYMS) for prompt in prompts) >= 15


def test_an_exact_codec_keeps_every_fact() -> None:
    class Exact(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def encode(self, video_BCTHW: Tensor) -> Tensor:
            return video_BCTHW

        def decode(self, latent_BCTHW: Tensor) -> Tensor:
            return latent_BCTHW + 0.02

    result = vae_facts(Exact(), VIEW, 10, seed=1)  # type: ignore[arg-type]
    assert result["psnr"] == pytest.approx(40.0, abs=0.6)
    assert result["facts"] >= 0.98
    assert result["floor"] >= 0.98
    assert result["kept_colour"] >= 0.98


def test_evaluate_writes_a_report(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(suite.SUITES, "quick", (Exam("P0", 2), Exam("P1", 1, holes=True)))
    monkeypatch.setitem(suite.VAE_CLIPS, "quick", 2)
    seen: list[tuple[int, int]] = []
    result = evaluate(
        load(model_folder), "quick", tmp_path / "out", 1, lambda done, of: seen.append((done, of))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert {"P0", "P1", "vae", "speed", "model", "date", "hardware"} <= set(result)
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert (tmp_path / "out" / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_told(tmp_path: Path, model_folder: Path) -> None:
    model = load(model_folder)
    with pytest.raises(InputError, match="choose quick or full"):
        evaluate(model, "slow", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        evaluate(model, "quick", tmp_path / "file" / "out")


def test_scores_count_facts_not_clips() -> None:
    _, answers, _ = examine(real_clips, VIEW, (Exam("P0", 6),), 5)
    scores = score(answers)
    colours = [holds for answer in answers for fact, holds in answer.verdict.items() if fact.kind == "colour"]
    assert scores["colour"] == pytest.approx(np.mean(colours))
