"""The precision that the reference computes in, whatever its inputs are stored in."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def accumulator(x: Tensor) -> torch.dtype:
    """float64 for float64 inputs, else float32: half precision loses the tail of long decays."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def residual_dtype(x: Tensor, residual: Tensor | None, in_fp32: bool) -> torch.dtype:
    """The dtype in which the sum of x and a residual is kept."""
    dtype = x.dtype if residual is None else residual.dtype
    return torch.promote_types(dtype, torch.float32) if in_fp32 else dtype


def without_autocast(op: Callable[P, R]) -> Callable[P, R]:
    """`op` with autocast switched off, which would run its float32 matrix products in half precision."""

    @functools.wraps(op)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        # asked first, because entering the context leaves a trace in exported graphs; meta has no autocast
        if device == "meta" or not torch.is_autocast_enabled(device):
            return op(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return op(*args, **kwargs)

    return run
