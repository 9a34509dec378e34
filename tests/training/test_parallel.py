"""Several ranks train what one would: two processes over gloo, each with half of the weights and of the clips."""

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from mutoscope.data.batches import BatchConfig, Batches, Share
from mutoscope.data.latents import Bucket, EncodeConfig, Latents, encode
from mutoscope.data.world_latents import WorldData
from mutoscope.diffusion.process import Process
from mutoscope.models.vae import VAE, VAEConfig
from mutoscope.training.optimizer import OptimizerConfig
from mutoscope.training.parallel import Ranks, part_of_the_loss
from mutoscope.training.state import checkpoints, load_checkpoint
from mutoscope.training.train_dit import TrainDiTConfig, train_dit
from mutoscope.weights.card import ModelCard
from mutoscope.weights.store import load, load_vae, save_model
from mutoscope.world.render import render
from mutoscope.world.scene import View, sample_scene

STEPS = 8
RANKS = 2
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["mutoscope.training.train_dit"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small VAE and its latents of small world clips."""
    folder = tmp_path_factory.mktemp("data")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    vae = VAE(
        VAEConfig(quarter_width=16, eighth_width=16, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    ).eval()
    vae.fit_shortcut(render([sample_scene(seed) for seed in range(8)], View(32, 32, 9)))
    save_model(folder / "vae", vae=vae, card=ModelCard(name="test"))
    buckets = (Bucket(9, 32, 32, 40), Bucket(1, 32, 48, 30))
    encode(vae, EncodeConfig(model="", out=str(folder / "latents"), buckets=buckets))
    return folder


def config(data: Path, out: Path, **change: object) -> TrainDiTConfig:
    """A model of odd sizes, so that shards are uneven, and groups of 5 clips, so that shares are."""
    small = TrainDiTConfig(
        latents=str(data / "latents"),
        vae=str(data / "vae"),
        out=str(out),
        batches=BatchConfig(buckets=(Share(9, 32, 32, 0.7), Share(1, 32, 48, 0.3)), tokens=60, held_out=4),
        dit={"width": 30, "depth": 2, "heads": 3, "mlp_width": 61},
        text={"width": 30, "depth": 1, "heads": 3, "vocab": 300},
        optimizer=OptimizerConfig(steps=STEPS, warmup=2),
        threads=1,
        tokenizer_captions=100,
        checkpoint_every=3,
        validate_every=4,
        validation_clips=2,
        sample_every=8,
        sample_steps=2,
    )
    return replace(small, **change)  # type: ignore[arg-type]


def as_rank(rank: int, port: int, settings: TrainDiTConfig) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    train_dit(settings, "auto")


def start(settings: TrainDiTConfig) -> list[BaseProcess]:
    """The ranks of a run, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks: list[BaseProcess] = [
        FORKSERVER.Process(target=as_rank, args=(rank, port, settings)) for rank in range(RANKS)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def codes(ranks: list[BaseProcess]) -> list[int | None]:
    for rank in ranks:
        rank.join(240)
    return [rank.exitcode for rank in ranks]


def losses(out: Path) -> list[float]:
    if not (out / "log.jsonl").exists():
        return []
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of the last weights, averages, optimiser states, of the logs and of the model's weights."""
    files = [*checkpoints(out / "checkpoints")[-1].glob("*.safetensors"), *out.glob("**/log.jsonl")]
    files += (out / "model").glob("*.safetensors")
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    train_dit(config(data, out))
    return out


@pytest.fixture(scope="module")
def together(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("together")
    assert codes(start(config(data, out))) == [0, 0]
    return out


def test_two_ranks_train_what_one_trains(alone: Path, together: Path) -> None:
    one, two = losses(alone), losses(together)
    assert len(one) == len(two) == STEPS
    assert two[:5] == pytest.approx(one[:5], abs=1e-5)
    assert two == pytest.approx(one, abs=1e-3)  # rounding grows with the steps
    assert losses(together / "rank-1") == two
    left, right = load(alone / "model"), load(together / "model")
    assert right.card.training["hardware"].endswith("2 ranks")
    assert right.card.training["clips"] == left.card.training["clips"]
    for name, weight in left.dit.state_dict().items():
        assert torch.allclose(weight, right.dit.state_dict()[name], atol=1e-3), name
    assert left.text.tokenizer.to_str() == right.text.tokenizer.to_str()
    assert (together / "samples" / "step-00000008.png").exists()
    assert not (together / "rank-1" / "samples").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "precision"), [("packed", "fp32"), ("padded", "bf16")])
def test_two_ranks_train_what_one_trains_in_every_layout(
    data: Path, tmp_path: Path, layout: str, precision: str
) -> None:
    base = config(data, tmp_path)
    change = {
        "batches": replace(base.batches, layout=layout, groups=2, tokens=120),  # type: ignore[arg-type]
        "precision": precision,
        "optimizer": replace(base.optimizer, steps=4),
        "sample_every": 0,
    }
    alone, together = (config(data, tmp_path / name, **change) for name in ("alone", "together"))
    train_dit(alone)
    assert codes(start(together)) == [0, 0]
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    assert losses(Path(together.out)) == pytest.approx(losses(Path(alone.out)), abs=tolerance)


def test_a_signal_to_one_rank_stops_all_with_75_and_the_run_goes_on(
    data: Path, together: Path, tmp_path: Path
) -> None:
    settings = config(data, tmp_path, checkpoint_every=0)
    ranks = start(settings)
    deadline = time.monotonic() + 120
    while len(losses(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    assert ranks[1].pid is not None
    os.kill(ranks[1].pid, signal.SIGTERM)
    assert codes(ranks) == [75, 75]
    (saved,) = checkpoints(tmp_path / "checkpoints")
    assert 3 <= int(saved.name[5:]) < STEPS
    assert codes(start(settings)) == [0, 0]
    assert digests(tmp_path) == digests(together)


def test_one_goes_on_where_two_stopped(data: Path, alone: Path, together: Path, tmp_path: Path) -> None:
    """A checkpoint holds whole tensors, under the names and in the order of a run alone."""
    one, two = (load_checkpoint(checkpoints(out / "checkpoints")[0])[0] for out in (alone, together))
    assert _shapes(one) == _shapes(two)
    settings = config(data, tmp_path)
    earlier = checkpoints(together / "checkpoints")[0]
    assert earlier.name == "step-00000006"
    train_dit(settings, str(earlier))
    assert losses(tmp_path) == pytest.approx(losses(together)[6:], abs=1e-3)


def _shapes(state: object) -> object:
    if isinstance(state, torch.Tensor):
        return tuple(state.shape)
    if isinstance(state, dict):
        return {key: _shapes(value) for key, value in state.items()}
    return [_shapes(value) for value in state] if isinstance(state, list) else None


@pytest.mark.parametrize("source", ["cache", "world"])
def test_shares_are_the_whole(data: Path, source: str) -> None:
    """Clips, words and noise of a step do not depend on how many share them."""
    settings = config(data, data)

    def groups(share: slice, step: int):  # type: ignore[no-untyped-def]
        vae = load_vae(data / "vae")
        if source == "cache":
            latents = Latents(data / "latents", vae=vae)
        else:
            from mutoscope.data.world_latents import WorldLatents

            sizes = [one.size for one in settings.batches.buckets]
            latents = WorldLatents(WorldData(clips=50), sizes, vae)  # type: ignore[assignment]
        return Batches(latents, settings.batches, Process(), 3, STEPS, share=share).groups(step)

    for step in (1, 4):
        (every,) = groups(slice(None), step)
        parts = [groups(Ranks(rank, 3).share, step)[0] for rank in range(3)]
        for rank, part in enumerate(parts):
            assert part.rows == every.rows[rank::3]
            assert part.prompts == every.prompts[rank::3]
            for name in ("latent_BCTHW", "noise_BCTHW", "sigma_BT", "unknown_BT", "fps_B"):
                assert torch.equal(getattr(part, name), getattr(every, name)[rank::3]), name


def test_a_rank_without_clips_is_refused(data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path, batches=BatchConfig(buckets=(Share(9, 32, 32, 1.0),), tokens=12))
    ranks = start(settings)
    assert all(code not in (0, None) for code in codes(ranks))
    assert not (tmp_path / "checkpoints").exists()


def test_alone_nothing_is_changed() -> None:
    ranks, flags = Ranks(), (True, False)
    loss = torch.tensor(0.1)
    assert ranks.total(loss) == loss
    assert tuple(ranks.agree(*flags)) == flags
    assert part_of_the_loss([], ranks) == 1.0
    assert ranks.share == slice(0, None, 1)
    assert ranks.folder(Path("run")) == Path("run")
