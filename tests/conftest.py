"""What several rooms' tests share: models so small that a clip takes a fraction of a second."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights (no part of it zero, so that text, time and noise all matter)."""
    import torch

    from mutoscope.diffusion.process import Process
    from mutoscope.models.dit import DiT, DiTConfig
    from mutoscope.models.text import Text, TextConfig, TextEncoder, train_tokenizer
    from mutoscope.models.vae import VAE, VAEConfig
    from mutoscope.weights.card import Defaults, ModelCard
    from mutoscope.weights.store import save_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = VAE(VAEConfig(quarter_width=8, eighth_width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1)))
        dit = DiT(DiTConfig(width=32, depth=2, heads=2, mlp_width=64, text_width=16))
        encoder = TextEncoder(TextConfig(width=16, depth=1, heads=1, vocab=300))
        with torch.no_grad():
            for module in (vae, dit, encoder):
                for parameter in module.parameters():
                    if not parameter.any():
                        parameter.normal_(std=0.2)
    text = Text(train_tokenizer(["a red ball rolls to the right", "a blue box"] * 4, 300), encoder)
    card = ModelCard("random", defaults=Defaults(frames=9, steps=4, guidance=3.0, sampler="euler"), led=True)
    folder = tmp_path_factory.mktemp("models") / "random"
    return save_model(folder, vae=vae, dit=dit, text=text, process=Process(), card=card)


@pytest.fixture(scope="session")
def captioner_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner with random weights, as a model folder."""
    import torch

    from mutoscope.models.captioner import Captioner, CaptionerConfig, Narrator
    from mutoscope.models.text import train_tokenizer
    from mutoscope.models.vae import VAE, VAEConfig
    from mutoscope.weights.card import Defaults, ModelCard
    from mutoscope.weights.store import save_model

    sizes = CaptionerConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, vocab=300, max_tokens=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = VAE(VAEConfig(quarter_width=8, eighth_width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1)))
        narrator = Narrator(train_tokenizer(["a red ball"], 300), Captioner(sizes))
    card = ModelCard(
        "random",
        defaults=Defaults(width=32, height=32, frames=9),
        training={"cannot_know": ["camera", "style"]},
    )
    folder = tmp_path_factory.mktemp("captioners") / "random"
    return save_model(folder, vae=vae, narrator=narrator, card=card, storage={"captioner": "fp16"})
