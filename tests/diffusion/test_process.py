"""The processes: both paths, four predictions, and where their noise levels lie."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutoscope.diffusion.process import PROCESSES, Process
from mutoscope.errors import InputError

PATHS = [{"path": "flow"}, {"path": "vp"}, {"path": "vp", "schedule": "linear"}]
PREDICTIONS = ["velocity", "epsilon", "x0", "v"]
ALL = [Process(**path, prediction=prediction) for path in PATHS for prediction in PREDICTIONS]


def clip(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, 2, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("process", ALL, ids=repr)
@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.lists(st.floats(0, 1), min_size=8, max_size=8), st.sampled_from(["", "B", "BT"])
)
def test_the_target_leads_back_to_data_and_noise(
    process: Process, seed: int, levels: list[float], shape: str
) -> None:
    z0, epsilon = clip(seed), clip(seed + 1)
    sigma = torch.tensor(levels, dtype=torch.float64).reshape(2, 4) * process.sigma_max
    sigma[sigma < 1e-6] = 0
    sigma = {"": sigma[0, 0], "B": sigma[:, 0], "BT": sigma}[shape]
    z = process.noised(z0, epsilon, sigma)
    target = process.target(z0, epsilon, sigma)
    worst = 1e-6 if process.prediction == "epsilon" else 1e-8
    torch.testing.assert_close(process.to_x0(target, z, sigma), z0, atol=worst, rtol=0)
    noise = process.to_epsilon(target, z, sigma)
    known = sigma.reshape(sigma.shape[:1] + (1,) + sigma.shape[1:] + (1,) * (4 - sigma.ndim)) == 0
    if process.prediction == "x0":
        epsilon = torch.where(known, 0, epsilon)
    torch.testing.assert_close(noise, epsilon, atol=1e-2 if process.prediction == "x0" else 1e-8, rtol=0)


@pytest.mark.parametrize("process", ALL, ids=repr)
def test_known_frames_come_through_untouched(process: Process) -> None:
    z0, epsilon, garbage = clip(0).float(), clip(1).float(), clip(2).float()
    sigma = torch.tensor([[0.0, 0.3, process.sigma_max, 0.0]] * 2)
    z = process.noised(z0, epsilon, sigma)
    assert torch.equal(z[:, :, [0, 3]], z0[:, :, [0, 3]])
    target = process.target(z0, epsilon, sigma)
    assert process.to_x0(target, z, sigma).isfinite().all()
    assert process.to_epsilon(target, z, sigma).isfinite().all()
    if process.prediction != "x0":
        assert torch.equal(process.to_x0(garbage, z, sigma)[:, :, 0], z0[:, :, 0])
    assert process.loss_weight(sigma).isfinite().all()
    assert (process.timestep(sigma)[:, [0, 3]] < 1e-6).all()


def test_levels_per_clip_and_per_frame_agree() -> None:
    process = PROCESSES["epsilon"]
    z0, epsilon = clip(0), clip(1)
    per_clip = torch.tensor([0.2, 0.9], dtype=torch.float64)
    per_frame = per_clip[:, None].expand(2, 4)
    assert torch.equal(process.noised(z0, epsilon, per_clip), process.noised(z0, epsilon, per_frame))
    alone = process.noised(z0[1:], epsilon[1:], per_clip[1])
    assert torch.equal(process.noised(z0, epsilon, per_clip)[1:], alone)


def test_a_level_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Process().noised(clip(0), clip(1), torch.zeros(2, 1, 1))


@pytest.mark.parametrize("process", ALL, ids=repr)
def test_the_paths_are_what_they_are_called(process: Process) -> None:
    sigma = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha = process.alpha(sigma)
    total = alpha + sigma if process.path == "flow" else alpha**2 + sigma**2
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-12, rtol=0)
    lam = process.log_snr_half(sigma)
    assert (lam.diff() < 0).all()
    assert lam[0] == math.inf
    assert lam[-1] == -math.inf


@pytest.mark.parametrize("process", ALL, ids=repr)
def test_the_timestep_rises_with_noise_and_can_be_inverted(process: Process) -> None:
    sigma = torch.linspace(0, process.sigma_max, 2001, dtype=torch.float64)
    timestep = process.timestep(sigma)
    assert timestep[0].abs() < 1e-9
    assert 800 < timestep[-1] <= 1000
    assert (timestep.diff() > 0).all()
    torch.testing.assert_close(process.sigma_of(timestep), sigma, atol=1e-9, rtol=0)
    rough = process.timestep(sigma.float())
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), timestep, atol=0.5, rtol=0)


def test_the_cosine_timestep_has_a_gradient() -> None:
    process = PROCESSES["epsilon"]
    sigma = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(process.timestep(sigma).sum(), sigma)
    step = 1e-6
    measured = (process.timestep(sigma + step) - process.timestep(sigma - step)) / (2 * step)
    torch.testing.assert_close(slope, measured.detach(), rtol=1e-6, atol=0)


def test_min_snr_weights() -> None:
    sigma = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    snr = (1 - sigma**2) / sigma**2
    capped = snr.clamp(max=5)
    weights = {
        "epsilon": capped / snr,
        "v": capped / (snr + 1),
        "x0": capped,
        "velocity": capped / (snr.sqrt() + 1) ** 2,
    }
    for prediction, expected in weights.items():
        weight = Process(path="vp", prediction=prediction).loss_weight(sigma)  # type: ignore[arg-type]
        torch.testing.assert_close(weight, expected)
    assert torch.equal(Process().loss_weight(sigma), torch.ones_like(sigma))


def test_weighted_losses_of_all_predictions_measure_the_same_error() -> None:
    z0, epsilon, error = clip(0), clip(1), 0.01 * clip(2)
    sigma = torch.tensor(0.6, dtype=torch.float64)
    losses = []
    for prediction in PREDICTIONS:
        process = Process(path="vp", prediction=prediction)  # type: ignore[arg-type]
        z = process.noised(z0, epsilon, sigma)
        wrong_epsilon = (z - process.alpha(sigma) * (z0 + error)) / sigma
        difference = process.target(z0 + error, wrong_epsilon, sigma) - process.target(z0, epsilon, sigma)
        losses.append(process.loss_weight(sigma) * difference.square().mean())
    torch.testing.assert_close(torch.stack(losses), losses[0].expand(4))


@pytest.mark.parametrize("process", list(PROCESSES.values()), ids=PROCESSES)
def test_a_batch_of_levels_covers_every_quantile(process: Process) -> None:
    n = 64
    sigma = process.sample_sigma(n, torch.Generator().manual_seed(3), tokens=320)
    edges = process.quantile(torch.linspace(0, 1, n + 1), tokens=320)
    ordered = sigma.sort().values
    assert (ordered >= edges[:-1] - 1e-6).all()
    assert (ordered <= edges[1:] + 1e-6).all()
    assert not torch.equal(ordered, sigma)
    assert torch.equal(sigma, process.sample_sigma(n, torch.Generator().manual_seed(3), tokens=320))
    assert sigma.dtype == torch.float32
    assert sigma.max() <= process.sigma_max


def test_flow_levels_are_logit_normal_and_shifted_by_size() -> None:
    process = Process(logit_mean=0.2, logit_std=0.7, reference_tokens=100)
    generator = torch.Generator().manual_seed(0)
    plain = torch.logit(process.sample_sigma(20_000, generator).double())
    assert abs(plain.mean() - 0.2) < 1e-3
    assert abs(plain.std() - 0.7) < 2e-3
    # A shift s multiplies sigma / (1 - sigma) by s.
    large = torch.logit(process.sample_sigma(20_000, generator, tokens=400).double())
    assert abs(large.mean() - 0.2 - math.log(2)) < 1e-3
    tokens = torch.tensor([100, 400] * 10_000)
    mixed = torch.logit(process.sample_sigma(20_000, generator, tokens).double())
    assert abs(mixed[1::2].mean() - mixed[::2].mean() - math.log(2)) < 0.05


def test_epsilon_levels_are_uniform_in_the_timestep() -> None:
    process = PROCESSES["epsilon"]
    timestep = process.timestep(process.sample_sigma(10_000, torch.Generator().manual_seed(0)))
    end = process.timestep(torch.tensor(process.sigma_max)).item()
    even = (torch.arange(10_000) + 0.5) / 10_000 * end
    torch.testing.assert_close(timestep.sort().values, even, atol=0.2, rtol=0)


def test_the_shift_grows_with_the_root_of_the_tokens_within_bounds() -> None:
    shifts = Process().shift(torch.tensor([8, 80, 320, 80 * 36, 10**6]))
    assert shifts.tolist() == [1, 1, 2, 6, 6]
    assert Process().shift(None) == 1


@pytest.mark.parametrize("process", ALL, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_a_run_falls_from_the_noisiest_level_to_zero(process: Process, steps: int) -> None:
    sigmas = process.sigmas(steps, tokens=1280)
    assert sigmas.shape == (steps + 1,)
    assert sigmas[0].item() == pytest.approx(process.sigma_max, abs=1e-12)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_flow_runs_shift_and_epsilon_runs_trail() -> None:
    t = torch.linspace(1, 0, 11, dtype=torch.float64)
    torch.testing.assert_close(Process().sigmas(10), t)
    torch.testing.assert_close(Process().sigmas(10, shift=3.3), 3.3 * t / (1 + 2.3 * t))
    torch.testing.assert_close(Process().sigmas(10, tokens=320), 2 * t / (1 + t))
    timestep = PROCESSES["epsilon"].timestep(PROCESSES["epsilon"].sigmas(10))
    torch.testing.assert_close(timestep, timestep[0] * t)


def test_the_noisiest_level_keeps_the_terminal_snr() -> None:
    for process in (Process(terminal_snr=0.01), Process(path="vp", terminal_snr=0.01)):
        snr = torch.exp(2 * process.log_snr_half(torch.tensor(process.sigma_max, dtype=torch.float64)))
        assert snr.item() == pytest.approx(0.01)
    assert Process().sigma_max == 1
    assert PROCESSES["epsilon"].sigma_max == pytest.approx(math.sqrt(1 / 1.001))
    assert Process(path="vp", schedule="linear", prediction="epsilon").sigma_max == pytest.approx(
        math.sqrt(1 - 4.0358e-5), abs=1e-8
    )


def test_clipping_bounds_the_data() -> None:
    x0 = torch.tensor([-9.0, 1.0, 9.0])
    assert PROCESSES["epsilon"].clipped(x0).tolist() == [-4, 1, 4]
    assert torch.equal(Process().clipped(x0), x0)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"path": "ve"}, "path = 've'"),
        ({"prediction": "score"}, "prediction = 'score'"),
        ({"schedule": "sqrt"}, "schedule = 'sqrt'"),
        ({"terminal_snr": -1.0}, "terminal_snr = -1.0"),
        ({"terminal_snr": 0.0, "prediction": "epsilon"}, "terminal_snr = 0"),
        ({"logit_std": 0.0}, "logit_std = 0.0"),
        ({"min_snr": float("nan")}, "min_snr = nan"),
        ({"clip_x0": -4.0}, "clip_x0 = -4.0"),
        ({"reference_tokens": 0}, "reference_tokens = 0"),
        ({"max_shift": 0.5}, "max_shift = 0.5"),
    ],
)
def test_values_out_of_range_are_named(fields: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Process(**fields)  # type: ignore[arg-type]


def test_runs_without_steps_or_with_a_negative_shift_are_refused() -> None:
    with pytest.raises(InputError, match="steps = 0"):
        Process().sigmas(0)
    with pytest.raises(InputError, match=r"shift = -1\.0"):
        Process().sigmas(4, shift=-1.0)
