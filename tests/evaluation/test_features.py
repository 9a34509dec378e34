"""Features tell real from made, and copies from new clips; on an encoder with random weights."""

import numpy as np
import torch

from mutoscope.evaluation.baselines import training_scenes
from mutoscope.evaluation.examinee import true_clips
from mutoscope.evaluation.exams import Exam, questions
from mutoscope.evaluation.features import latents_of, likeness, memorisation, statistics
from mutoscope.models.vae import VAE, VAEConfig
from mutoscope.world.scene import View

VIEW = View(32, 32, 9)


def test_likeness_and_memorisation() -> None:
    torch.manual_seed(0)
    vae = VAE(VAEConfig(quarter_width=8, eighth_width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))).eval()
    asked = questions(Exam("P0", 64), VIEW, 31)
    real = true_clips(asked)
    made = [(clip // 2 + 60).astype(np.uint8) for clip in real[:32]]  # pale
    real_latents, made_latents = latents_of(vae, real), latents_of(vae, made)
    assert statistics(real_latents).shape == (64, 3 * vae.latent_channels)
    same, other = real_latents[:32], real_latents[32:]
    pale = likeness(made_latents, same, other)
    assert pale["frechet"] > 2 * pale["floor"] > 0
    assert likeness(same, same, other)["frechet"] < 1e-6
    from dataclasses import replace

    trained = latents_of(vae, true_clips([replace(asked[0], scene=one) for one in training_scenes(VIEW, 64)]))
    copies = memorisation(trained[:32] + 1e-3, other, trained)
    fresh = memorisation(same, other, trained)
    assert copies["ratio"] < 0.2
    assert 0.6 < fresh["ratio"] < 1.6
