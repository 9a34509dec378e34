"""The optimisers of all recipes: Muon for hidden matrices, AdamW for everything else, one schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from mutoscope.errors import InputError

Orthogonalise = Callable[[list[Tensor], torch.dtype], list[Tensor]]  # see `orthogonalised`

POLYNOMIALS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)  # a s + b s^3 + c s^5 for [0.01, 1], by Remez exchange; see `orthogonalised`


@dataclass(frozen=True)
class OptimizerConfig:
    """Rates are per step at the plateau of the schedule; steps are those of the whole run."""

    steps: int = 2400
    kind: Literal["muon", "adamw"] = "muon"
    convolutions: bool = (
        False  # whether Muon also takes the convolutions inside blocks, as matrices out x rest
    )
    muon_lr: float = 2e-3
    adamw_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-10
    momentum: float = 0.95
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the whole gradient
    warmup: int = 50  # steps from 0 to the plateau
    plateau: float = 0.6  # share of the run after which the rate falls
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.02  # rate at the end, as a share of the plateau

    def __post_init__(self) -> None:
        for name in ("steps", "muon_lr", "adamw_lr", "clip", "eps"):
            if not getattr(self, name) > 0:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}: it must be above 0.")
        for name in ("plateau", "final", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}: it must lie in 0 to 1.")
        if not 0 <= self.warmup < self.steps:
            raise InputError(
                f"optimizer.warmup is {self.warmup}: it must be below optimizer.steps ({self.steps})."
            )


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """Factor in (0, 1] for the update that makes step `step` (1 is the first): warm-up, plateau, fall."""
    if step <= config.warmup:
        return step / (config.warmup + 1)
    begin = max(config.plateau * config.steps, config.warmup)
    fall = min(max((step - begin) / max(config.steps - begin, 1), 0.0), 1.0)
    match config.decay:
        case "constant":
            shape = 1.0
        case "linear":
            shape = 1 - fall
        case "cosine":
            shape = (1 + math.cos(math.pi * fall)) / 2
    return config.final + (1 - config.final) * shape


def build_optimizers(
    modules: Mapping[str, nn.Module],
    config: OptimizerConfig,
    muon_dtype: torch.dtype = torch.float32,
    orthogonalise: Orthogonalise | None = None,
) -> list[Optimizer]:
    """Muon on the 2-D weights of linear layers inside blocks, AdamW on the rest.

    "Inside blocks" means inside an nn.ModuleList: embeddings, the first and last projections, norms, biases,
    tables and, unless the config says otherwise, convolutions go to AdamW, as advised by the authors of Muon
    (Jordan et al. 2024). muon_dtype: of Muon's matrix products; bfloat16 pays on GPUs and on CPUs with AMX.
    orthogonalise: for matrices that are not in one place (see parallel.py).
    """
    hidden: dict[int, Tensor] = {}
    if config.kind == "muon":
        for module in modules.values():
            for blocks in module.modules():
                if isinstance(blocks, nn.ModuleList):
                    hidden.update(
                        (id(weight), weight)
                        for layer in blocks.modules()
                        if isinstance(weight := getattr(layer, "weight", None), Tensor)
                        and weight.requires_grad
                        and (isinstance(layer, nn.Linear) or (config.convolutions and weight.ndim >= 3))
                    )
    rest: dict[int, Tensor] = {
        id(parameter): parameter
        for module in modules.values()
        for parameter in module.parameters()
        if parameter.requires_grad and id(parameter) not in hidden
    }
    # Weight decay pulls norms, biases and tables to 0 for no benefit: matrices only.
    groups = [
        {"params": [p for p in rest.values() if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[Optimizer] = []
    if groups:
        optimizers.append(AdamW(groups, lr=config.adamw_lr, betas=config.betas, eps=config.eps, fused=True))
    if hidden:
        optimizers.append(
            Muon(
                hidden.values(),
                config.muon_lr,
                config.momentum,
                config.weight_decay,
                muon_dtype,
                orthogonalise,
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["plateau_lr"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: Iterable[Optimizer], step: int, config: OptimizerConfig) -> float:
    """Give every group its rate for the update that makes step `step`; returns the factor."""
    factor = learning_rate(step, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["plateau_lr"] * factor
    return factor


def clip_gradients(optimizers: Iterable[Optimizer], largest: float) -> float:
    """Scale all gradients to a joint norm of at most `largest`; returns the norm before (may be NaN, Inf)."""
    grads = [
        parameter.grad
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    norm = torch.nn.utils.get_total_norm(grads)
    if torch.isfinite(norm):
        torch._foreach_mul_(grads, torch.clamp(largest / (norm + 1e-6), max=1.0))
    return float(norm)


def update(
    optimizers: Sequence[Optimizer], step: int, loss: float, config: OptimizerConfig
) -> tuple[float, float]:
    """Make the update of step `step` from the gradients, which are then cleared; (factor of the rate, gradient norm).

    Raises FloatingPointError before the update when the loss or the gradient is not a number.
    """
    factor = set_learning_rate(optimizers, step, config)
    norm = clip_gradients(optimizers, config.clip)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FloatingPointError(
            f"step {step}: loss {loss}, gradient norm {norm}; stopped before the update; try a lower "
            "learning rate."
        )
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return factor, norm


class Muon(Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), at the RMS of an AdamW update (Liu et al. 2025).

    What torch.optim.Muon(adjust_lr_fn="match_rms_adamw") does, made for a CPU: matrices of one shape are
    orthogonalised as one batch, in fp32 unless told otherwise (bf16 is slower without AMX), in three rounds
    instead of five.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
        orthogonalise: Orthogonalise | None = None,
    ) -> None:
        self.dtype, self.orthogonalise = dtype, orthogonalise or orthogonalised
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, matrices in by_shape.items():
                rows, columns = shape[0], shape[1:].numel()
                flat = [direction.flatten(1) for direction in self._momentum(matrices, group["momentum"])]
                directions = [direction.view(shape) for direction in self.orthogonalise(flat, self.dtype)]
                lr = group["lr"]
                torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
                torch._foreach_add_(matrices, directions, alpha=-lr * 0.2 * math.sqrt(max(rows, columns)))

    def _momentum(self, matrices: list[Tensor], momentum: float) -> list[Tensor]:
        """Nesterov momentum of each matrix."""
        grads = [matrix.grad for matrix in matrices if matrix.grad is not None]
        buffers = []
        for matrix in matrices:
            state: dict[str, Any] = self.state[matrix]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(matrix)
            buffers.append(state["momentum"])
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        return list(torch._foreach_lerp(grads, buffers, momentum))


def orthogonalised(matrices: list[Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Each matrix of one shape with its singular values moved near 1, directions kept.

    Odd polynomials of degree 5 (Newton-Schulz, Jordan et al. 2024), each the best approximation of 1 on
    what the one before leaves of [0.01, 1] ("Polar Express", Amsel et al. 2025): three give 0.73 to 1.27,
    which takes Jordan's fixed one five. The first Gram matrix also gives the scale: its norm bounds the
    largest singular value about three times closer than the norm of the matrix does, so fewer values begin
    below 0.01. dtype: of the products; the result has the type of the matrices.
    """
    tall = matrices[0].shape[0] > matrices[0].shape[1]
    x = torch.stack([matrix.mT if tall else matrix for matrix in matrices])
    # Divided by its norm first, so that no square under- or overflows.
    x = (x / x.flatten(1).norm(dim=1).clamp(min=1e-30)[:, None, None]).to(dtype)
    for i, (a, b, c) in enumerate(POLYNOMIALS):
        gram = x @ x.mT
        if i == 0:
            bound = gram.flatten(1).norm(dim=1, dtype=torch.float32).clamp(min=1e-12).to(dtype)[:, None, None]
            x, gram = x / bound.sqrt(), gram / bound
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return list((x.mT if tall else x).to(matrices[0].dtype).unbind())
