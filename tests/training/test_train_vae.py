"""Training the VAE: it learns, it resumes bit for bit, its batches are pure, it stops before harm."""

import contextlib
import hashlib
import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.models.text import Text
from mutoscope.models.vae import VAE, VAE_PRESETS, VAEConfig
from mutoscope.training import train_vae as train_vae_module
from mutoscope.training.optimizer import OptimizerConfig
from mutoscope.training.state import checkpoints, load_checkpoint
from mutoscope.training.train_vae import (
    Bucket,
    TrainVAEConfig,
    VAELoss,
    blemishes_of_step,
    clips_of_step,
    decoder_loss,
    train_vae,
    vae_loss,
)
from mutoscope.weights.store import load, load_vae
from mutoscope.world.render import render_with_mask
from mutoscope.world.scene import View, sample_scene

SMALL = VAEConfig(quarter_width=24, eighth_width=32, encoder_blocks=(1, 1), decoder_blocks=(1, 1))


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    """A size that trains in seconds, and one thread, so that sums are added in one order."""
    monkeypatch.setitem(VAE_PRESETS, "small", SMALL)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def config(out: Path, **change) -> TrainVAEConfig:
    settings = TrainVAEConfig(
        out=str(out),
        size="small",
        buckets=(Bucket(5, 32, 32, 0.7, 3), Bucket(1, 32, 48, 0.3, 4)),
        optimizer=OptimizerConfig(
            steps=12, warmup=2, convolutions=True, adamw_lr=3e-3, muon_lr=3e-3, weight_decay=0.0
        ),
        threads=1,
        shortcut_clips=16,
        checkpoint_every=0,
        validate_every=0,
        validation_clips=4,
    )
    return replace(settings, **change)


def stop_within(monkeypatch, last: int) -> None:
    """SIGTERM arrives while the batch of step `last` is made."""
    original = clips_of_step

    def clips(settings: TrainVAEConfig, step: int, device="cpu"):
        if step == last:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(settings, step, device)

    monkeypatch.setattr(train_vae_module, "clips_of_step", clips)


def bytes_left(out: Path) -> dict[str, bytes]:
    """The last weights, averages and optimiser states, the log, the model's weights."""
    files = [*checkpoints(out / "checkpoints")[-1].glob("*.safetensors"), out / "log.jsonl"]
    return {path.name: path.read_bytes() for path in [*files, out / "model" / "vae.safetensors"]}


def test_stopped_by_a_signal_and_resumed_equals_undisturbed_bit_for_bit(tmp_path, monkeypatch):
    calm, broken = config(tmp_path / "calm"), config(tmp_path / "broken")
    train_vae(calm)
    for last in (4, 9):
        with monkeypatch.context() as patch:
            stop_within(patch, last)
            with pytest.raises(SystemExit) as stop:
                train_vae(broken, "auto")
        assert stop.value.code == 75
        assert checkpoints(tmp_path / "broken" / "checkpoints")[-1].name == f"step-{last:08d}"
    assert train_vae(broken, "auto") == tmp_path / "broken" / "model"
    assert bytes_left(tmp_path / "broken") == bytes_left(tmp_path / "calm")


def test_broken_off_between_checkpoints_and_resumed_equals_undisturbed(tmp_path, monkeypatch):
    """An exception, like a kill, leaves steps in the log that no checkpoint holds; they are run again."""
    calm, broken = config(tmp_path / "calm"), config(tmp_path / "broken", checkpoint_every=4)
    train_vae(calm)
    original = clips_of_step

    def clips(settings: TrainVAEConfig, step: int, device="cpu"):
        if step == 7:
            raise RuntimeError("power cut")
        return original(settings, step, device)

    with monkeypatch.context() as patch:
        patch.setattr(train_vae_module, "clips_of_step", clips)
        with pytest.raises(RuntimeError, match="power cut"):
            train_vae(broken)
    assert (tmp_path / "broken" / "log.jsonl").read_bytes().count(b"loss") == 6
    train_vae(broken, "auto")
    assert bytes_left(tmp_path / "broken") == bytes_left(tmp_path / "calm")


def test_it_learns_and_leaves_a_normalising_model_with_its_record(tmp_path):
    settings = config(
        tmp_path,
        buckets=(Bucket(5, 32, 32, 1.0, 6),),
        optimizer=OptimizerConfig(
            steps=100, warmup=4, convolutions=True, adamw_lr=5e-3, muon_lr=5e-3, weight_decay=0.0
        ),
        validate_every=50,
        ema=0.8,
    )
    folder = train_vae(settings)
    vae = load_vae(folder)
    clips, mask = render_with_mask([sample_scene(2**42 + i) for i in range(24)], View(32, 32, 5))
    linear = VAE(SMALL)
    linear.fit_shortcut(train_vae_module.fresh_clips(settings, settings.buckets[0], 0, 16))
    with torch.no_grad():
        before = vae_loss(linear, clips, mask, settings, 1)
        after = vae_loss(vae, clips, mask, settings, 1)
    assert after < 0.95 * before
    values = vae.encode(clips).transpose(0, 1).flatten(1)
    assert values.mean(1).abs().max() < 0.35
    assert (values.std(1) - 1).abs().max() < 0.35

    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == list(range(1, 101))
    psnr = [record["psnr 32x32x5"] for record in records if "psnr 32x32x5" in record]
    assert psnr[-1] > psnr[0]
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {
        "step-00000050.png",
        "step-00000100.png",
    }
    assert (tmp_path / "loss.png").stat().st_size > 1000
    record = json.loads((folder / "model.json").read_text())["card"]["training"]
    assert record["steps"] == 100
    assert record["validation"] == {"psnr 32x32x5": psnr[-1]}
    assert 1 <= record["motion"] < 5


def test_a_batch_is_a_function_of_seed_and_step(tmp_path):
    settings = config(tmp_path)
    first, again = clips_of_step(settings, 3), clips_of_step(settings, 3)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    shapes = {tuple(clips_of_step(settings, step)[0].shape) for step in range(12)}
    assert shapes == {(3, 3, 5, 32, 32), (4, 3, 1, 32, 48)}
    assert not torch.equal(
        render_of(settings, 3, seed=0),
        render_of(settings, 3, seed=1),
    )


def render_of(settings: TrainVAEConfig, step: int, seed: int) -> torch.Tensor:
    one_shape = replace(settings, buckets=settings.buckets[:1], seed=seed)
    return clips_of_step(one_shape, step)[0]


def test_objects_weigh_more_than_background(tmp_path):
    torch.manual_seed(0)
    vae = VAE(SMALL)
    video, mask = clips_of_step(config(tmp_path, buckets=(Bucket(5, 32, 32, 1.0, 3),)), 1)
    plain, heavy = VAELoss(l1=1, mse=0, gradient=0, kl=0, objects=1), VAELoss(1, 0, 0, 0, objects=5)
    with torch.no_grad():
        base = vae_loss(vae, video, mask, config(tmp_path, loss=plain), 1)
        everywhere = vae_loss(vae, video, torch.ones_like(mask), config(tmp_path, loss=heavy), 1)
        objects = vae_loss(vae, video, mask, config(tmp_path, loss=heavy), 1)
    assert everywhere == pytest.approx(5 * base.item(), rel=1e-5)
    assert base < objects < everywhere


def test_a_sitting_that_is_over_saves_and_the_run_goes_on(tmp_path):
    calm, short = config(tmp_path / "calm"), config(tmp_path / "short", minutes=1e-9)
    train_vae(calm)
    sittings = 0
    while not (tmp_path / "short" / "model").exists():
        sittings += 1
        with contextlib.suppress(SystemExit):
            train_vae(short, "auto")
    assert sittings == calm.optimizer.steps
    assert bytes_left(tmp_path / "short") == bytes_left(tmp_path / "calm")


def test_a_run_of_an_older_program_goes_on(tmp_path, monkeypatch):
    """Its checkpoints do not know the fields that came later."""
    settings = config(tmp_path)
    with monkeypatch.context() as patch:
        stop_within(patch, 4)
        with pytest.raises(SystemExit):
            train_vae(settings)
    forget(checkpoints(tmp_path / "checkpoints")[-1], ("device", "minutes"))
    train_vae(settings, "auto")


def forget(checkpoint: Path, fields: tuple[str, ...]) -> None:
    state = json.loads((checkpoint / "state.json").read_bytes())
    for name in fields:
        del state["meta"]["config"][name]
    data = json.dumps(state).encode()
    (checkpoint / "state.json").write_bytes(data)
    manifest = json.loads((checkpoint / "manifest.json").read_bytes())
    manifest["sha256"]["state.json"] = hashlib.sha256(data).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match='set device = "cpu"'):
        train_vae(config(tmp_path, device="cuda"))


def test_not_a_number_stops_before_the_update(tmp_path, monkeypatch):
    original = clips_of_step

    def poisoned(settings: TrainVAEConfig, step: int, device="cpu"):
        video, mask = original(settings, step, device)
        return (video * math.nan if step == 5 else video), mask

    settings = config(tmp_path, checkpoint_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(train_vae_module, "clips_of_step", poisoned)
        with pytest.raises(FloatingPointError, match="step 5"):
            train_vae(settings)
    saved = checkpoints(tmp_path / "checkpoints")[-1]
    assert saved.name == "step-00000004"
    assert all(weight.isfinite().all() for weight in load_checkpoint(saved)[0]["vae"].values())
    train_vae(settings, "auto")


def test_mistakes_are_named(tmp_path):
    with pytest.raises(InputError, match="enormous"):
        config(tmp_path, size="enormous")
    with pytest.raises(InputError, match="buckets"):
        config(tmp_path, buckets=())
    train_vae(config(tmp_path, optimizer=OptimizerConfig(steps=2, warmup=0)))
    with pytest.raises(InputError, match="--resume auto"):
        train_vae(config(tmp_path))
    with pytest.raises(InputError, match="seed"):
        train_vae(config(tmp_path, seed=5), "auto")


@pytest.mark.parametrize("shape", [(4, 32, 32), (5, 30, 32), (5, 32, 0)])
def test_a_bucket_off_the_grid_is_refused_before_anything_is_rendered(tmp_path, shape):
    with pytest.raises(InputError, match=f"{shape[2]}x{shape[1]}x{shape[0]}"):
        config(tmp_path, buckets=(Bucket(*shape, 1.0, 2),))


@pytest.mark.parametrize(("level", "blemishes"), [(0.0, 0.0), (0.4, 0.05)])
def test_the_decoder_alone_learns_and_latents_stay(
    tmp_path: Path, model_folder: Path, level: float, blemishes: float
) -> None:
    before = load_vae(model_folder, "cpu")
    settings = config(
        tmp_path,
        buckets=(Bucket(5, 32, 32, 1.0, 3),),
        decoder_of=str(model_folder),
        denoise_from=level,
        blemishes=blemishes,
        loss=VAELoss(change=0.5),
        validate_every=4,
        ema=0.5,
    )
    after = load_vae(train_vae(settings), "cpu")
    clips, _ = clips_of_step(settings, 99)
    with torch.no_grad():
        assert torch.equal(before.encode(clips), after.encode(clips))
        drawn, redrawn = (vae.decode(before.encode(clips)) for vae in (before, after))
    assert (redrawn - clips).square().mean() < (drawn - clips).square().mean()


def test_a_decoder_is_shown_what_the_dit_makes_of_its_captions(tmp_path: Path, model_folder: Path) -> None:
    model = load(model_folder, "cpu")
    settings = config(tmp_path, buckets=(Bucket(5, 32, 32, 1.0, 3),), decoder_of=str(model_folder))
    clips, mask = clips_of_step(settings, 1)
    with torch.no_grad():
        clean, mended = (
            decoder_loss(model, clips, mask, replace(settings, denoise_from=level), 1).item()
            for level in (0.0, 0.4)
        )
        other = decoder_loss(
            replace(model, text=spoken_over(model.text)), clips, mask, replace(settings, denoise_from=0.4), 1
        ).item()
    assert clean != mended
    assert other != mended


def test_blemishes_are_those_of_positions_and_patches(tmp_path: Path, model_folder: Path) -> None:
    model = load(model_folder, "cpu")
    settings = config(tmp_path, decoder_of=str(model_folder), blemishes=0.3)
    like = torch.zeros(40, 16, 4, 5, 6)  # five rows: the last patches are cut
    found = blemishes_of_step(like, model, settings, 1)
    assert found.shape == like.shape
    sizes = found.flatten(1).std(1)
    torch.testing.assert_close(sizes, torch.linspace(0, 0.3, 41)[1:], rtol=0.2, atol=0.01)
    unit = found / sizes[:, None, None, None, None]
    inside, across = (unit[..., i] * unit[..., i + 1] for i in (0, 1))
    later = unit[:, :, 0] * unit[:, :, 2]
    assert inside.mean() == pytest.approx(2 / 3, abs=0.05)  # of the variance is the patch's
    assert across.mean() == pytest.approx(0, abs=0.05)
    assert later.mean() == pytest.approx(1 / 3, abs=0.05)  # lasts
    assert not torch.equal(found, blemishes_of_step(like, model, settings, 2))
    assert torch.equal(found, blemishes_of_step(like, model, settings, 1))


def spoken_over(text: Text) -> Callable[[Sequence[str]], tuple[torch.Tensor, torch.Tensor]]:
    """A text encoder that hears the same words whatever it is told."""
    return lambda prompts: text(["a red ball"] * len(prompts))


def test_a_level_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"denoise_from is 0\.4"):
        config(tmp_path, denoise_from=0.4)


def test_blemishes_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"blemishes is 0\.1"):
        config(tmp_path, blemishes=0.1)
