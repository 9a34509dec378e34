"""One run on several processes: who takes part, weights in shards (FSDP2), what all ranks must agree on.

Started by `torchrun --nproc-per-node N ... train dit CONFIG`. Every rank holds its share of weights, averages and
optimiser states, and takes its share of the clips of a step; the clips, their words and their noise are those that
one process would train on alone, so that N ranks differ from one by the order of sums only. Without torchrun there is
one rank, and all functions here return what they are given. Sharding is Zhao et al. 2023 (PyTorch FSDP), per parameter.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from mutoscope.data.batches import Batches, Group
from mutoscope.errors import InputError
from mutoscope.models.dit import DiT
from mutoscope.models.text import TextEncoder
from mutoscope.training.optimizer import orthogonalised
from mutoscope.training.state import EMA

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Ranks:
    """The processes of a run: this is number `rank` of `count`; mesh is None where there is only one."""

    rank: int = 0
    count: int = 1
    mesh: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this rank writes what the run makes."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which clips of a group are for this rank."""
        return slice(self.rank, None, self.count)

    def folder(self, run: Path) -> Path:
        """Where this rank keeps its log and its times: the first in the folder of the run, others within it."""
        return run if self.first else run / f"rank-{self.rank}"

    def wait(self) -> None:
        """Until all are here."""
        if self.mesh is not None:
            dist.barrier()

    def total(self, value: Tensor) -> Tensor:
        """The sum over ranks of a number, without its graph."""
        return value.detach() if self.mesh is None else self._reduced(value, dist.ReduceOp.SUM)

    def agree(self, *flags: bool) -> list[bool]:
        """For each flag whether any rank raises it."""
        if self.mesh is None:
            return list(flags)
        raised = self._reduced(torch.tensor(flags, dtype=torch.float32), dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def _reduced(self, values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        assert self.mesh is not None
        values = values.detach().to(self.mesh.device_type, copy=True)
        dist.all_reduce(values, how)
        return values


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the ranks that torchrun has started, if it has; leave them in the end.

    Raises InputError when this machine has fewer GPUs than ranks.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        place = int(os.environ["LOCAL_RANK"])
        if place >= torch.cuda.device_count():
            raise InputError(
                f"There are {torch.cuda.device_count()} GPUs and more ranks: lower --nproc-per-node to that."
            )
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), count, init_device_mesh(device.type, (count,)))
    finally:
        dist.destroy_process_group()


def refuse_empty_shares(batches: Batches, ranks: Ranks) -> None:
    """Raise InputError when a step would leave a rank without clips."""
    for size in batches.sizes:
        if batches.clips(size) < ranks.count:
            raise InputError(
                f"batches.tokens gives a step {batches.clips(size)} clips of {size} for {ranks.count} ranks: "
                "raise it, or start fewer."
            )


def part_of_the_loss(groups: Sequence[Group], ranks: Ranks) -> float:
    """The weight of this rank's mean loss in that of all ranks: its share of the unknown values."""
    if ranks.mesh is None:
        return 1.0
    values = sum(float(group.unknown_BT.sum()) * group.latent_BCTHW[0, :, 0].numel() for group in groups)
    return values / float(ranks.total(torch.tensor(values, dtype=torch.float64)))


# --- shards


def shard(dit: DiT, encoder: TextEncoder, ranks: Ranks) -> None:
    """Cut all weights into shards, in place; a block's are whole while it computes. Gradients are summed over ranks."""
    if ranks.mesh is None:
        return
    # Its blocks return views; that matters only to those who write into them, and nobody does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
    for block in dit.blocks:
        # The keys and values of texts are computed for all blocks before the first of them.
        attention: Any = block.text_attention
        fully_shard([attention.key, attention.value, attention.key_norm], mesh=ranks.mesh)
    for module in (*dit.blocks, dit, *encoder.blocks, encoder):
        # Else the outermost would keep whole weights between two passes without gradients, whatever becomes of them.
        fully_shard(module, mesh=ranks.mesh, reshard_after_forward=True)
    for layout in ("forward_packed", "forward_padded"):
        register_fsdp_forward_method(dit, layout)
    for root in (dit, encoder):
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo can neither average nor scale


def orthogonalised_by_owners(matrices: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """As `orthogonalised`, for sharded matrices: by turns each rank works on a whole one and tells the others."""
    rank, count, found = dist.get_rank(), dist.get_world_size(), list[Tensor]()
    for start in range(0, len(matrices), count):
        part = matrices[start : start + count]
        wholes = [full(matrix) for matrix in part]
        if rank < len(part):
            wholes[rank] = orthogonalised([wholes[rank]], dtype)[0].contiguous()
        for owner, (whole, matrix) in enumerate(zip(wholes, part)):
            dist.broadcast(whole, owner)
            found.append(scattered(whole, matrix))
    return found


def full(tensor: Tensor) -> Tensor:
    """A tensor with all its shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(state: Any) -> Any:
    """A nested state dict with whole tensors; those that were in shards come to the CPU. All ranks must ask for it."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, Mapping):
        return {key: gathered(value) for key, value in state.items()}
    if isinstance(state, list):
        return [gathered(value) for value in state]
    return state


def whole(module: M, make: Callable[[], M], ranks: Ranks) -> M:
    """A module without shards: the same, or made anew with all the weights. All ranks must ask for it."""
    if ranks.mesh is None:
        return module
    with torch.device("meta"):
        copy = make()
    copy.load_state_dict(gathered(module.state_dict()), assign=True)
    return copy


def scattered(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, cut as `like` is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimiser a state of whole tensors, as `gathered` made it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    cut = {
        place: {name: scattered(value, parameters[place]) for name, value in kept.items()}
        for place, kept in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": cut})


def load_ema(ema: EMA, state: Mapping[str, Any]) -> None:
    """Give averages a state of whole tensors."""
    cut = {
        key: scattered(value, ema.average[key]) if key in ema.average else value
        for key, value in state["average"].items()
    }
    ema.load_state_dict({**state, "average": cut})
