"""What tests of data share."""

from pathlib import Path

import pytest
import torch

from mutoscope.models.captioner import Captioner, CaptionerConfig, Narrator
from mutoscope.models.text import train_tokenizer
from mutoscope.models.vae import VAE, VAEConfig
from mutoscope.weights.card import Defaults, ModelCard
from mutoscope.weights.store import CaptionModel


@pytest.fixture(scope="package")
def model() -> CaptionModel:
    """A captioner with random weights, and its VAE."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig(quarter_width=8, eighth_width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))).eval()
    sizes = CaptionerConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, vocab=300, max_tokens=8)
    narrator = Narrator(train_tokenizer(["a red ball"], 300), Captioner(sizes).eval())
    card = ModelCard("small", defaults=Defaults(width=32, height=32, frames=9, fps=8.0))
    return CaptionModel(vae, narrator, card, Path(), "0123456789abcdef")
