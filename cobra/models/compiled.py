"""Blocks that torch.compile has turned into one graph for all that are alike."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from cobra.models.recompute import holds_state
from cobra.models.vlm import CobraVLM

# Graphs of a block's code before torch gives up and runs it as it is. The first block has no residual, a
# batch may be packed or not, of one row or more, and kernels treat short sequences apart: up to 9 were seen.
_GRAPHS = 32


def compile_blocks(model: CobraVLM, parts: Iterable[str], backend: Any = "inductor") -> None:
    """Let the blocks of some parts run as compiled graphs in training; before recomputing and sharding.

    A graph serves every block of the same code, and sequences of any length. The kernels stay: they are
    operators that a graph calls. Names of weights stay too. What is asked without gradients, or with a decode
    state, runs as it did: answers have other shapes at every step.

    Raises:
        ValueError: where a part is unknown or has no blocks, or torch finds no compiler.
    """
    for name in parts:
        units = {"vision": model.vision.units(), "lm": model.lm.units()}
        if not units.get(name):
            known = ", ".join(part for part, blocks in units.items() if blocks)
            raise ValueError(f"compile names {name!r}, which has no blocks: name some of {known}")
        torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
        for block in units[name]:
            compiled = torch.compile(block.forward, dynamic=True, fullgraph=True, backend=backend)
            # not a module around it, which would rename its weights
            block.forward = partial(_in_training, block.forward, compiled)


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where torch's compiler lacks what it needs.

    Raises:
        ValueError: naming it.
    """
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise ValueError(
                "model.compile needs a C++ compiler, e.g. g++, and finds none: install one"
            ) from error
    else:
        from torch.utils._triton import has_triton

        if not has_triton():
            raise ValueError(f"model.compile needs Triton on {device.type}, which is not there: leave it out")


def _in_training(eager: Any, compiled: Any, *inputs: Any, **named: Any) -> Any:
    trains = torch.is_grad_enabled() and not holds_state(inputs, named)
    return (compiled if trains else eager)(*inputs, **named)
