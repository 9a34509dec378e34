"""Numbers about pixels: PSNR, SSIM, flicker, and the Frechet distance between two sets of features."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mutoscope.errors import InputError


def psnr(video_BCTHW: Tensor, other_BCTHW: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each clip, in dB, shape (B,); infinite for equal clips.

    Pixels are in [-1, 1], so the peak-to-peak range is 2: 10 log10(4 / mse), averaged over the clip.
    """
    _need_equal_shapes(video_BCTHW, other_BCTHW)
    error_B = (video_BCTHW - other_BCTHW).double().pow(2).flatten(1).mean(1)
    return 10 * torch.log10(4 / error_B)


def ssim(video_BCTHW: Tensor, other_BCTHW: Tensor, sigma: float = 1.5, radius: int = 5) -> Tensor:
    """Structural similarity of each clip, shape (B,), at most 1; the mean over frames, channels, windows.

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861): an 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01,
    K2 = 0.03, no padding. Pixels in [-1, 1]. Raises InputError for frames smaller than the window.
    """
    _need_equal_shapes(video_BCTHW, other_BCTHW)
    batch, height, width = len(video_BCTHW), *video_BCTHW.shape[-2:]
    if min(height, width) < 2 * radius + 1:
        raise InputError(
            f"SSIM needs frames of at least {2 * radius + 1} pixels a side, these are {width}x{height}."
        )
    x = video_BCTHW.transpose(1, 2).reshape(-1, 1, height, width)
    y = other_BCTHW.transpose(1, 2).reshape(-1, 1, height, width)
    ramp = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    window = torch.exp(-(ramp**2) / (2 * sigma**2))
    window = window / window.sum()

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))

    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - mean_x**2
    var_y = blur(y * y) - mean_y**2
    cov = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    score = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return score.reshape(batch, -1).mean(1)


def flicker(video_BCTHW: Tensor) -> Tensor:
    """How much a still pixel trembles: shape (B,), in 8-bit grey levels, 0 for one frame.

    The standard deviation over time of each pixel, then the median over pixels, so that a moving object on a
    still background does not count. Under a moving camera the number measures the camera.
    """
    grey_BTHW = video_BCTHW.mean(1) * 127.5
    return grey_BTHW.std(dim=1, correction=0).flatten(1).median(dim=1).values


def frechet_distance(features_ND: Tensor, other_MD: Tensor) -> float:
    """Squared Frechet distance between the Gaussians fitted to two sets of features (Dowson and Landau 1982).

    |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^1/2 S_2 S_1^1/2)^1/2); the square roots by eigh, in float64.
    Raises InputError when a set has fewer than two rows or the widths differ.
    """
    if features_ND.ndim != 2 or other_MD.ndim != 2 or features_ND.shape[1] != other_MD.shape[1]:
        raise InputError(
            f"The Frechet distance compares two tables of equal width, not {tuple(features_ND.shape)} "
            f"and {tuple(other_MD.shape)}."
        )
    if min(len(features_ND), len(other_MD)) < 2:
        raise InputError(
            f"The Frechet distance needs at least two rows a set, got {len(features_ND)} and {len(other_MD)}."
        )
    a, b = features_ND.double(), other_MD.double()
    width = a.shape[1]
    cov_a, cov_b = torch.cov(a.T).reshape(width, width), torch.cov(b.T).reshape(width, width)
    root_a = _matrix_sqrt(cov_a)
    cross = _matrix_sqrt(root_a @ cov_b @ root_a)
    distance = (a.mean(0) - b.mean(0)).pow(2).sum() + torch.trace(cov_a + cov_b - 2 * cross)
    return max(0.0, float(distance))


def bootstrap_interval(
    held_N: Tensor, of_N: Tensor, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """The 95 % percentile interval of sum(held) / sum(of), clips resampled with replacement.

    held_N: how many facts of each clip hold, of_N: how many were asked. NaN when nothing was asked.
    """
    if not of_N.any():
        return math.nan, math.nan
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(of_N), (resamples, len(of_N)), generator=generator)
    asked = of_N.double()[picks].sum(1)
    shares = (held_N.double()[picks].sum(1) / asked)[asked > 0]
    low, high = torch.quantile(shares, torch.tensor([0.025, 0.975]).double()).tolist()
    return low, high


def _matrix_sqrt(symmetric_DD: Tensor) -> Tensor:
    """The square root of a symmetric positive semi-definite matrix; negative eigenvalues are rounding."""
    values, vectors = torch.linalg.eigh((symmetric_DD + symmetric_DD.T) / 2)
    root_DD: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root_DD


def _need_equal_shapes(video_BCTHW: Tensor, other_BCTHW: Tensor) -> None:
    if video_BCTHW.shape != other_BCTHW.shape or video_BCTHW.ndim != 5:
        raise InputError(
            f"Two videos are compared pixel by pixel and need equal shapes (B, C, T, H, W), not "
            f"{tuple(video_BCTHW.shape)} and {tuple(other_BCTHW.shape)}."
        )
