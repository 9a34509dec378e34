"""Training: killed and resumed equals uninterrupted bit for bit; it learns; it stops before harm and on
signals.
"""

import hashlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mutoscope.data.batches import BatchConfig, Batches, ConditionMix, Share
from mutoscope.data.latents import Bucket, EncodeConfig, encode
from mutoscope.data.world_latents import WorldData
from mutoscope.diffusion.process import Process
from mutoscope.errors import InputError
from mutoscope.generation.generate import generate
from mutoscope.generation.request import Request
from mutoscope.models.vae import VAE, VAEConfig
from mutoscope.training.optimizer import OptimizerConfig
from mutoscope.training.parallel import Ranks
from mutoscope.training.state import checkpoints, load_checkpoint
from mutoscope.training.train_dit import TrainDiTConfig, begin, train_dit
from mutoscope.weights.card import ModelCard
from mutoscope.weights.store import load, save_model
from mutoscope.world.render import render
from mutoscope.world.scene import View, sample_scene

STEPS = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with a small VAE and its latents of small world clips."""
    folder = tmp_path_factory.mktemp("data")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    vae = VAE(
        VAEConfig(quarter_width=16, eighth_width=16, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    ).eval()
    vae.fit_shortcut(render([sample_scene(seed) for seed in range(16)], View(32, 32, 9)))
    save_model(folder / "vae", vae=vae, card=ModelCard(name="test"))
    buckets = (Bucket(9, 32, 32, 60), Bucket(1, 32, 48, 40))
    encode(vae, EncodeConfig(model="", out=str(folder / "latents"), buckets=buckets))
    return folder


def config(data: Path, out: Path, **change) -> TrainDiTConfig:
    small = TrainDiTConfig(
        latents=str(data / "latents"),
        vae=str(data / "vae"),
        out=str(out),
        batches=BatchConfig(buckets=(Share(9, 32, 32, 0.7), Share(1, 32, 48, 0.3)), tokens=48, held_out=4),
        dit={"width": 32, "depth": 2, "heads": 2, "mlp_width": 64},
        text={"width": 32, "depth": 1, "heads": 2, "vocab": 300},
        optimizer=OptimizerConfig(steps=STEPS, warmup=4),
        threads=1,
        tokenizer_captions=200,
        checkpoint_every=6,
        validate_every=10,
        validation_clips=4,
        sample_every=0,
    )
    return replace(small, **change)


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of the last weights, averages, optimiser states, of the log and of the model's weights."""
    files = [*checkpoints(out / "checkpoints")[-1].glob("*.safetensors"), out / "log.jsonl"]
    files += (out / "model").glob("*.safetensors")
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert train_dit(config(data, out)) == out / "model"
    return out


FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["mutoscope.training.train_dit"])


def start(settings: TrainDiTConfig) -> multiprocessing.process.BaseProcess:
    """train_dit in a process of its own (forked from one that has torch imported already)."""
    process = FORKSERVER.Process(target=train_dit, args=(settings, "auto"))
    process.start()
    return process


def steps_done(out: Path) -> int:
    return (out / "log.jsonl").read_bytes().count(b'"loss"') if (out / "log.jsonl").exists() else 0


def killed_and_resumed(settings: TrainDiTConfig, kills: int, seed: int) -> int:
    """Train with `kills` SIGKILLs at random moments, mostly near a checkpoint; returns how many hit."""
    choose, out, hits = random.Random(seed), Path(settings.out), 0
    for number in range(kills):
        done = steps_done(out)
        process = start(settings)
        # Spread over the run, so that every sitting makes progress and dies.
        target = max(done, round((number + choose.random()) * settings.optimizer.steps / (kills + 1)))
        deadline = time.monotonic() + 120
        while process.is_alive() and steps_done(out) < target and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(choose.uniform(0, 0.05))
        process.kill()
        process.join()
        hits += process.exitcode == -signal.SIGKILL
    process = start(settings)
    process.join()
    assert process.exitcode == 0
    return hits


def test_killed_three_times_equals_undisturbed(data, undisturbed, tmp_path):
    assert killed_and_resumed(config(data, tmp_path / "run"), kills=3, seed=0) == 3
    assert digests(tmp_path / "run") == digests(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_twenty_times_equals_undisturbed(data, tmp_path, precision):
    steps = OptimizerConfig(steps=120, warmup=4)
    settings = config(data, tmp_path / "calm", checkpoint_every=3, optimizer=steps, precision=precision)
    train_dit(settings)
    hits = killed_and_resumed(replace(settings, out=str(tmp_path / "run")), kills=20, seed=1)
    assert hits >= 19
    assert digests(tmp_path / "run") == digests(tmp_path / "calm")
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert all(name.startswith("step-") for name in names)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_75_and_the_run_goes_on(data, undisturbed, tmp_path, number):
    settings = config(data, tmp_path, checkpoint_every=0)
    process = start(settings)
    while process.is_alive() and steps_done(tmp_path) < 7:
        time.sleep(0.002)
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == 75
    saved = checkpoints(tmp_path / "checkpoints")
    assert 7 <= int(saved[-1].name[5:]) < STEPS
    train_dit(settings, "auto")
    assert digests(tmp_path) == digests(undisturbed)


def test_a_damaged_checkpoint_is_passed_over(data, undisturbed, tmp_path, capsys):
    settings = config(data, tmp_path)
    with pytest.raises(SystemExit):
        train_dit_until(settings, 20)
    newest = checkpoints(tmp_path / "checkpoints")[-1] / "dit.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3] + b"rot")
    train_dit(settings, "auto")
    assert "damaged" in capsys.readouterr().err
    assert digests(tmp_path) == digests(undisturbed)


def train_dit_until(settings: TrainDiTConfig, last: int) -> None:
    """Train in this process; SIGTERM comes within step `last`."""
    original = Batches.groups

    def groups(self, step):
        if step == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "groups", groups)
        train_dit(settings)


def test_not_a_number_stops_before_the_update(data, tmp_path, monkeypatch):
    settings, original = config(data, tmp_path, checkpoint_every=1), Batches.groups

    def poisoned(self, step):
        groups = original(self, step)
        if step == 5:
            groups[0].latent_BCTHW[0, 0, 0, 0, 0] = math.nan
        return groups

    monkeypatch.setattr(Batches, "groups", poisoned)
    with pytest.raises(FloatingPointError, match=r"step 5: .*not finite"):
        train_dit(settings)
    saved = checkpoints(tmp_path / "checkpoints")[-1]
    assert saved.name == "step-00000004"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(saved / "dit.safetensors").values())
    assert steps_done(tmp_path) == 4
    monkeypatch.undo()
    train_dit(settings, "auto")


@pytest.mark.parametrize(
    ("process", "precision"),
    [(Process(), "bf16"), (Process(path="vp", prediction="epsilon"), "fp32")],
    ids=["flow", "epsilon"],
)
def test_it_learns_and_leaves_a_model_with_pictures_and_record(data, tmp_path, process, precision):
    settings = config(
        data,
        tmp_path,
        process=process,
        precision=precision,
        optimizer=OptimizerConfig(steps=60, warmup=4, muon_lr=5e-3, adamw_lr=5e-3),
        batches=BatchConfig(
            buckets=(Share(9, 32, 32, 1.0),),
            tokens=192,
            held_out=4,
            conditions=ConditionMix(text=1, first=0.2),
        ),
        ema=0.9,
        sample_every=30,
        sample_steps=2,
    )
    folder = train_dit(settings)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in log if "loss" in record]
    validation = [record["val 32x32x9"] for record in log if "val 32x32x9" in record]
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert validation[-1] < validation[0]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "step-00000030.png",
        "step-00000060.png",
    ]
    assert (tmp_path / "loss.png").stat().st_size > 1000
    speed = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert 0 < speed[-1]["share_of_matmul"] < 1
    model = load(folder)
    assert model.process == process
    assert model.card.training["steps"] == 60
    assert model.card.training["validation"]["val 32x32x9"] == validation[-1]
    average = load_checkpoint(checkpoints(tmp_path / "checkpoints")[-1])[0]["ema"]["average"]
    assert torch.equal(model.dit.head.weight, average["dit.head.weight"])
    text_BLD, mask_BL = model.text(["a red ball", ""])
    assert (
        model.dit(torch.zeros(2, 16, 3, 4, 4), torch.tensor([500.0, 20.0]), text_BLD, mask_BL)
        .isfinite()
        .all()
    )


def test_fine_tuning_starts_from_the_weights_given(data, undisturbed, tmp_path):
    settings = config(data, tmp_path, init_from=str(undisturbed / "model"), checkpoint_every=1)
    quiet = replace(
        settings, optimizer=OptimizerConfig(steps=2, warmup=0, muon_lr=1e-9, adamw_lr=1e-9), ema=0.0
    )
    before, after = load(undisturbed / "model"), load(train_dit(quiet))
    assert before.text.tokenizer.to_str() == after.text.tokenizer.to_str()
    for old, new in zip(before.dit.parameters(), after.dit.parameters(), strict=True):
        assert torch.allclose(old, new, atol=1e-6)


def test_a_sitting_that_is_over_saves_and_the_run_goes_on(data, undisturbed, tmp_path, capsys):
    settings = config(data, tmp_path, minutes=1e-9, checkpoint_every=0)
    for sitting in range(3):
        with pytest.raises(SystemExit) as stop:
            train_dit(settings, "auto")
        assert stop.value.code == 75
        assert checkpoints(tmp_path / "checkpoints")[-1].name == f"step-{sitting + 1:08d}"
    train_dit(replace(settings, minutes=0.0), "auto")
    assert digests(tmp_path) == digests(undisturbed)


def test_a_run_of_an_older_program_goes_on(data, undisturbed, tmp_path):
    """Its checkpoints do not know the fields that came later; at their defaults they change nothing."""
    settings = config(data, tmp_path)
    with pytest.raises(SystemExit):
        train_dit_until(settings, 9)
    forget(checkpoints(tmp_path / "checkpoints")[-1], ("world", "device", "compile", "minutes"))
    with pytest.raises(InputError, match="world"):
        train_dit(replace(settings, world=WorldData(seed=9)), "auto")
    train_dit(settings, "auto")
    assert digests(tmp_path) == digests(undisturbed)


def forget(checkpoint: Path, fields: tuple[str, ...]) -> None:
    state = json.loads((checkpoint / "state.json").read_bytes())
    for name in fields:
        del state["meta"]["config"][name]
    content = json.dumps(state).encode()
    (checkpoint / "state.json").write_bytes(content)
    manifest = json.loads((checkpoint / "manifest.json").read_bytes())
    manifest["sha256"]["state.json"] = hashlib.sha256(content).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_the_world_as_source_is_resumed_bit_for_bit(data, tmp_path):
    change = {"latents": "world", "world": WorldData(clips=500, batch=4), "checkpoint_every": 0}
    steps = OptimizerConfig(steps=12, warmup=2)
    calm = config(data, tmp_path / "calm", optimizer=steps, **change)
    train_dit(calm)
    broken = replace(calm, out=str(tmp_path / "broken"))
    with pytest.raises(SystemExit):
        train_dit_until(broken, 5)
    train_dit(broken, "auto")
    assert digests(tmp_path / "broken") == digests(tmp_path / "calm")
    assert load(tmp_path / "calm" / "model").card.training["latents"]["vae_sha256"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named(data, tmp_path):
    with pytest.raises(InputError, match='set device = "cpu"'):
        train_dit(config(data, tmp_path, device="cuda"))


def test_mistakes_are_named(data, undisturbed, tmp_path):
    with pytest.raises(InputError, match="--resume auto"):
        train_dit(config(data, undisturbed))
    with pytest.raises(InputError, match=r"seed was 0, is 5"):
        train_dit(config(data, undisturbed, seed=5), "auto")
    with pytest.raises(InputError, match="wdith"):
        train_dit(config(data, tmp_path, dit={"wdith": 8}))
    with pytest.raises(InputError, match="64x64x17"):
        train_dit(config(data, tmp_path, batches=BatchConfig(buckets=(Share(17, 64, 64, 1.0),))))
    with pytest.raises(InputError, match="enormous"):
        config(data, tmp_path, size="enormous")
    with pytest.raises(InputError, match="nowhere"):
        train_dit(config(data, tmp_path, vae="nowhere"))
    with pytest.raises(InputError, match="not a usable checkpoint"):
        train_dit(config(data, tmp_path), str(tmp_path / "none"))


def test_a_unet_trains_alone_and_draws(data: Path, tmp_path: Path) -> None:
    unet = {"widths": (32, 32), "blocks": 1, "heads": 2}
    settings = config(
        data, tmp_path / "run", network="unet", dit=unet, optimizer=OptimizerConfig(3, warmup=1)
    )
    with pytest.raises(InputError, match="U-Net trains in one process"):
        begin(settings, Ranks(0, 2), None)
    model = load(train_dit(settings))
    video = generate(model, Request("a red ball", 32, 32, 9, steps=2))
    assert video.frames_THWC.shape == (9, 32, 32, 3)
    assert np.ptp(video.frames_THWC) > 0


def test_a_final_convolution_is_added_to_trained_weights_and_nothing_else_is(
    data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    settings = config(data, tmp_path / "run", init_from=str(undisturbed / "model"), dit={"final_hidden": 8})
    settings = replace(settings, optimizer=OptimizerConfig(3, warmup=1))
    run = begin(settings, Ranks(), None)
    trained = load(undisturbed / "model").dit
    latent, words = torch.randn(1, 16, 3, 4, 4), torch.randn(1, 4, 32)
    with torch.no_grad():
        assert torch.equal(
            run.dit(latent, torch.tensor([300.0]), words), trained(latent, torch.tensor([300.0]), words)
        )
    run.close()
    shutil.rmtree(tmp_path / "run")
    assert load(train_dit(settings)).dit.final is not None
    with pytest.raises(InputError, match="only final_hidden may be added"):
        begin(replace(settings, out=str(tmp_path / "other"), dit={"width": 64}), Ranks(), None)
