"""Tensors as the Triton kernels address them."""

from typing import Any, overload

from torch import Tensor


@overload
def as_rows(x: Tensor) -> Tensor: ...
@overload
def as_rows(x: None) -> None: ...
def as_rows(x: Tensor | None) -> Tensor | None:
    """(..., D) as (R, D) whose rows are contiguous, without a copy where the strides allow."""
    if x is None:
        return None
    rows = x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)
    return rows if rows.stride(-1) == 1 or rows.shape[-1] <= 1 else rows.contiguous()


def row_strides(*rows: Tensor | None) -> list[int]:
    """From one row to the next, of each; 0 of what is absent."""
    return [0 if x is None else x.stride(0) for x in rows]


def strides(x: Tensor | None, rank: int) -> tuple[int, ...]:
    """Those of x, in all of its dimensions; zeros if it is absent."""
    return (0,) * rank if x is None else x.stride()


def dense(*tensors: Tensor | None) -> list[Tensor | None]:
    """Parameters as the kernels read them, each without gaps."""
    return [None if x is None else x.contiguous() for x in tensors]


def like_first(x: Tensor, *_: Any) -> Tensor:
    """An empty result of the shape and dtype of the first argument."""
    return x.new_empty(x.shape)


def row_major(x: Tensor) -> Tensor:
    """x, whose last dimension is contiguous, without a copy where it is."""
    return x if x.stride(-1) == 1 or x.shape[-1] <= 1 else x.contiguous()
