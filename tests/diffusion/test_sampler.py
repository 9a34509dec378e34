"""Samplers: order of convergence on known distributions, exact ends, early stop, and what they accept."""

import math
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch

from mutoscope.diffusion.process import PROCESSES, Process
from mutoscope.diffusion.sampler import SAMPLERS, Denoise, Sampler, StepInfo, renoise, unipc
from mutoscope.errors import InputError

NOISE = torch.randn(1, 2, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ONE = (torch.tensor([1.0]), torch.tensor([0.7]), torch.tensor([0.3]))  # weights, means, deviations
THREE = (torch.tensor([0.3, 0.4, 0.3]), torch.tensor([-1.0, 0.5, 1.5]), torch.tensor([0.3, 0.2, 0.4]))
EVERY: dict[str, Callable[..., torch.Tensor]] = {**SAMPLERS, "unipc_3": partial(unipc, order=3)}


def posterior_mean(process: Process, mixture: tuple[torch.Tensor, ...]) -> Denoise:
    """The true denoiser E[z0 | z] of data drawn from a mixture of Gaussians, value by value."""
    weight, mean, deviation = (part.double() for part in mixture)

    def denoise(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        alpha = process.alpha(sigma)
        variance = (alpha * deviation) ** 2 + sigma**2
        offset = z[..., None] - alpha * mean
        share = (weight.log() - variance.log() / 2 - offset**2 / variance / 2).softmax(-1)
        return (share * (mean + alpha * deviation**2 / variance * offset)).sum(-1)

    return denoise


def even_in_lambda(process: Process, steps: int, high: float = 0.9999, low: float = 0.05) -> torch.Tensor:
    ends = process.log_snr_half(torch.tensor([high, low], dtype=torch.float64)).tolist()
    ratio = torch.exp(-torch.linspace(*ends, steps + 1, dtype=torch.float64))
    return ratio / (1 + ratio) if process.path == "flow" else ratio / (1 + ratio**2).sqrt()


def exact_end(process: Process, z: torch.Tensor, high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Where the probability-flow ODE of one Gaussian leads: the standardised value stays as it is."""
    _, mean, deviation = (part.double() for part in ONE)

    def spread(sigma: torch.Tensor) -> torch.Tensor:
        return ((process.alpha(sigma) * deviation) ** 2 + sigma**2).sqrt()

    return process.alpha(low) * mean + spread(low) / spread(high) * (z - process.alpha(high) * mean)


@cache
def fine_run(process: Process) -> torch.Tensor:
    sigmas = even_in_lambda(process, 1500)
    return unipc(posterior_mean(process, THREE), NOISE, sigmas, process, order=3)


@pytest.mark.parametrize("process", list(PROCESSES.values()), ids=PROCESSES)
@pytest.mark.parametrize(
    ("name", "steps", "order"),
    [
        ("euler", 100, 1),
        ("ddim", 100, 1),
        ("dpmpp_1", 100, 1),
        ("heun", 50, 2),
        ("dpmpp_2m", 100, 2),
        ("dpmpp_3m", 200, 2),  # as published; see its text
        ("unipc", 50, 3),  # the corrector adds one to the order of the predictor
        ("unipc_3", 50, 3.5),
    ],
)
def test_order_of_convergence(process: Process, name: str, steps: int, order: float) -> None:
    """Twice the steps divide the error by 2^order, against the exact end of one Gaussian and, for a
    mixture, against a run of third order with many steps."""
    for mixture in (ONE, THREE):
        denoise = posterior_mean(process, mixture)
        sigmas = [even_in_lambda(process, n) for n in (steps, 2 * steps)]
        if mixture is ONE:
            truth = exact_end(process, NOISE, sigmas[0][0], sigmas[0][-1])
        else:
            truth = fine_run(process)
        coarse, fine = ((EVERY[name](denoise, NOISE, s, process) - truth).abs().mean().item() for s in sigmas)
        slope = math.log2(coarse / fine)
        assert order - 0.25 < slope < order + 0.75, f"slope {slope:.2f}"
        assert fine < (0.05 if order == 1 else 0.002)


@pytest.mark.parametrize("process", list(PROCESSES.values()), ids=PROCESSES)
@pytest.mark.parametrize("name", EVERY)
def test_thirty_steps_draw_the_distribution(process: Process, name: str) -> None:
    noise = torch.randn(1, 1, 1, 100, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight, mean, deviation = (part.double() for part in THREE)
    drawn = EVERY[name](posterior_mean(process, THREE), noise, process.sigmas(30), process)
    expected_mean = (weight * mean).sum()
    expected_variance = (weight * (mean**2 + deviation**2)).sum() - expected_mean**2
    assert abs(drawn.mean() - expected_mean) < 0.05
    first_order = name in ("euler", "ddim", "dpmpp_1")  # these still shrink the spread at 30 steps
    assert abs(drawn.var() / expected_variance - 1) < (0.15 if first_order else 0.05)


@pytest.mark.parametrize("process", list(PROCESSES.values()), ids=PROCESSES)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_the_three_first_order_methods_are_one(process: Process, steps: int) -> None:
    denoise, sigmas = posterior_mean(process, THREE), process.sigmas(steps)
    ends = [SAMPLERS[name](denoise, NOISE, sigmas, process) for name in ("euler", "ddim", "dpmpp_1")]
    torch.testing.assert_close(ends[1], ends[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(ends[2], ends[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("process", [*PROCESSES.values(), Process(path="vp", prediction="v")], ids=repr)
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("steps", [1, 2, 3, 16])
def test_a_known_answer_is_reached_exactly(process: Process, name: str, steps: int) -> None:
    """From pure noise, where lambda is -inf, to sigma 0, where it is +inf: nothing infinite leaks out, and a
    denoiser that always answers the same clip gets that clip, to the last bit of its type."""
    for dtype in (torch.float32, torch.float64):
        x0 = torch.sin(torch.arange(64, dtype=dtype)).reshape(1, 2, 2, 4, 4)
        end = EVERY[name](lambda z, sigma, x0=x0: x0, NOISE.to(dtype), process.sigmas(steps), process)
        assert end.dtype == dtype
        assert torch.equal(end, x0)


@pytest.mark.parametrize("name", EVERY)
def test_every_denoiser_call_gets_the_level_in_the_right_type(name: str) -> None:
    process, seen = Process(), []

    def denoise(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(sigma)
        return torch.zeros_like(z, dtype=torch.bfloat16)  # a model in half precision

    end = EVERY[name](denoise, NOISE.float(), process.sigmas(5), process)
    assert end.dtype == torch.float32
    assert all(s.shape == () and s.dtype == torch.float32 and 0 < s <= 1 for s in seen)
    assert len(seen) == (9 if name == "heun" else 5)


@pytest.mark.parametrize("name", EVERY)
def test_stopping_early_returns_the_clip_foreseen_so_far(name: str) -> None:
    process = Process()
    told: list[StepInfo] = []

    def on_step(info: StepInfo) -> bool:
        told.append(info)
        return info.step < 4

    sigmas = process.sigmas(10)
    end = EVERY[name](posterior_mean(process, THREE), NOISE, sigmas, process, on_step)
    assert [info.step for info in told] == [1, 2, 3, 4]
    assert {info.steps for info in told} == {10}
    assert [info.sigma for info in told] == sigmas[:4].tolist()
    assert torch.equal(end, told[-1].x0)


@pytest.mark.parametrize("name", EVERY)
def test_watching_changes_nothing(name: str) -> None:
    process, denoise = Process(), posterior_mean(Process(), THREE)
    told: list[int] = []
    watched = EVERY[name](
        denoise, NOISE, process.sigmas(6), process, lambda info: told.append(info.step) or None
    )
    assert told == [1, 2, 3, 4, 5, 6]
    assert torch.equal(watched, EVERY[name](denoise, NOISE, process.sigmas(6), process))


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("levels", [[1.0], [0.0, 1.0], [1.0, 0.5, 0.5, 0.0], [1.2, 0.0], [0.5, -0.1]])
def test_levels_that_do_not_fall_within_bounds_are_refused(sampler: Sampler, levels: list[float]) -> None:
    with pytest.raises(InputError, match="sigmas"):
        sampler(lambda z, sigma: z, NOISE, torch.tensor(levels), Process())


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_renoising_asks_at_every_level_with_noise_of_its_own(process: Process) -> None:
    target, asked, seen = torch.full_like(NOISE, 0.3), [], []

    def denoise(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        asked.append((float(sigma), z))
        return target

    def fresh(step: int) -> torch.Tensor:
        return NOISE.flip(-1) * step

    sigmas = torch.tensor([0.99, 0.7, 0.4, 0.0])
    found = renoise(fresh)(denoise, NOISE, sigmas, process, lambda info: seen.append(info.step))
    assert torch.equal(found, target)
    assert seen == [1, 2, 3]
    for step, (level, z) in enumerate(asked):
        expected = NOISE if not step else process.noised(target, fresh(step), torch.tensor(level).double())
        torch.testing.assert_close(z, expected)
    stopped = renoise(fresh)(denoise, NOISE, sigmas, process, lambda info: info.step < 2)
    assert torch.equal(stopped, target)
