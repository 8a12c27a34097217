"""The precision that the reference computes in, whatever its inputs are stored in."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def accumulator(x: Tensor) -> torch.dtype:
    """float64 for float64 inputs, else float32: half precision loses the tail of long decays."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def without_autocast(op: Callable[Concatenate[Tensor, P], R]) -> Callable[Concatenate[Tensor, P], R]:
    """`op` with autocast switched off, which would run its float32 matrix products in half precision."""

    @functools.wraps(op)
    def run(x: Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        # asked first, because entering the context leaves a trace in exported graphs
        if not torch.is_autocast_enabled(x.device.type):
            return op(x, *args, **kwargs)
        with torch.autocast(x.device.type, enabled=False):
            return op(x, *args, **kwargs)

    return run
