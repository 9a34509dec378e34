"""The world as a source of latents: what a cache would hold, made when it is asked for."""

import contextlib
import multiprocessing
import os
import signal

import pytest
import torch

from mutoscope.data.batches import BatchConfig, Batches, Share
from mutoscope.data.latents import KINDS, Bucket, EncodeConfig, Latents, Size, encode
from mutoscope.data.world_latents import WorldData, WorldLatents
from mutoscope.diffusion.process import Process
from mutoscope.errors import InputError
from mutoscope.models.vae import VAE, VAEConfig
from mutoscope.world.captions import parse

SIZES = (Size(5, 32, 32), Size(1, 32, 48))


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(
        VAEConfig(quarter_width=8, eighth_width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    ).eval()


def test_it_reads_as_a_cache_of_the_same_seed(vae, tmp_path) -> None:
    encode(vae, EncodeConfig(model="", out=str(tmp_path), buckets=(Bucket(5, 32, 32, 12),), seed=3, batch=4))
    cache, world = Latents(tmp_path), WorldLatents(WorldData(seed=3, clips=12, batch=4), SIZES[:1], vae)
    rows = range(4, 8)
    assert world.ids(SIZES[0], rows) == cache.ids(SIZES[0], rows)
    assert torch.equal(world.latents(SIZES[0], rows), cache.latents(SIZES[0], rows))
    assert torch.equal(world.fps(SIZES[0], rows), cache.fps(SIZES[0], rows))
    for kind in KINDS:
        assert world.caption(SIZES[0], 5, kind, 0) == cache.caption(SIZES[0], 5, kind, 0)
    assert world.vae_sha256 == cache.vae_sha256
    assert len(list(world.captions(SIZES[0], range(3)))) == 3 * len(KINDS)


def test_other_processes_change_nothing(vae) -> None:
    config = BatchConfig(buckets=tuple(Share(*size, 0.5) for size in SIZES), tokens=96, groups=2)
    alone, helped = (
        WorldLatents(WorldData(clips=100, batch=4, workers=workers), SIZES, vae) for workers in (0, 2)
    )
    for step in (1, 2, 3):
        pairs = zip(
            Batches(alone, config, Process(), 7, 4).groups(step),
            Batches(helped, config, Process(), 7, 4).groups(step),
            strict=True,
        )
        for one, other in pairs:
            assert one.prompts == other.prompts
            assert torch.equal(one.latent_BCTHW, other.latent_BCTHW)
            assert torch.equal(one.sigma_BT, other.sigma_BT)
        for worker in multiprocessing.active_children():  # which they ignore, or die of while they start
            assert worker.pid is not None
            with contextlib.suppress(
                ProcessLookupError
            ):  # one that died of it the last time has just been buried
                os.kill(worker.pid, signal.SIGTERM)
    helped.close()
    assert multiprocessing.active_children() == []


def test_words_belong_to_the_clip(vae) -> None:
    world = WorldLatents(WorldData(clips=50), SIZES, vae)
    world.latents(SIZES[0], [3, 1])
    for row in (1, 3, 9):  # known from the latents, or made for the words alone
        (row_made,) = world._made(SIZES[0], [row])
        told = {fact.value for fact in parse(world.caption(SIZES[0], row, "detailed", 5))[0]}
        assert {body.colour for body in row_made.scene.shots[0].bodies} <= told


def test_mistakes_are_told() -> None:
    for change in ({"seed": -1}, {"clips": 0}, {"batch": 0}, {"workers": -1}, {"fps": 0.0}):
        with pytest.raises(InputError, match="world:"):
            WorldData(**change)
