"""The noising processes: z = alpha(sigma) z0 + sigma epsilon, with sigma in [0, 1], 1 = noise, 0 = data.

Two paths share this convention, and samplers, guidance and training are written against it:

* ``flow``: the straight path of flow matching, alpha = 1 - sigma (Lipman et al. 2023; Esser et al. 2024).
* ``vp``: the variance-preserving path of the cumulative schedule, alpha = sqrt(1 - sigma^2), where
  sigma^2 = 1 - abar(tau) and abar is the cosine (Nichol & Dhariwal 2021) or the linear (Ho et al. 2020)
  schedule.

Four predictions are understood on both: ``velocity`` = epsilon - z0 (Wan's and FLUX's sign), ``epsilon``,
``x0``, and ``v`` = alpha epsilon - sigma z0 (Salimans & Ho 2022). All are affine in z0 given z, so each turns
into the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from mutoscope.errors import InputError

TIMESTEPS = (
    1000  # the model's timestep runs over [0, TIMESTEPS]; also the table length of the linear schedule
)
EPSILON_TERMINAL_SNR = 1e-3  # an epsilon prediction says nothing about z0 at SNR 0: its path ends before

Path = Literal["flow", "vp"]
Prediction = Literal["velocity", "epsilon", "x0", "v"]
Schedule = Literal["cosine", "linear"]


@dataclass(frozen=True)
class Process:
    """A path, what the model predicts on it, and how training and sampling place their noise levels.

    path, prediction: see the module's text. schedule: the cumulative schedule abar, used by ``vp`` only.
    terminal_snr: (alpha/sigma)^2 at the noisiest level that is ever used; None means the path's own end:
        4e-5 for the linear schedule, 0 (pure noise) else, though 1e-3 for ``epsilon``, undefined at 0.
    min_snr: gamma of min-SNR weighting (Hang et al. 2023), ``vp`` only.
    clip_x0: bound put on |z0| while sampling, after guidance; None for none. Worth 4 for ``epsilon`` on
        unit-variance latents, since z0 = (z - sigma epsilon) / alpha magnifies errors, 32 times at the start.
    logit_mean, logit_std: density of sigma in training, sigmoid(N(mean, std)), ``flow`` only (SD3).
    reference_tokens, max_shift: the shift for a clip of n tokens is sqrt(n / reference_tokens) clipped to
        [1, max_shift], ``flow`` only (SD3): more tokens need more noise to hide the same content.

    Raises InputError for values out of range.
    """

    path: Path = "flow"
    prediction: Prediction = "velocity"
    schedule: Schedule = "cosine"
    terminal_snr: float | None = None
    min_snr: float = 5.0
    clip_x0: float | None = None
    logit_mean: float = 0.0
    logit_std: float = 1.0
    reference_tokens: int = 80
    max_shift: float = 6.0

    def __post_init__(self) -> None:
        _among("path", self.path, ("flow", "vp"))
        _among("prediction", self.prediction, ("velocity", "epsilon", "x0", "v"))
        _among("schedule", self.schedule, ("cosine", "linear"))
        if self.terminal_snr is not None and not 0 <= self.terminal_snr < 1:
            raise InputError(f"terminal_snr = {self.terminal_snr} is outside [0, 1); use 0.001.")
        if self.terminal_snr == 0 and self.prediction == "epsilon":
            raise InputError(
                "terminal_snr = 0 leaves an epsilon prediction undefined; use 0.001 or predict v."
            )
        for name in ("min_snr", "logit_std", "reference_tokens", "clip_x0"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} = {value} must be greater than 0; leave it out for the default.")
        if self.max_shift < 1:
            raise InputError(f"max_shift = {self.max_shift} must be at least 1; 1 turns the shift off.")

    # -- the path --------------------------------------------------------------------------------------------

    def alpha(self, sigma: Tensor) -> Tensor:
        """Share of the data at noise level sigma in [0, 1], any shape, same shape and dtype out."""
        if self.path == "flow":
            return 1 - sigma
        return ((1 - sigma) * (1 + sigma)).sqrt()

    def log_snr_half(self, sigma: Tensor) -> Tensor:
        """lambda = log(alpha / sigma), the samplers' time: +inf at sigma 0, -inf where alpha is 0."""
        return self.alpha(sigma).log() - sigma.log()

    def timestep(self, sigma: Tensor) -> Tensor:
        """What the model is told, in [0, 1000], any shape: 1000 sigma (flow) or 1000 tau (vp)."""
        if self.path == "flow":
            return TIMESTEPS * sigma
        tau = _cosine_tau(_precise(sigma)) if self.schedule == "cosine" else _linear_tau(_precise(sigma))
        return (TIMESTEPS * tau).to(sigma.dtype)

    def sigma_of(self, timestep: Tensor) -> Tensor:
        """The inverse of `timestep`: noise level of a (continuous) timestep in [0, 1000], any shape."""
        tau = _precise(timestep) / TIMESTEPS
        if self.path == "flow":
            return tau.to(timestep.dtype)
        return (_cosine_sigma(tau) if self.schedule == "cosine" else _linear_sigma(tau)).to(timestep.dtype)

    @property
    def sigma_max(self) -> float:
        """The noisiest level that training and sampling use."""
        end = self.sigma_of(torch.tensor(float(TIMESTEPS), dtype=torch.float64)).item()
        snr = self.terminal_snr
        if snr is None:
            ends_in_noise = self.path == "flow" or self.schedule == "cosine"
            snr = EPSILON_TERMINAL_SNR if self.prediction == "epsilon" and ends_in_noise else 0.0
        return min(end, 1 / (1 + math.sqrt(snr)) if self.path == "flow" else 1 / math.sqrt(1 + snr))

    # -- training --------------------------------------------------------------------------------------------

    def noised(self, z0_BCTHW: Tensor, epsilon_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        """z at noise level sigma; sigma is (), (B,) or, one level per latent frame, (B, T)."""
        sigma = spread(sigma, z0_BCTHW)
        return self.alpha(sigma) * z0_BCTHW + sigma * epsilon_BCTHW

    def target(self, z0_BCTHW: Tensor, epsilon_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        """What the model should predict for `noised(z0, epsilon, sigma)`; same shapes."""
        if self.prediction == "velocity":
            return epsilon_BCTHW - z0_BCTHW
        if self.prediction == "epsilon":
            return epsilon_BCTHW
        if self.prediction == "x0":
            return z0_BCTHW
        sigma = spread(sigma, z0_BCTHW)
        return self.alpha(sigma) * epsilon_BCTHW - sigma * z0_BCTHW

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error at sigma; same shape as sigma; finite at sigma 0 and 1.

        flow: 1, the density of `sample_sigma` is the weighting. vp: min(SNR, gamma) on the error of z0 (Hang
        et al. 2023), carried over to the prediction at hand: min(SNR, gamma)/SNR for epsilon,
        min(SNR, gamma)/(SNR + 1) for v.
        """
        if self.path == "flow":
            return torch.ones_like(sigma)
        alpha = self.alpha(sigma)
        if self.prediction == "x0":
            return (alpha / sigma).square().clamp(max=self.min_snr)
        weight = torch.minimum(alpha.square(), self.min_snr * sigma.square())  # sigma^2 min(SNR, gamma)
        if self.prediction == "epsilon":
            return weight / alpha.square()
        if self.prediction == "velocity":
            return weight / (alpha + sigma).square()
        return weight

    def sample_sigma(self, n: int, generator: torch.Generator, tokens: int | Tensor | None = None) -> Tensor:
        """n noise levels for a training batch, (n,) float32 on the generator's device.

        Stratified: each of the n equal slices of probability gives one level, in random order (as CogVideoX
        does), which lowers the variance of the loss for free. tokens: visual tokens per clip without padding,
        one number or (n,). vp ignores it, its levels are uniform in tau.
        """
        device = generator.device
        order = torch.randperm(n, generator=generator, device=device)
        jitter = torch.rand(n, generator=generator, device=device, dtype=torch.float64)
        return self.quantile((order + jitter) / n, tokens)

    def quantile(self, u: Tensor, tokens: int | Tensor | None = None) -> Tensor:
        """The noise level below which a share u of `sample_sigma` falls, u in [0, 1] of any shape; float32.

        Fixed u give the fixed levels of a validation loss.
        """
        u = u.to(torch.float64)
        if self.path == "vp":
            end = self.timestep(torch.tensor(self.sigma_max, dtype=torch.float64, device=u.device))
            return self.sigma_of(u * end).clamp(max=self.sigma_max).to(torch.float32)
        t = torch.sigmoid(self.logit_mean + self.logit_std * torch.special.ndtri(u))
        return (self.sigma_max * _shifted(t, self.shift(tokens).to(u.device))).to(torch.float32)

    # -- predictions -----------------------------------------------------------------------------------------

    def to_x0(self, prediction_BCTHW: Tensor, z_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        """z0 from the model's prediction at z; sigma (), (B,) or (B, T). Exact at sigma 0, where it is z
        itself, whatever was predicted (x0 excepted); for epsilon, alpha must be above 0."""
        sigma = spread(sigma, z_BCTHW)
        if self.prediction == "x0":
            return prediction_BCTHW
        alpha = self.alpha(sigma)
        if self.prediction == "velocity":
            return (z_BCTHW - sigma * prediction_BCTHW) / (alpha + sigma)
        if self.prediction == "epsilon":
            return (z_BCTHW - sigma * prediction_BCTHW) / alpha
        return (alpha * z_BCTHW - sigma * prediction_BCTHW) / (alpha.square() + sigma.square())

    def to_epsilon(self, prediction_BCTHW: Tensor, z_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        """The noise from the model's prediction at z; sigma (), (B,) or (B, T). At sigma 0 an x0 prediction
        says nothing about the noise; 0 is returned there."""
        sigma = spread(sigma, z_BCTHW)
        if self.prediction == "epsilon":
            return prediction_BCTHW
        alpha = self.alpha(sigma)
        if self.prediction == "velocity":
            return (z_BCTHW + alpha * prediction_BCTHW) / (alpha + sigma)
        if self.prediction == "v":
            return (sigma * z_BCTHW + alpha * prediction_BCTHW) / (alpha.square() + sigma.square())
        noise = (z_BCTHW - alpha * prediction_BCTHW) / torch.where(sigma > 0, sigma, 1)
        return torch.where(sigma > 0, noise, 0)

    def clipped(self, x0: Tensor) -> Tensor:
        """x0 within the bound of `clip_x0`; for use after guidance, which clipped branches would bend."""
        return x0 if self.clip_x0 is None else x0.clamp(-self.clip_x0, self.clip_x0)

    # -- sampling --------------------------------------------------------------------------------------------

    def shift(self, tokens: int | Tensor | None) -> Tensor:
        """Shift of a clip of so many visual tokens (padding not counted), float64; 1 for None."""
        if tokens is None:
            return torch.ones((), dtype=torch.float64)
        share = torch.as_tensor(tokens, dtype=torch.float64) / self.reference_tokens
        return share.sqrt().clamp(1, self.max_shift)

    def sigmas(self, steps: int, tokens: int | None = None, shift: float | None = None) -> Tensor:
        """Noise levels of a sampling run, (steps + 1,) float64 on the CPU, from `sigma_max` down to 0.

        flow: equal steps of time, shifted by `shift` if given (public models name theirs: Wan 3 to 5), else
        by the clip's token count. vp: equal steps of tau from the end of the schedule, "trailing" (Lin et al.
        2023); both arguments are ignored there. Raises InputError for fewer than one step or a shift <= 0.
        """
        if steps < 1:
            raise InputError(f"steps = {steps} is too few; ask for at least 1.")
        if shift is not None and not shift > 0:
            raise InputError(f"shift = {shift} must be greater than 0; 1 means none.")
        if self.path == "vp":
            end = self.timestep(torch.tensor(self.sigma_max, dtype=torch.float64)).item()
            return self.sigma_of(torch.linspace(end, 0, steps + 1, dtype=torch.float64))
        t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return self.sigma_max * _shifted(
            t, self.shift(tokens) if shift is None else torch.tensor(shift, dtype=t.dtype)
        )


def spread(sigma: Tensor, like_BCTHW: Tensor) -> Tensor:
    """sigma of shape (), (B,) or (B, T) shaped to broadcast over BCTHW (or, unless (B, T), over any B...)."""
    if sigma.ndim == 0:
        return sigma
    if sigma.ndim == 1:
        return sigma.reshape(-1, *[1] * (like_BCTHW.ndim - 1))
    if sigma.ndim == 2 and like_BCTHW.ndim == 5:
        return sigma[:, None, :, None, None]
    raise ValueError(f"sigma of shape {tuple(sigma.shape)} does not fit {tuple(like_BCTHW.shape)}")


def _among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} = {value!r} is not one of {', '.join(allowed)}.")


def _shifted(t: Tensor, shift: Tensor) -> Tensor:
    """s t / (1 + (s - 1) t): divides alpha/sigma of the flow path by s (SD3, equation 23)."""
    return shift * t / (1 + (shift - 1) * t)


def _precise(x: Tensor) -> Tensor:
    """float64 where the device has it (Apple's GPUs do not)."""
    return x if x.device.type == "mps" else x.to(torch.float64)


# The cosine schedule: abar(tau) = cos^2(a + d) / cos^2(a) with d = tau q, a = 0.008 q, q = pi/2 / 1.008.
# Written as the product sin(2a + d) sin(d) / cos^2(a), 1 - abar keeps its digits near tau = 0.

_QUARTER = math.pi / 2 / 1.008
_ANGLE = 0.008 * _QUARTER


def _cosine_sigma(tau: Tensor) -> Tensor:
    d = tau * _QUARTER
    variance = torch.sin(2 * _ANGLE + d) * torch.sin(d) / math.cos(_ANGLE) ** 2
    return variance.clamp(0, 1).sqrt()


def _cosine_tau(sigma: Tensor) -> Tensor:
    alpha = ((1 - sigma) * (1 + sigma)).sqrt()
    return ((torch.arccos(alpha * math.cos(_ANGLE)) - _ANGLE) / _QUARTER).clamp(0, 1)


# The linear schedule: beta from 1e-4 to 0.02 over 1000 steps; log abar is interpolated between the steps, so
# that timestep i + 1 is index i of the usual table and timestep 0 is clean.


@lru_cache(maxsize=1)
def _linear_table() -> Tensor:
    beta = torch.linspace(1e-4, 0.02, TIMESTEPS, dtype=torch.float64)
    return torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-beta).cumsum(0)])


def _linear_sigma(tau: Tensor) -> Tensor:
    table = _linear_table().to(tau)
    position = (tau * TIMESTEPS).clamp(0, TIMESTEPS)
    low = position.floor().long().clamp(max=TIMESTEPS - 1)
    log_abar = torch.lerp(table[low], table[low + 1], position - low)
    return torch.expm1(log_abar).abs().sqrt()


def _linear_tau(sigma: Tensor) -> Tensor:
    table = _linear_table().to(sigma)
    log_abar = torch.log1p(-sigma.square()).clamp(min=table[-1])
    low = (torch.searchsorted(-table, (-log_abar).contiguous(), right=True) - 1).clamp(0, TIMESTEPS - 1)
    return (low + (log_abar - table[low]) / (table[low + 1] - table[low])) / TIMESTEPS


PROCESSES: dict[str, Process] = {
    "flow": Process(),  # flow matching on velocity
    "epsilon": Process(path="vp", prediction="epsilon", clip_x0=4.0),  # the specification's objective
}
