"""Classifier-free guidance on x0, and the denoiser made of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.diffusion.guidance import Guidance, guide, guided
from mutoscope.diffusion.process import Process
from mutoscope.diffusion.sampler import dpmpp_2m
from mutoscope.errors import InputError

PREDICTIONS = ["velocity", "epsilon", "x0", "v"]
HALF = torch.tensor(0.5)


def clip(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, 2, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("path", ["flow", "vp"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0, 12), level=st.floats(0.02, 0.98))
def test_guiding_x0_is_guiding_the_prediction(path: str, prediction: str, scale: float, level: float) -> None:
    process = Process(path=path, prediction=prediction)  # type: ignore[arg-type]
    z, conditional, unconditional = clip(0), clip(1), clip(2)
    sigma = torch.tensor(level, dtype=torch.float64)
    mixed = unconditional + scale * (conditional - unconditional)
    by_x0 = guided(
        process.to_x0(conditional, z, sigma), process.to_x0(unconditional, z, sigma), sigma, Guidance(scale)
    )
    torch.testing.assert_close(by_x0, process.to_x0(mixed, z, sigma), atol=1e-9, rtol=1e-9)


def test_rescaling_restores_the_spread_of_the_conditional() -> None:
    conditional, unconditional = clip(0), clip(1)
    plain = guided(conditional, unconditional, HALF, Guidance(6.0))
    full = guided(conditional, unconditional, HALF, Guidance(6.0, rescale=1.0))
    half = guided(conditional, unconditional, HALF, Guidance(6.0, rescale=0.5))
    axes = (1, 2, 3, 4)
    assert (plain.std(axes) > 2 * conditional.std(axes)).all()
    torch.testing.assert_close(full.std(axes), conditional.std(axes))
    torch.testing.assert_close(half, (plain + full) / 2)


def test_a_flat_clip_survives_rescaling() -> None:
    flat = torch.ones(1, 1, 1, 2, 2)
    assert guided(flat, flat, HALF, Guidance(6.0, rescale=1.0)).isfinite().all()


def test_guidance_acts_within_its_interval_only() -> None:
    conditional, unconditional = clip(0), clip(1)
    guidance = Guidance(4.0, interval=(0.3, 0.8))
    for level, acts in [(0.1, False), (0.3, True), (0.8, True), (0.9, False)]:
        sigma = torch.tensor(level, dtype=torch.float64)
        same = torch.equal(guided(conditional, unconditional, sigma, guidance), conditional)
        assert same != acts


def test_known_frames_are_neither_guided_nor_counted_nor_clipped() -> None:
    conditional, unconditional = clip(0), clip(1)
    unknown = torch.tensor([False, True, True, True])[None, None, :, None, None]
    guidance = Guidance(6.0, rescale=1.0)
    alone = guided(conditional[:, :, 1:], unconditional[:, :, 1:], HALF, guidance)
    x0 = guided(conditional, unconditional, HALF, guidance, unknown)
    torch.testing.assert_close(x0[:, :, 1:], alone)
    assert torch.equal(x0[:, :, 0], conditional[:, :, 0])

    both = torch.cat([9 * conditional, unconditional])
    denoise = guide(lambda z, sigma, b: both, guidance, Process(clip_x0=0.5), unknown)
    clipped = denoise(conditional, HALF)
    assert torch.equal(clipped[:, :, 0], 9 * conditional[:, :, 0])
    assert clipped[:, :, 1:].abs().max() <= 0.5


def test_the_second_branch_is_asked_for_only_where_it_matters() -> None:
    process, asked = Process(), []

    def branches(latent: torch.Tensor, sigma: torch.Tensor, both: bool) -> torch.Tensor:
        asked.append(both)
        conditional = torch.full_like(latent, 0.5)
        return torch.cat([conditional, -conditional]) if both else conditional

    sigmas = process.sigmas(4)
    out = dpmpp_2m(guide(branches, Guidance(3.0, interval=(0.4, 0.9)), process), clip(0), sigmas, process)
    assert asked == [False, True, True, False]
    torch.testing.assert_close(out, torch.full_like(out, 0.5))
    asked.clear()
    dpmpp_2m(guide(branches, Guidance(1.0), process), clip(0), sigmas, process)
    assert asked == [False] * 4
    asked.clear()
    out = dpmpp_2m(guide(branches, Guidance(3.0), process), clip(0), sigmas, process)
    assert asked == [True] * 4
    torch.testing.assert_close(out, torch.full_like(out, -0.5 + 3 * (0.5 + 0.5)))


def test_guidance_moves_samples_towards_the_condition() -> None:
    """Two Gaussians with known x0, the unconditional one at 0, the conditional one at 1."""
    process = Process()

    def posterior(z: torch.Tensor, sigma: torch.Tensor, mean: float) -> torch.Tensor:
        alpha = process.alpha(sigma)
        return mean + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (z - alpha * mean)

    def branches(z: torch.Tensor, sigma: torch.Tensor, both: bool) -> torch.Tensor:
        means = (1.0, 0.0) if both else (1.0,)
        return torch.cat([posterior(z, sigma, mean) for mean in means])

    noise = torch.randn(1, 1, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = []
    for scale in (0.0, 1.0, 3.0):
        denoise = guide(branches, Guidance(scale), process)
        means.append(dpmpp_2m(denoise, noise, process.sigmas(30), process).mean().item())
    assert means[0] == pytest.approx(0, abs=0.03)
    assert means[1] == pytest.approx(1, abs=0.03)
    assert means[2] > 2


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"scale": -1.0}, "scale = -1.0"),
        ({"scale": float("nan")}, "scale = nan"),
        ({"rescale": 1.5}, "rescale = 1.5"),
        ({"interval": (0.8, 0.2)}, r"interval = 0\.8 to 0\.2"),
    ],
)
def test_values_out_of_range_are_named(fields: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Guidance(**fields)  # type: ignore[arg-type]
