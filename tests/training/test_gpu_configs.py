"""The recipes for a GPU can be read, show all of the world, and are of the size that they say."""

from pathlib import Path

import torch

from mutoscope.config import load_config
from mutoscope.models.dit import DIT_PRESETS, DiT
from mutoscope.training.train_dit import TrainDiTConfig
from mutoscope.training.train_vae import TrainVAEConfig
from mutoscope.world.scene import EVERYTHING

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_transformer() -> None:
    config = load_config(TrainDiTConfig, CONFIGS / "dit-small-gpu.toml", ())
    assert config.world.mix == EVERYTHING
    assert config.latents == "world"
    assert config.minutes < 10
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in DiT(DIT_PRESETS[config.size]).parameters())
    assert 24e6 < parameters < 32e6
    rehearsal = load_config(
        TrainDiTConfig, CONFIGS / "dit-small-gpu.toml", ("device=cpu", "compile=true", "world.workers=0")
    )
    assert (rehearsal.device, rehearsal.compile, rehearsal.world.workers) == ("cpu", True, 0)


def test_the_vae() -> None:
    config = load_config(TrainVAEConfig, CONFIGS / "vae-gpu.toml", ())
    assert config.world == EVERYTHING
    assert config.minutes < 10
