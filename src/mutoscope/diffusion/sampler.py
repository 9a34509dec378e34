"""Samplers: plain functions of one signature that turn noise into a latent.

``sampler(denoise, latent, sigmas, process, on_step=None) -> latent`` where ``denoise(latent, sigma) -> x0``.
A sampler knows neither the model nor its prediction; guidance, known frames and caching wrap the denoiser.
All of them serve every process, since they only use alpha, sigma and lambda = log(alpha / sigma) at the given
levels; lambda is -inf where the run starts from pure noise and +inf at its end, and the formulas below hold
in these limits.

Euler, DDIM and first-order DPM-Solver++ are one method in three guises (they assume x0 and epsilon constant
over the step), kept under the names by which people ask for them. Costs: one model call per step, Heun two
(one in the last).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from mutoscope.diffusion.process import Process
from mutoscope.errors import InputError

# Below, the multistep solvers also lower their order before the last step, as their authors advise.
FEW_STEPS = 15


@dataclass(frozen=True)
class StepInfo:
    """Progress: `step` of `steps` (from 1), the noise level before it and the x0 foreseen from there."""

    step: int
    steps: int
    sigma: float
    x0: Tensor


Denoise = Callable[[Tensor, Tensor], Tensor]  # (latent_BCTHW, sigma ()) -> x0_BCTHW
OnStep = Callable[[StepInfo], bool | None]  # False stops the run, which then returns x0 as it is


class Sampler(Protocol):
    def __call__(
        self,
        denoise: Denoise,
        latent_BCTHW: Tensor,
        sigmas: Tensor,
        process: Process,
        on_step: OnStep | None = None,
        /,
    ) -> Tensor: ...


def euler(
    denoise: Denoise, latent_BCTHW: Tensor, sigmas: Tensor, process: Process, on_step: OnStep | None = None
) -> Tensor:
    """Euler's method on the straight path.

    Divided by alpha + sigma, every process becomes the flow path: y = (1 - s) z0 + s epsilon, s = sigma /
    (alpha + sigma), dy/ds = epsilon - z0 = (y - x0) / s. For flow matching nothing changes by that.
    """
    nodes, z = _nodes(sigmas, process), latent_BCTHW
    for step, (here, there) in enumerate(pairwise(nodes), start=1):
        x0 = _denoised(denoise, z, here)
        if _told_to_stop(on_step, StepInfo(step, len(nodes) - 1, here.sigma, x0)):
            return x0
        y = z / here.scale
        z = there.scale * (x0 + there.time / here.time * (y - x0))
    return z


def heun(
    denoise: Denoise, latent_BCTHW: Tensor, sigmas: Tensor, process: Process, on_step: OnStep | None = None
) -> Tensor:
    """Heun's method on the straight path (see `euler`): the mean of the slopes at both ends of the step
    (Karras et al. 2022, algorithm 1). A step to sigma 0, where the slope has no value, is Euler's."""
    nodes, z = _nodes(sigmas, process), latent_BCTHW
    for step, (here, there) in enumerate(pairwise(nodes), start=1):
        x0 = _denoised(denoise, z, here)
        if _told_to_stop(on_step, StepInfo(step, len(nodes) - 1, here.sigma, x0)):
            return x0
        y = z / here.scale
        ahead = x0 + there.time / here.time * (y - x0)
        if there.time > 0:
            slope = (y - x0) / here.time
            slope_ahead = (ahead - _denoised(denoise, there.scale * ahead, there)) / there.time
            ahead = y + (there.time - here.time) * (slope + slope_ahead) / 2
        z = there.scale * ahead
    return z


def ddim(
    denoise: Denoise, latent_BCTHW: Tensor, sigmas: Tensor, process: Process, on_step: OnStep | None = None
) -> Tensor:
    """DDIM without added noise (Song et al. 2021, eta = 0): z' = alpha' x0 + sigma' epsilon."""
    nodes, z = _nodes(sigmas, process), latent_BCTHW
    for step, (here, there) in enumerate(pairwise(nodes), start=1):
        x0 = _denoised(denoise, z, here)
        if _told_to_stop(on_step, StepInfo(step, len(nodes) - 1, here.sigma, x0)):
            return x0
        epsilon = (z - here.alpha * x0) / here.sigma
        z = there.alpha * x0 + there.sigma * epsilon
    return z


def dpmpp_1(
    denoise: Denoise, latent_BCTHW: Tensor, sigmas: Tensor, process: Process, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++ of first order (Lu et al. 2022)."""
    return _dpmpp(denoise, latent_BCTHW, sigmas, process, on_step, order=1)


def dpmpp_2m(
    denoise: Denoise, latent_BCTHW: Tensor, sigmas: Tensor, process: Process, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++(2M), multistep of second order, midpoint form (Lu et al. 2022)."""
    return _dpmpp(denoise, latent_BCTHW, sigmas, process, on_step, order=2)


def dpmpp_3m(
    denoise: Denoise, latent_BCTHW: Tensor, sigmas: Tensor, process: Process, on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++(3M), multistep on three points (Lu et al. 2022), as published and as everybody runs it.

    The published step puts the second divided difference in the place of the second derivative, which is
    twice that, so the method converges with order 2, not 3. With the factor restored it has order 3, but it
    is less exact in runs of 8 to 50 steps; `unipc` is the sampler of third order.
    """
    return _dpmpp(denoise, latent_BCTHW, sigmas, process, on_step, order=3)


def unipc(
    denoise: Denoise,
    latent_BCTHW: Tensor,
    sigmas: Tensor,
    process: Process,
    on_step: OnStep | None = None,
    order: int = 2,
) -> Tensor:
    """UniPC on x0 with B(h) = expm1(h) ("bh2"), multistep, order 1 to 3 (Zhao et al. 2023).

    Every model call serves twice: it corrects the latent at which it was made, and predicts the next one.
    """
    nodes, z = _nodes(sigmas, process), latent_BCTHW
    past: list[_Point] = []  # newest first
    before: Tensor | None = None  # the corrected latent from which the last step was taken, and
    before_order = 1  # the order of that step
    for step, (here, there) in enumerate(pairwise(nodes), start=1):
        x0 = _denoised(denoise, z, here)
        if _told_to_stop(on_step, StepInfo(step, len(nodes) - 1, here.sigma, x0)):
            return x0
        if before is not None:
            z = _unipc_step(before, past[:before_order], here, x0)
        past = [_Point(here, x0), *(p for p in past if math.isfinite(p.node.lam))][:order]
        before, before_order = z, min(len(past), _order_left(step, nodes, order, always=True))
        z = _unipc_step(before, past[:before_order], there, None)
    return z


def renoise(fresh: Callable[[int], Tensor]) -> Sampler:
    """The sampler of models distilled by matching distributions (DMD2, Yin et al. 2024, arXiv 2405.14867): what is
    foreseen at each level is noised anew to the next one. fresh: standard normal noise of a step, from 1."""

    def sampler(
        denoise: Denoise,
        latent_BCTHW: Tensor,
        sigmas: Tensor,
        process: Process,
        on_step: OnStep | None = None,
        /,
    ) -> Tensor:
        nodes, z = _nodes(sigmas, process), latent_BCTHW
        for step, (here, there) in enumerate(pairwise(nodes), start=1):
            x0 = _denoised(denoise, z, here)
            if _told_to_stop(on_step, StepInfo(step, len(nodes) - 1, here.sigma, x0)):
                return x0
            z = there.alpha * x0 + there.sigma * fresh(step).to(z) if there.sigma else x0
        return z

    return sampler


@dataclass(frozen=True)
class _Node:
    """One noise level: z = alpha z0 + sigma epsilon; lam = log(alpha / sigma); `euler` says what scale and
    time are."""

    sigma: float
    alpha: float
    lam: float

    @property
    def scale(self) -> float:
        return self.alpha + self.sigma

    @property
    def time(self) -> float:
        return self.sigma / self.scale


@dataclass(frozen=True)
class _Point:
    """A noise level at which the model was asked, and its answer."""

    node: _Node
    x0: Tensor


def _nodes(sigmas: Tensor, process: Process) -> list[_Node]:
    levels = sigmas.detach().to("cpu", torch.float64)
    if levels.ndim != 1 or len(levels) < 2 or not bool((levels.diff() < 0).all()):
        raise InputError(
            f"sigmas {levels.tolist()} must be two or more, strictly falling; use Process.sigmas(steps)."
        )
    if levels[0] > 1 or levels[-1] < 0:
        raise InputError(f"sigmas {levels.tolist()} must lie in 0 to 1; use Process.sigmas(steps).")
    rows = zip(
        levels.tolist(), process.alpha(levels).tolist(), process.log_snr_half(levels).tolist(), strict=True
    )
    return [_Node(*row) for row in rows]


def _denoised(denoise: Denoise, z: Tensor, node: _Node) -> Tensor:
    sigma = torch.tensor(node.sigma, dtype=torch.promote_types(z.dtype, torch.float32), device=z.device)
    return denoise(z, sigma).to(z.dtype)


def _told_to_stop(on_step: OnStep | None, info: StepInfo) -> bool:
    return on_step is not None and on_step(info) is False


def _order_left(step: int, nodes: list[_Node], order: int, always: bool) -> int:
    """The order that step (from 1) may use: a run to sigma 0 ends with a first-order step, the only one that
    is defined there; short runs (or `always`) come down to it by one order a step, which is steadier."""
    steps = len(nodes) - 1
    if nodes[-1].sigma > 0:
        return order
    if always or steps < FEW_STEPS:
        return min(order, steps - step + 1)
    return 1 if step == steps else order


def _dpmpp(
    denoise: Denoise, latent: Tensor, sigmas: Tensor, process: Process, on_step: OnStep | None, order: int
) -> Tensor:
    nodes, z = _nodes(sigmas, process), latent
    past: list[_Point] = []  # newest first; from pure noise (lam -inf) no finite difference can be taken
    for step, (here, there) in enumerate(pairwise(nodes), start=1):
        x0 = _denoised(denoise, z, here)
        if _told_to_stop(on_step, StepInfo(step, len(nodes) - 1, here.sigma, x0)):
            return x0
        past = [_Point(here, x0), *(p for p in past if math.isfinite(p.node.lam))][:order]
        points = past[: _order_left(step, nodes, order, always=False)]
        z = there.sigma / here.sigma * z + there.alpha * _mean_x0(points, there)
    return z


def _mean_x0(points: list[_Point], there: _Node) -> Tensor:
    """Integral over the step of exp(lambda - lambda') x0(lambda), x0 extrapolated from one to three
    points."""
    here = points[0].node
    h = there.lam - here.lam
    share = -math.expm1(-h)
    m0 = points[0].x0
    if len(points) == 1:
        return share * m0
    r0 = (here.lam - points[1].node.lam) / h
    slope0 = (m0 - points[1].x0) / r0
    if len(points) == 2:
        return share * (m0 + slope0 / 2)
    r1 = (points[1].node.lam - points[2].node.lam) / h
    slope1 = (points[1].x0 - points[2].x0) / r1
    curve = (slope0 - slope1) / (r0 + r1)
    slope = slope0 + r0 * curve
    return share * m0 + (1 - share / h) * slope - ((h - share) / h**2 - 0.5) * curve


def _unipc_step(z: Tensor, points: list[_Point], there: _Node, x0_there: Tensor | None) -> Tensor:
    """From z at points[0] to `there`: UniP if the model's answer there is unknown, UniC if it is given.

    points: newest first, as many as the order. The weights of the differences of x0 solve the small linear
    system that makes the step exact for polynomials in lambda; where it has one unknown the authors take 1/2
    instead.
    """
    here, m0 = points[0].node, points[0].x0
    h = there.lam - here.lam
    share = -math.expm1(-h)
    ratios = [(p.node.lam - here.lam) / h for p in points[1:]]
    terms = [(p.x0 - m0) / r for p, r in zip(points[1:], ratios, strict=True)]
    if x0_there is not None:
        ratios.append(1.0)
        terms.append(x0_there - m0)
    mean = m0
    for weight, term in zip(_unipc_weights(ratios, h), terms, strict=True):
        mean = mean + weight * term
    return there.sigma / here.sigma * z + there.alpha * share * mean


def _unipc_weights(ratios: list[float], h: float) -> list[float]:
    """Weights of the differences of x0, taken at these ratios of the step h, that make it exact for every
    polynomial in lambda of degree len(ratios): the system R(h) a = b(h) of the paper."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    rows, right = [], []
    base = math.expm1(-h)
    phi, factorial = base / -h - 1, 1
    for n in range(1, len(ratios) + 1):
        rows.append([r ** (n - 1) for r in ratios])
        right.append(phi * factorial / base)
        factorial *= n + 1
        phi = phi / -h - 1 / factorial
    system = torch.tensor(rows, dtype=torch.float64)
    weights: list[float] = torch.linalg.solve(system, torch.tensor(right, dtype=torch.float64)).tolist()
    return weights


SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "heun": heun,
    "ddim": ddim,
    "dpmpp_1": dpmpp_1,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    "unipc": unipc,
}
