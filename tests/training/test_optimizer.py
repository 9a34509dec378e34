"""Muon against torch's own, the split of parameters, the schedule, clipping."""

import copy
import math

import pytest
import torch
from torch import nn

from mutoscope.errors import InputError
from mutoscope.training.optimizer import (
    Muon,
    OptimizerConfig,
    build_optimizers,
    clip_gradients,
    learning_rate,
    orthogonalised,
    set_learning_rate,
)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 24), nn.LayerNorm(24), nn.Linear(24, 8)) for _ in "ab"
        )
        self.head = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def test_muon_gets_hidden_matrices_and_adamw_everything_else_once():
    toy = Toy()
    adamw, muon = build_optimizers({"toy": toy}, OptimizerConfig(steps=100))
    matrices = {id(layer.weight) for block in toy.blocks for layer in block if isinstance(layer, nn.Linear)}
    assert {id(p) for group in muon.param_groups for p in group["params"]} == matrices
    held = [id(p) for optimizer in (adamw, muon) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in toy.parameters())
    assert all(group["weight_decay"] == 0 for group in adamw.param_groups if group["params"][0].ndim < 2)


def test_muon_moves_weights_as_torch_muon_does():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((32, 96), (96, 32), (48, 48), (32, 96))]
    theirs = copy.deepcopy(ours)
    a = Muon(ours, lr=0.02, momentum=0.9, weight_decay=0.1)
    b = torch.optim.Muon(theirs, lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = [p.detach().clone() for p in ours]
    for _ in range(4):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q, s in zip(ours, theirs, start):
        assert torch.cosine_similarity((p - s).flatten(), (q - s).flatten(), dim=0) > 0.98
        assert ((p - s).norm() / (q - s).norm()).item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("shape", [(64, 160), (160, 64), (64, 64)])
def test_orthogonalised_keeps_directions_and_flattens_singular_values(shape):
    torch.manual_seed(1)
    matrices = [torch.randn(shape) * scale for scale in (1e-15, 1.0, 1e15)]
    for before, after in zip(matrices, orthogonalised(matrices)):
        u, s, vh = torch.linalg.svd(before, full_matrices=False)
        core = u.mT @ after @ vh.mT
        assert (core - core.diag().diag()).abs().max() < 1e-2
        reached = core.diag()[s > 0.03 * s[0]]
        assert reached.min() > 0.7
        assert reached.max() < 1.3
    assert (orthogonalised([torch.zeros(shape)])[0] == 0).all()


def test_orthogonalised_in_bf16_agrees_with_fp32():
    torch.manual_seed(2)
    matrices = list(torch.randn(4, 64, 160) * torch.logspace(0, -1.5, 64)[:, None])
    exact, rounded = (
        torch.stack(orthogonalised(matrices, dtype)) for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded.dtype == torch.float32
    assert torch.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.995


def test_schedule_warms_up_holds_and_falls_to_the_end_rate():
    config = OptimizerConfig(steps=1000, warmup=50)
    rates = [learning_rate(step, config) for step in range(1, 1001)]
    assert 0 < rates[0] < rates[25] < rates[50] == 1
    assert rates[599] == 1 > rates[700] > rates[900]
    assert rates[-1] == pytest.approx(0.02)
    linear = OptimizerConfig(steps=1000, warmup=50, decay="linear")
    assert learning_rate(800, linear) == pytest.approx(0.51)
    assert learning_rate(10**6, config) == pytest.approx(0.02)


def test_learning_rate_reaches_both_optimisers():
    config = OptimizerConfig(steps=10, warmup=1, muon_lr=4e-3, adamw_lr=2e-3)
    optimizers = build_optimizers({"toy": Toy()}, config)
    set_learning_rate(optimizers, 1, config)
    assert [group["lr"] for optimizer in optimizers for group in optimizer.param_groups] == [1e-3, 1e-3, 2e-3]


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_both_kinds_learn(kind):
    torch.manual_seed(0)
    toy, config = Toy(), OptimizerConfig(steps=60, kind=kind, warmup=5)
    optimizers = build_optimizers({"toy": toy}, config)
    ids, target = torch.arange(7), torch.randn(7, 3)
    losses = []
    for step in range(1, 61):
        set_learning_rate(optimizers, step, config)
        loss = (toy(ids) - target).square().mean()
        loss.backward()
        clip_gradients(optimizers, config.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_clipping_bounds_the_joint_norm_and_reports_bad_ones_untouched():
    toy = Toy()
    optimizers = build_optimizers({"toy": toy}, OptimizerConfig(steps=100))
    for p in toy.parameters():
        p.grad = torch.full_like(p, 3.0)
    expected = math.sqrt(sum(9.0 * p.numel() for p in toy.parameters()))
    assert clip_gradients(optimizers, 1.0) == pytest.approx(expected, rel=1e-5)
    assert torch.nn.utils.get_total_norm([p.grad for p in toy.parameters()]) == pytest.approx(1.0, rel=1e-4)
    toy.head.bias.grad[0] = float("nan")
    assert math.isnan(clip_gradients(optimizers, 1.0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"muon_lr": -1.0}, "muon_lr"),
        ({"warmup": 100}, "warmup"),
        ({"final": 2.0}, "final"),
    ],
)
def test_impossible_settings_are_named(change, named):
    with pytest.raises(InputError, match=named):
        OptimizerConfig(**{"steps": 100} | change)
