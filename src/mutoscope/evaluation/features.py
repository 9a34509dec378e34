"""Clips as rows of numbers, for two questions: do they look like real ones, and are they copies of training clips.

The encoder is the built-in model's video VAE, so that models compare; its fingerprint belongs to every figure.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mutoscope.evaluation.quality import frechet_distance
from mutoscope.models.vae import VAE
from mutoscope.video import to_tensor

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)

CELLS = 4  # rows and columns of the map that nearest neighbours are looked for in
BATCH = 16


@torch.inference_mode()
def latents_of(vae: VAE, clips: Sequence[Frames]) -> Tensor:
    """latent_NCTHW of clips of one size on the VAE's grid, on the CPU."""
    parts = []
    for start in range(0, len(clips), BATCH):
        video_BCTHW = torch.stack([to_tensor(clip) for clip in clips[start : start + BATCH]])
        parts.append(vae.encode(video_BCTHW.to(vae.latent_mean)).float().cpu())
    return torch.cat(parts)


def statistics(latent_NCTHW: Tensor) -> Tensor:
    """features_ND, D = 3 C: of every channel the mean, the spread over places, the mean change over time."""
    mean_NC = latent_NCTHW.mean((2, 3, 4))
    spread_NC = latent_NCTHW.std((3, 4)).mean(2)
    if latent_NCTHW.shape[2] < 2:
        change_NC = torch.zeros_like(mean_NC)
    else:
        change_NC = latent_NCTHW.diff(dim=2).abs().mean((2, 3, 4))
    return torch.cat([mean_NC, spread_NC, change_NC], dim=1)


def likeness(made_NCTHW: Tensor, real_NCTHW: Tensor, other_NCTHW: Tensor) -> dict[str, float]:
    """Frechet distance of made to real clips, and its floor: of other real clips, as many, to the same."""
    made, real, other = map(statistics, (made_NCTHW, real_NCTHW, other_NCTHW))
    return {"frechet": frechet_distance(made, real), "floor": frechet_distance(other, real), "n": len(made)}


def memorisation(made_NCTHW: Tensor, fresh_NCTHW: Tensor, trained_MCTHW: Tensor) -> dict[str, float]:
    """Distance to the nearest training clip: median of made clips by median of fresh real ones, as `ratio`.

    About 1 for a model that makes new clips, 0 for one that repeats what it saw. Distances are between latents
    averaged over CELLS x CELLS places, every latent frame.
    """
    trained = _map(trained_MCTHW)
    made, fresh = (
        torch.cdist(_map(part_NCTHW), trained).min(1).values.median()
        for part_NCTHW in (made_NCTHW, fresh_NCTHW)
    )
    return {
        "ratio": float(made / fresh),
        "nearest": float(made),
        "floor": float(fresh),
        "trained": len(trained),
    }


def _map(latent_NCTHW: Tensor) -> Tensor:
    clips, channels, frames, *_ = latent_NCTHW.shape
    cells = torch.nn.functional.adaptive_avg_pool3d(latent_NCTHW, (frames, CELLS, CELLS))
    return cells.reshape(clips, channels * frames * CELLS * CELLS)
