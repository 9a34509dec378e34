"""Classifier-free guidance on x0, and the denoiser made of it."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.diffusion.fixed_shift import FixedShift
from mutoscope.diffusion.guidance import (
    Branches,
    Guidance,
    Kind,
    guide,
    guided,
    projected,
    velocity_of,
    x0_of,
    zero_level,
    zero_star,
)
from mutoscope.diffusion.process import Process
from mutoscope.diffusion.sampler import dpmpp_2m, euler
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


def inner(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one * other).sum((1, 2, 3, 4), keepdim=True)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0, 12), factor=st.floats(-3, 3))
def test_the_scale_of_zero_star_is_the_least_squares_one(scale: float, factor: float) -> None:
    conditional, unconditional = clip(0), clip(1)
    least = zero_star(conditional, unconditional, 0.0, None)  # s u
    assert (inner(conditional - least, unconditional).abs() < 1e-9).all()
    other = factor * unconditional
    assert (
        inner(conditional - least, conditional - least) <= inner(conditional - other, conditional - other)
    ).all()
    expected = least + scale * (conditional - least)
    torch.testing.assert_close(zero_star(conditional, unconditional, scale, None), expected)
    torch.testing.assert_close(zero_star(conditional, unconditional, 1.0, None), conditional)
    # the unconditional one matters by its direction alone
    torch.testing.assert_close(zero_star(conditional, 7 * unconditional, scale, None), expected)
    assert torch.equal(zero_star(conditional, 0 * unconditional, scale, None), scale * conditional)


def test_kinds_of_guidance_are_the_references() -> None:
    modules = pytest.importorskip("diffusers.guiders.adaptive_projected_guidance")
    zero = pytest.importorskip("diffusers.guiders.classifier_free_zero_star_guidance")
    conditional, unconditional = clip(0), clip(1)
    alpha = zero.cfg_zero_star_scale(conditional.flatten(1).float(), unconditional.flatten(1).float())
    rest = alpha.double().view(2, 1, 1, 1, 1) * unconditional
    torch.testing.assert_close(
        zero_star(conditional, unconditional, 4.0, None),
        rest + 4 * (conditional - rest),
        atol=1e-5,
        rtol=1e-5,
    )
    count = conditional[0].numel()
    guidance = Guidance(6.0, kind="apg", parallel=0.3, radius=0.5)
    buffer, difference = modules.MomentumBuffer(guidance.momentum), torch.zeros(())
    for seed in (0, 5):
        one, other = clip(seed), clip(seed + 1)
        difference = one - other + guidance.momentum * difference
        expected = modules.normalized_guidance(
            one, other, 5.0, buffer, 0.3, 0.5 * count**0.5, use_original_formulation=True
        )
        torch.testing.assert_close(projected(one, difference, guidance), expected)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0, 12))
def test_apg_with_nothing_projected_is_cfg(scale: float) -> None:
    conditional, unconditional = clip(0), clip(1)
    open_ = Guidance(scale, kind="apg", parallel=1.0, momentum=0.0, radius=math.inf)
    found = projected(conditional, conditional - unconditional, open_)
    torch.testing.assert_close(found, guided(conditional, unconditional, HALF, Guidance(scale)))


def test_apg_adds_nothing_along_the_conditional_and_no_more_than_its_radius() -> None:
    conditional, unconditional = clip(0), clip(1)
    guidance = Guidance(3.0, kind="apg", radius=0.1)
    added = projected(conditional, conditional - unconditional, guidance) - conditional
    assert (inner(added, conditional).abs() < 1e-9).all()
    assert (added.square().mean((1, 2, 3, 4)).sqrt() <= 2 * 0.1 + 1e-9).all()


def branches_of(answers: dict[float, torch.Tensor]) -> Branches:
    return lambda latent, sigma, both: answers[round(float(sigma), 3)]


@pytest.mark.parametrize("path", ["flow", "vp"])
@pytest.mark.parametrize("kind", get_args(Kind))
def test_scale_1_is_the_conditional_and_known_frames_stay(path: str, kind: Kind) -> None:
    process = Process(path=path, prediction="v")  # type: ignore[arg-type]
    unknown = torch.tensor([False, True, True, True])[None, None, :, None, None]
    latent, conditional, unconditional = clip(0), clip(1), clip(2)
    both = branches_of({0.5: torch.cat([conditional, unconditional])})
    alone = branches_of({0.5: conditional})
    assert torch.equal(guide(alone, Guidance(1.0, kind=kind), process)(latent, HALF), conditional)
    for near in (1 - 1e-9, 1 + 1e-9):
        x0 = guide(both, Guidance(near, kind=kind), process, unknown)(latent, HALF)
        torch.testing.assert_close(x0, conditional, atol=1e-6, rtol=1e-6)
    x0 = guide(both, Guidance(4.0, kind=kind), process, unknown)(latent, HALF)
    assert torch.equal(x0[:, :, 0], conditional[:, :, 0])
    whole = guide(
        branches_of({0.5: torch.cat([conditional, unconditional])[:, :, 1:]}),
        Guidance(4.0, kind=kind),
        process,
    )
    torch.testing.assert_close(x0[:, :, 1:], whole(latent[:, :, 1:], HALF))  # known ones do not count


def test_the_momentum_of_apg_is_that_of_the_run() -> None:
    guidance, process = Guidance(3.0, kind="apg", radius=1e3), Process()
    answers = {0.8: torch.cat([clip(0), clip(1)]), 0.6: torch.cat([clip(2), clip(3)])}
    denoise = guide(branches_of(answers), guidance, process)
    denoise(clip(4), torch.tensor(0.8))
    second = denoise(clip(4), torch.tensor(0.6))
    difference = clip(2) - clip(3) + guidance.momentum * (clip(0) - clip(1))
    torch.testing.assert_close(second, projected(clip(2), difference, guidance))
    fresh = guide(branches_of(answers), guidance, process)(clip(4), torch.tensor(0.6))
    assert not torch.allclose(second, fresh)


@pytest.mark.parametrize(("steps", "zeroed"), [(12, 0), (13, 1), (30, 1), (50, 2), (100, 4)])
def test_zero_star_stands_still_at_the_first_steps(steps: int, zeroed: int) -> None:
    process = FixedShift(constant=5.0)
    sigmas = process.sigmas(steps)
    guidance = Guidance(4.0, kind="zero-star", zero_from=zero_level(sigmas))
    asked: list[float] = []

    def branches(latent: torch.Tensor, sigma: torch.Tensor, both: bool) -> torch.Tensor:
        asked.append(float(sigma))
        return torch.cat([latent, latent])

    euler(guide(branches, guidance, process), clip(0).float(), sigmas, process)
    assert len(asked) == steps - zeroed
    assert asked[0] == pytest.approx(float(sigmas[zeroed]))


@pytest.mark.parametrize("path", ["flow", "vp"])
@settings(max_examples=20, deadline=None)
@given(level=st.floats(0.01, 0.99))
def test_velocity_and_x0_lead_to_each_other(path: str, level: float) -> None:
    process = Process(path=path)  # type: ignore[arg-type]
    sigma, x0, noise = torch.tensor(level, dtype=torch.float64), clip(0), clip(1)
    latent = process.noised(x0, noise, sigma)
    torch.testing.assert_close(velocity_of(x0, latent, sigma, process), noise - x0)
    torch.testing.assert_close(x0_of(noise - x0, latent, sigma, process), x0)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"scale": -1.0}, "scale = -1.0"),
        ({"scale": float("nan")}, "scale = nan"),
        ({"rescale": 1.5}, "rescale = 1.5"),
        ({"interval": (0.8, 0.2)}, r"interval = 0\.8 to 0\.2"),
        ({"kind": "apd"}, "'apd'"),
        ({"radius": 0.0}, "radius = 0.0"),
    ],
)
def test_values_out_of_range_are_named(fields: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Guidance(**fields)  # type: ignore[arg-type]
