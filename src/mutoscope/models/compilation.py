"""Compiling the blocks of a network: names of weights stay, last bits change, all but the first use is faster."""

import contextlib
from collections.abc import Sequence

import torch
from torch import nn

from mutoscope.errors import InputError

MOST_SHAPES = 64
"""For which blocks are compiled; any further runs uncompiled."""


def compile_blocks(modules: Sequence[nn.Module], few_shapes: bool = False) -> None:
    """Compile every module in the nn.ModuleLists of these, in place: names of weights stay as they are.

    Blocks are alike, so one of them is compiled for all. few_shapes: compile anew for every shape (12 s each on two
    cores), which makes a step 1.6 times as fast there as the default, where a length that changes becomes dynamic.
    """
    if few_shapes:
        torch._dynamo.config.recompile_limit = MOST_SHAPES
    for module in modules:
        for blocks in module.modules():
            if isinstance(blocks, nn.ModuleList):
                for block in blocks:
                    block.compile(dynamic=False if few_shapes else None)


def uncompiled(compiled: bool) -> contextlib.AbstractContextManager[object]:
    """Within, compiled modules run as they are written: for counting, and for shapes met seldom."""
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


def require_compiler(device: torch.device) -> None:
    """Raise InputError where torch cannot compile for a device: on a CPU that takes a C++ compiler, on a GPU Triton."""
    try:
        torch.compile(lambda row_D: 2 * row_D + 1)(torch.ones(4, device=device))
    except RuntimeError as error:
        need = "Triton" if device.type == "cuda" else "a C++ compiler, as g++,"
        raise InputError(f"torch cannot compile here; install {need} or leave --compile out.") from error
