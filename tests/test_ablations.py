"""The harness of the ablations: equal operations, intervals, the power law; one experiment from file to table."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mutoscope.config import load_config
from mutoscope.data.latents import Bucket, EncodeConfig, encode
from mutoscope.models.vae import VAE, VAEConfig
from mutoscope.weights.card import ModelCard
from mutoscope.weights.store import save_model
from mutoscope.world.render import render
from mutoscope.world.scene import View, sample_scene

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablations", ROOT / "benchmarks" / "ablations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablations"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/ablation-*.toml")), ids=lambda path: path.stem)
def test_every_arm_of_every_file_is_a_run(
    path: Path, ablations: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its changes have fields to go to, its network is built, its sets are known."""
    monkeypatch.chdir(ROOT)
    if path.stem == "ablation-base":
        assert load_config(ablations.TrainDiTConfig, path).size == "tiny"
        return
    monkeypatch.setattr(ablations, "channels_of", lambda vae: 16)
    ablation = load_config(ablations.Ablation, path)
    assert ablation.title == path.stem.removeprefix("ablation-")
    assert ablations.chosen("full", ablation.sets, ablation.clips)
    small = ["batches.buckets=[{frames=5, height=32, width=32, probability=1.0}]", "batches.tokens=80"]
    costs = []
    for arm in ablation.arms:
        config = ablations.config_of(ablation, arm, 1, Path("nowhere"), small)
        costs.append(ablations.flop_per_step(config) * config.optimizer.steps)
    if ablation.equal == "flop":
        assert max(costs) < 1.01 * min(costs)
    else:
        assert max(costs) > 50 * min(costs)


def test_the_power_law_is_found_again(ablations: ModuleType) -> None:
    compute = np.logspace(11, 14, 8)
    law = ablations.power_law(compute, 0.12 + 3e3 * compute**-0.37)
    assert law.floor == pytest.approx(0.12, rel=0.02)
    assert law.b == pytest.approx(0.37, rel=0.02)
    assert law.r2 > 0.999
    np.testing.assert_allclose(law(compute), 0.12 + 3e3 * compute**-0.37, rtol=1e-3)


def test_the_frontier_is_what_nothing_cheaper_beats(ablations: ModuleType) -> None:
    compute, loss = np.array([4.0, 1.0, 2.0, 3.0, 2.0]), np.array([0.5, 0.9, 0.6, 0.7, 0.8])
    assert ablations.frontier(compute, loss).tolist() == [1, 2, 0]


def test_intervals_know_of_seeds(ablations: ModuleType) -> None:
    """Two seeds that disagree make a wide interval, however many clips each has."""
    rng = np.random.default_rng(0)
    alike = [rng.random(400) < 0.5 for _ in range(3)]
    apart = [rng.random(400) < share for share in (0.2, 0.5, 0.8)]
    widths = []
    for by_seed in (alike, apart):
        mean, low, high = ablations.bootstrap(by_seed)
        assert low < mean < high
        assert mean == pytest.approx(0.5, abs=0.05)
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


BASE = """
latents = "{folder}/latents"
vae = "{folder}/vae"
out = "unused"
threads = 1
validate_every = 0
validation_clips = 4
sample_every = 0
tokenizer_captions = 100
dit = {{width = 32, depth = 1, heads = 2, mlp_width = 32}}
text = {{width = 32, depth = 1, heads = 2, vocab = 300}}
batches = {{tokens = 24, held_out = 4, buckets = [{{frames = 9, height = 32, width = 32, probability = 1.0}}]}}
optimizer = {{steps = 12, warmup = 0}}
"""
FILE = """
title = "two"
base = "{folder}/base.toml"
seeds = [1, 2]
sets = ["P0", "P8_16by9"]
clips = 2

[arms]
dit = []
unet = ["network=unet", "dit={{widths=[16, 16], blocks=1, heads=2}}"]
"""


@pytest.mark.slow
def test_an_experiment_from_file_to_table_and_again(
    ablations: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    vae = VAE(
        VAEConfig(quarter_width=16, eighth_width=16, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    ).eval()
    vae.fit_shortcut(render([sample_scene(seed) for seed in range(8)], View(32, 32, 9)))
    save_model(tmp_path / "vae", vae=vae, card=ModelCard(name="test"))
    encode(vae, EncodeConfig(model="", out=str(tmp_path / "latents"), buckets=(Bucket(9, 32, 32, 40),)))
    (tmp_path / "base.toml").write_text(BASE.format(folder=tmp_path))
    (tmp_path / "two.toml").write_text(FILE.format(folder=tmp_path))
    monkeypatch.setattr(sys, "argv", ["ablations", str(tmp_path / "two.toml"), "-o", str(tmp_path / "out")])
    ablations.main()
    result = json.loads((tmp_path / "out" / "two" / "result.json").read_text())
    assert list(result["arms"]) == ["dit", "unet"]
    dit, unet = result["arms"].values()
    assert unet["flop"] == pytest.approx(dit["flop"], rel=0.3)  # few steps: whole numbers of them
    assert len(dit["loss"]) == 2
    assert set(dit["scores"]) >= {"P0 all", "P0 facts", "P8_16by9 in_view"}
    assert "difference" in unet["scores"]["P0 facts"]
    assert "| unet |" in (tmp_path / "out" / "two" / "result.md").read_text()
    assert (tmp_path / "out" / "two" / "chart.svg").read_text().count("<circle") == 4
    assert (tmp_path / "out" / "two" / "success.svg").read_text().count("<circle") == 2 * 4  # arms, scores
    monkeypatch.setattr(ablations, "train_dit", lambda *_, **__: pytest.fail("it was done already"))
    ablations.main()
    assert json.loads((tmp_path / "out" / "two" / "result.json").read_text()) == result
    assert "± " in capsys.readouterr().out
