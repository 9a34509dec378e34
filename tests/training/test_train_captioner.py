"""Training the captioner: resumed equals uninterrupted bit for bit, shares of labels are nested, it learns."""

import hashlib
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mutoscope.data.latents import Bucket, EncodeConfig, Latents, encode
from mutoscope.errors import InputError
from mutoscope.models.vae import VAE, VAEConfig
from mutoscope.training import train_captioner as recipe
from mutoscope.training.optimizer import OptimizerConfig
from mutoscope.training.state import checkpoints
from mutoscope.training.train_captioner import Lessons, TrainCaptionerConfig, train_captioner
from mutoscope.weights.card import ModelCard
from mutoscope.weights.store import load_captioner, read_card, save_model
from mutoscope.world.render import render
from mutoscope.world.scene import View, sample_scene

STEPS = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def config(data: Path, out: Path, **change: object) -> TrainCaptionerConfig:
    small = TrainCaptionerConfig(
        latents=str(data / "latents"),
        vae=str(data / "vae"),
        out=str(out),
        labelled=0.5,
        captioner={
            "width": 32,
            "heads": 2,
            "encoder_depth": 1,
            "decoder_depth": 1,
            "vocab": 300,
            "max_tokens": 40,
        },
        clips=4,
        held_out=4,
        optimizer=OptimizerConfig(steps=STEPS, warmup=2),
        threads=1,
        checkpoint_every=5,
        validate_every=6,
        validation_clips=2,
        report_clips=2,
    )
    return replace(small, **change)  # type: ignore[arg-type]


def digests(out: Path) -> dict[str, str]:
    files = [*checkpoints(out / "checkpoints")[-1].glob("*.safetensors"), out / "log.jsonl"]
    files += (out / "model").glob("*.safetensors")
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert train_captioner(config(data, out)) == out / "model"
    return out


def test_stopped_and_resumed_equals_undisturbed(
    data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, loss_of = config(data, tmp_path / "run"), recipe.caption_loss
    for stop_at in (3, 12):  # before and after a checkpoint of its own
        monkeypatch.setattr(recipe, "caption_loss", _stopping(loss_of, stop_at))
        with pytest.raises(SystemExit) as exit_:
            train_captioner(settings, "auto")
        assert exit_.value.code == 75
    monkeypatch.setattr(recipe, "caption_loss", loss_of)
    train_captioner(settings, "auto")
    assert digests(tmp_path / "run") == digests(undisturbed)


def _stopping(loss_of, calls):
    """The loss, with a SIGTERM to this process at one of its calls."""
    count = 0

    def loss(*arguments):
        nonlocal count
        count += 1
        if count == calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss_of(*arguments)

    return loss


def test_a_finished_run_tells_what_it_made(undisturbed: Path) -> None:
    card = read_card(undisturbed / "model")
    assert card.training["labelled_clips"] == 46  # half of 60 - 4 and of 40 - 4
    assert card.defaults.frames == 9
    assert "camera" in card.training["cannot_know"]
    assert set(card.training["report"]) == {"in-range", "held-out"}
    assert card.training["report"] == json.loads((undisturbed / "report.json").read_text())
    records = [json.loads(line) for line in (undisturbed / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == STEPS
    assert sum(losses[-4:]) < sum(losses[:4]) - 1
    assert {"val 32x32x9", "facts 32x32x9", "val 48x32x1"} <= set(records[-1])
    model = load_captioner(undisturbed / "model", "cpu")
    (text,) = model.narrator(torch.zeros(1, 16, 3, 4, 4), "short")
    assert isinstance(text, str)


def test_a_run_starts_from_another_ones_captioner(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    few = OptimizerConfig(steps=2, warmup=1)
    settings = config(
        data, tmp_path / "run", init_from=str(undisturbed / "model"), captioner={}, optimizer=few, ema=0.0
    )
    train_captioner(settings)
    before, after = (load_captioner(out / "model", "cpu").narrator for out in (undisturbed, tmp_path / "run"))
    assert after.tokenizer.to_str() == before.tokenizer.to_str()
    assert after.captioner.config == before.captioner.config
    losses = [
        [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines() if "loss" in line]
        for out in (undisturbed, tmp_path / "run")
    ]
    assert losses[1][0] < losses[0][0] - 0.3  # of the same batch
    assert not torch.equal(before.captioner.embed.weight, after.captioner.embed.weight)


def test_a_smaller_share_of_labels_is_part_of_a_larger_one(data: Path, tmp_path: Path) -> None:
    latents = Latents(data / "latents")
    few, many = (Lessons(latents, config(data, tmp_path, labelled=share)) for share in (0.1, 0.5))
    for size in many.sizes:
        assert set(few.rows[size]) < set(many.rows[size])
        assert not set(many.rows[size]) & set(many.held_out(size))
    assert few.count == 10


def test_sizes_can_be_chosen(data: Path, tmp_path: Path) -> None:
    lessons = Lessons(Latents(data / "latents"), config(data, tmp_path, sizes={"32x32x9": 1.0}))
    assert [str(size) for size in lessons.sizes] == ["32x32x9"]
    _, latent_BCTHW, texts, kinds = lessons.batch(1)
    assert latent_BCTHW.shape == (4, 16, 3, 4, 4)
    assert len(texts) == len(kinds) == 4
    with pytest.raises(InputError, match="64x64x17"):
        Lessons(Latents(data / "latents"), config(data, tmp_path, sizes={"64x64x17": 1.0}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labelled": 0.0}, "labelled"),
        ({"size": "huge"}, "huge"),
        ({"kinds": {"alt": 1.0}}, "alt"),
        ({"kinds": {"short": 0.0}}, "weights"),
        ({"forget": 1.0}, "forget"),
        ({"init_from": "a-model"}, "leave one of the two out"),
        ({"clips": 0}, "clips"),
    ],
)
def test_what_cannot_work_is_refused(
    data: Path, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        config(data, tmp_path, **change)


def test_another_config_does_not_go_on_with_a_run(data: Path, undisturbed: Path) -> None:
    with pytest.raises(InputError, match="labelled"):
        train_captioner(config(data, undisturbed, labelled=0.4), "auto")
