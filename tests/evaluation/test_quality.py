import math

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.evaluation.quality import bootstrap_interval, flicker, frechet_distance, psnr, ssim


def clips(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 3, 24, 20, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_of_a_known_offset() -> None:
    video = clips() * 0.5
    assert psnr(video, video + 0.02).tolist() == pytest.approx([40.0, 40.0], abs=1e-4)
    assert torch.isinf(psnr(video, video)).all()


def test_ssim_equals_the_formula_on_one_window() -> None:
    """An 11 x 11 image has one valid window, so the score is the formula on weighted moments."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(2, 11, 11, generator=generator).double() * 2 - 1
    ramp = torch.arange(-5, 6).double()
    window = torch.exp(-(ramp**2) / 4.5)
    weights = torch.outer(window, window) / window.sum() ** 2
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
    cov = (weights * (x - mx) * (y - my)).sum()
    expected = (
        (2 * mx * my + 4e-4) * (2 * cov + 36e-4) / ((mx**2 + my**2 + 4e-4) * (vx + vy + 36e-4))
    ).item()
    got = ssim(x.expand(1, 3, 1, 11, 11), y.expand(1, 3, 1, 11, 11)).item()
    assert got == pytest.approx(expected, abs=1e-9)


def test_ssim_falls_with_noise_and_is_one_for_equal_clips() -> None:
    video = clips()
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(2))
    scores = [ssim(video, video + level * noise).mean().item() for level in (0.0, 0.1, 0.4)]
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert scores[0] > scores[1] > scores[2]


def test_flicker_ignores_a_moving_object_and_sees_trembling() -> None:
    video = torch.zeros(1, 3, 8, 32, 32)
    for t in range(8):
        video[:, :, t, 4:8, 3 * t : 3 * t + 5] = 1
    assert flicker(video).item() == 0
    trembling = video + 0.1 * torch.tensor([1.0, -1.0] * 4).view(1, 1, 8, 1, 1)
    assert flicker(trembling).item() == pytest.approx(12.75, abs=0.1)


def test_frechet_distance_of_known_gaussians() -> None:
    """For samples whitened exactly, the distance has the closed form of the two Gaussians."""
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn(200, 4, generator=generator).double()
    raw = raw - raw.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(raw.T))
    white = raw @ vectors / values.sqrt()
    scale = torch.tensor([1.0, 2.0, 3.0, 0.5]).double()
    shift = torch.tensor([0.0, 1.0, 0.0, 2.0]).double()
    expected = (shift**2).sum() + ((scale - 1) ** 2).sum()
    assert frechet_distance(white, white * scale + shift) == pytest.approx(expected.item(), rel=1e-9)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator).double()).Q
    assert frechet_distance(raw @ rotation, raw @ rotation) == pytest.approx(0, abs=1e-9)


def test_bootstrap_interval_brackets_the_share_and_shrinks() -> None:
    held, of = torch.tensor([0, 2, 1, 1] * 4), torch.tensor([2, 2, 2, 2] * 4)
    low, high = bootstrap_interval(held, of)
    assert 0.25 < low < 0.5 < high < 0.75
    low_many, high_many = bootstrap_interval(held.repeat(16), of.repeat(16))
    assert high_many - low_many < (high - low) / 3
    assert bootstrap_interval(of, of) == (1.0, 1.0)
    assert math.isnan(bootstrap_interval(torch.zeros(2), torch.zeros(2))[0])


def test_bad_shapes_are_told() -> None:
    with pytest.raises(InputError, match="equal shapes"):
        psnr(clips(), clips()[:, :, :2])
    with pytest.raises(InputError, match="11 pixels"):
        ssim(clips()[..., :8], clips()[..., :8])
    with pytest.raises(InputError, match="two rows"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(4, 3))
