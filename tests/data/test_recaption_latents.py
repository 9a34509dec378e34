"""A cache told anew: the same clips, the captioner's words, the old alt captions; stopped runs go on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mutoscope.data.latents import KINDS, Bucket, EncodeConfig, Latents, Size, encode
from mutoscope.data.recaption_latents import recaption_latents
from mutoscope.errors import InputError
from mutoscope.models.vae import VAE
from mutoscope.weights.store import CaptionModel

SIZE = Size(5, 32, 32)


@pytest.fixture(scope="module")
def cache(model: CaptionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    buckets = (Bucket(5, 32, 32, 7), Bucket(1, 32, 48, 3))
    out = str(tmp_path_factory.mktemp("data") / "cache")
    return encode(model.vae, EncodeConfig(model="", out=out, buckets=buckets, piece=3))


def test_clips_stay_and_captions_are_the_captioners(model: CaptionModel, cache: Path, tmp_path: Path) -> None:
    states = []
    new = Latents(recaption_latents(model, cache, tmp_path / "new", 2, states.append, batch=2), vae=model.vae)
    old = Latents(cache)
    assert new.sizes == old.sizes
    for size in old.sizes:
        rows = range(old.count(size))
        assert new.ids(size, rows) == old.ids(size, rows)
        assert torch.equal(new.latents(size, rows), old.latents(size, rows))
        assert torch.equal(new.fps(size, rows), old.fps(size, rows))
        for row in rows:
            assert new.caption(size, row, "alt", 0) == old.caption(size, row, "alt", 0)
    assert new.variants == {"short": 2, "medium": 2, "detailed": 2, "alt": 1}
    likeliest = model.narrator(old.latents(SIZE, [4]), "medium")
    assert [new.caption(SIZE, 4, "medium", 0)] == likeliest
    drawn = [new.caption(SIZE, row, "medium", 1) for row in range(7)]
    assert drawn != [new.caption(SIZE, row, "medium", 0) for row in range(7)]
    assert [state.written for state in states] == [3, 6, 7, 10]
    assert states[-1].total == 10


def test_a_stopped_run_goes_on_to_the_same_bytes(model: CaptionModel, cache: Path, tmp_path: Path) -> None:
    def stop(state: object) -> None:
        raise KeyboardInterrupt

    whole = recaption_latents(model, cache, tmp_path / "whole", 2)
    for _ in range(2):  # one piece each time
        with pytest.raises(KeyboardInterrupt):
            recaption_latents(model, cache, tmp_path / "cut", 2, stop)
    with pytest.raises(InputError, match="not finished"):
        Latents(tmp_path / "cut")
    cut = recaption_latents(model, cache, tmp_path / "cut", 2)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
        path.name: path.read_bytes() for path in cut.iterdir()
    }


def test_what_does_not_fit_is_refused(model: CaptionModel, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the cache that is read"):
        recaption_latents(model, cache, cache)
    with pytest.raises(InputError, match="another VAE"):
        recaption_latents(replace(model, vae=VAE(model.vae.config)), cache, tmp_path / "new")
    with pytest.raises(InputError, match="wordings is 0"):
        recaption_latents(model, cache, tmp_path / "new", 0)
    recaption_latents(model, cache, tmp_path / "new")
    with pytest.raises(InputError, match="another cache, or captions by another captioner"):
        recaption_latents(replace(model, sha256="another"), cache, tmp_path / "new")
    assert set(KINDS) == set(Latents(tmp_path / "new").variants)
