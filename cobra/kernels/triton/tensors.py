"""Tensors as the Triton kernels address them."""

from typing import Any

from torch import Tensor


def as_rows(x: Tensor) -> Tensor:
    """(..., D) as (R, D) whose rows are contiguous, without a copy where the strides allow."""
    rows = x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)
    return rows if rows.stride(-1) == 1 or rows.shape[-1] <= 1 else rows.contiguous()


def like_first(x: Tensor, *_: Any) -> Tensor:
    """An empty result of the shape and dtype of the first argument."""
    return x.new_empty(x.shape)
