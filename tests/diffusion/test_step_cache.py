"""The step cache on functions whose answers are known."""

import pytest
import torch

from mutoscope.diffusion.process import Process
from mutoscope.diffusion.sampler import SAMPLERS
from mutoscope.diffusion.step_cache import StepCache

PROCESS = Process()


class Bend:
    """A model whose velocity turns slowly; it counts how often it is asked."""

    def __init__(self, amount: float) -> None:
        self.amount, self.asked = amount, list[bool]()

    def __call__(self, latent: torch.Tensor, sigma: torch.Tensor, both: bool, /) -> torch.Tensor:
        self.asked.append(both)
        velocity = 1 + self.amount * (latent * sigma).sin()
        x0 = latent - sigma * velocity
        return torch.cat([x0, x0 - sigma]) if both else x0


def run(model: Bend, threshold: float, sampler: str = "euler", steps: int = 40) -> torch.Tensor:
    asked = StepCache(model, PROCESS, threshold) if threshold else model
    noise = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return SAMPLERS[sampler](
        lambda latent, sigma: asked(latent, sigma, False), noise, PROCESS.sigmas(steps), PROCESS
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_velocity_that_stays_is_asked_for_twice(sampler: str) -> None:
    model = Bend(0.0)
    exact, found = run(Bend(0.0), 0.0, sampler), run(model, 0.01, sampler)
    assert len(model.asked) == 2
    torch.testing.assert_close(found, exact)


def test_a_larger_threshold_asks_less_often_and_errs_more() -> None:
    exact, counts, errors = run(Bend(0.5), 0.0), [], []
    for threshold in (0.01, 0.05, 0.2):
        model = Bend(0.5)
        errors.append(float((run(model, threshold) - exact).abs().max()))
        counts.append(len(model.asked))
    assert 40 > counts[0] > counts[1] > counts[2] >= 2
    assert errors[0] < errors[1] < errors[2] < 0.2


def test_the_line_is_nearer_than_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = run(Bend(0.5), 0.0)
    near = (run(Bend(0.5), 0.05) - exact).abs().mean()
    monkeypatch.setattr("mutoscope.diffusion.step_cache.SHARE", 0.0)
    assert near < (run(Bend(0.5), 0.05) - exact).abs().mean()


def test_when_guidance_begins_the_model_is_asked_again() -> None:
    model = Bend(0.0)
    cache = StepCache(model, PROCESS, 0.5)
    latent = torch.ones(1, 1, 1, 2, 2)
    for level in (0.9, 0.8, 0.7, 0.6):
        cache(latent * level, torch.tensor(level), False)
    for level in (0.5, 0.4, 0.3, 0.2):
        x0 = cache(latent * level, torch.tensor(level), True)
        assert len(x0) == 2
    assert model.asked == [False, False, True, True]
    torch.testing.assert_close(x0, Bend(0.0)(latent * 0.2, torch.tensor(0.2), True), atol=1e-4, rtol=1e-4)
