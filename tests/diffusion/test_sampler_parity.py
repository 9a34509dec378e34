"""Parity with diffusers: the same levels, the same known denoiser, the same clip."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from mutoscope.diffusion.process import Process
from mutoscope.diffusion.sampler import ddim, dpmpp_1, dpmpp_2m, dpmpp_3m, euler, heun, unipc

# numpy's remark on how diffusers reads its tables
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NOISE = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FLOW = Process()
MULTISTEP = {1: dpmpp_1, 2: dpmpp_2m, 3: dpmpp_3m}
NAMES = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample", "velocity": "flow_prediction"}
STEPS = [4, 10, 20, 50]


def curved(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """A smooth denoiser with curvature in both arguments, about as large as data."""
    return torch.tanh(z * (1.2 - sigma) + 0.4 * torch.sin(3 * sigma)) + 0.2 * sigma * z


def theirs(scheduler: Any, process: Process, levels: torch.Tensor) -> torch.Tensor:
    """Runs a scheduler of diffusers on `curved`, giving it the prediction that `process` names."""
    z = NOISE.clone()
    for timestep, sigma in zip(scheduler.timesteps, levels, strict=True):
        x0 = curved(z, sigma)
        epsilon = (z - process.alpha(sigma) * x0) / sigma
        z = scheduler.step(process.target(x0, epsilon, sigma), timestep, z).prev_sample.double()
    return z


def assert_same(sampler: Callable[..., torch.Tensor], scheduler: Any, process: Process) -> None:
    """Compares on the scheduler's own levels, which for the VP path it keeps as sigma / alpha."""
    levels = scheduler.sigmas.double()
    if process.path == "vp":
        levels = levels / (1 + levels**2).sqrt()
    ours = sampler(curved, NOISE, levels, process)
    assert ours.std() > 0.3
    torch.testing.assert_close(ours, theirs(scheduler, process, levels[:-1]), atol=2e-5, rtol=0)


def vp(prediction: str) -> Process:
    return Process(path="vp", schedule="linear", prediction=prediction)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", MULTISTEP)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_dpm_solver_on_the_variance_preserving_path(prediction: str, order: int, steps: int) -> None:
    scheduler = DPMSolverMultistepScheduler(
        solver_order=order, prediction_type=NAMES[prediction], timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    assert_same(MULTISTEP[order], scheduler, vp(prediction))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", MULTISTEP)
def test_dpm_solver_on_the_flow_path(order: int, steps: int) -> None:
    scheduler = DPMSolverMultistepScheduler(
        solver_order=order, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(steps)
    assert_same(MULTISTEP[order], scheduler, FLOW)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_unipc_on_the_variance_preserving_path(prediction: str, order: int, steps: int) -> None:
    scheduler = UniPCMultistepScheduler(
        solver_order=order, prediction_type=NAMES[prediction], timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    assert_same(partial(unipc, order=order), scheduler, vp(prediction))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_on_the_flow_path(order: int, steps: int) -> None:
    scheduler = UniPCMultistepScheduler(
        solver_order=order, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(steps)
    assert_same(partial(unipc, order=order), scheduler, FLOW)


@pytest.mark.parametrize("steps", STEPS)
def test_euler_on_our_own_flow_levels(steps: int) -> None:
    levels = FLOW.sigmas(steps, shift=3.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, steps + 1)[:-1].tolist())
    torch.testing.assert_close(scheduler.sigmas.double(), levels, atol=1e-6, rtol=0)
    torch.testing.assert_close(scheduler.timesteps.double(), FLOW.timestep(levels)[:-1], atol=1e-3, rtol=0)
    assert_same(euler, scheduler, FLOW)


@pytest.mark.parametrize("steps", STEPS)
def test_heun_on_the_flow_path(steps: int) -> None:
    scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    levels = scheduler.timesteps.double() / 1000  # each but the first twice: the two ends of each step
    once = torch.cat([levels[:1], levels[1::2], torch.zeros(1)])
    ours = heun(curved, NOISE, once, FLOW)
    torch.testing.assert_close(ours, theirs(scheduler, FLOW, levels), atol=2e-5, rtol=0)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_ddim_on_our_own_levels(prediction: str, steps: int) -> None:
    """The whole chain for the linear schedule: our trailing levels are theirs, and so is the clip."""
    process = vp(prediction)
    levels = process.sigmas(steps)
    scheduler = DDIMScheduler(
        prediction_type=NAMES[prediction],
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    scheduler.set_timesteps(steps)
    assert torch.equal(process.timestep(levels[:-1]).round().long() - 1, scheduler.timesteps)
    ours = ddim(curved, NOISE, levels, process)
    torch.testing.assert_close(ours, theirs(scheduler, process, levels[:-1]), atol=5e-5, rtol=0)


@pytest.mark.parametrize(("ours", "name"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_the_cumulative_schedules_are_the_usual_tables(ours: str, name: str) -> None:
    table = DDIMScheduler(beta_schedule=name).alphas_cumprod.double()
    process = Process(path="vp", schedule=ours, prediction="v")  # type: ignore[arg-type]
    sigma = process.sigma_of(torch.arange(1, 1001, dtype=torch.float64))
    # The last cosine entries differ: the usual table caps beta at 0.999, ours runs on to pure noise.
    torch.testing.assert_close((1 - sigma**2)[:990], table[:990], rtol=2e-4, atol=1e-6)
