"""Two small convolutions behind a transformer's last layer: neighbouring patches and frames come to agree.

A transformer on patches predicts each patch by itself; where two predictions differ a border is seen, in space and from
one latent frame to the next. U-ViT (Bao et al. 2022, arXiv 2209.12152, section 3.2) puts a 3 x 3 convolution there;
this one reaches over time too and sees the noisy latent, so that it can do the local part of the denoising.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mutoscope.models.layers import zero_init


class FinalConvolution(nn.Module):
    """What is added to a prediction: nothing at first."""

    def __init__(self, channels: int, hidden: int, condition_width: int) -> None:
        super().__init__()
        self.inward = nn.Conv3d(2 * channels, hidden, 3, padding=1)
        self.condition = nn.Linear(condition_width, hidden)
        self.outward = nn.Conv3d(hidden, channels, 3, padding=1)
        zero_init(self.outward)

    def forward(self, prediction_BCTHW: Tensor, latent_BCTHW: Tensor, condition_FD: Tensor) -> Tensor:
        """The prediction, corrected. condition_FD: a row for each clip (B, D) or for each latent frame (B T, D)."""
        both_BCTHW = torch.cat((prediction_BCTHW, latent_BCTHW.to(prediction_BCTHW.dtype)), dim=1)
        told_FD = self.condition(F.silu(condition_FD))
        told_BCT11 = told_FD.view(len(latent_BCTHW), -1, told_FD.shape[-1]).transpose(1, 2)[..., None, None]
        hidden_BCTHW = F.silu(self.inward(both_BCTHW) + told_BCT11)
        corrected_BCTHW: Tensor = prediction_BCTHW + self.outward(hidden_BCTHW)
        return corrected_BCTHW
