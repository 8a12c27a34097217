"""Tensors that the native kernels take, and what becomes of others."""

from typing import overload

import torch
from torch import Tensor

NATIVE_DTYPES = (torch.float32, torch.bfloat16)


@overload
def native(x: Tensor) -> Tensor: ...
@overload
def native(x: None) -> None: ...
def native(x: Tensor | None) -> Tensor | None:
    """x, or an fp32 copy of a dtype that the kernels do not read; differentiable."""
    return x if x is None or x.dtype in NATIVE_DTYPES else x.float()


def native_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a kernel gives what is wanted in another."""
    return dtype if dtype in NATIVE_DTYPES else torch.float32


def writable(state: Tensor) -> Tensor:
    """`state` if a kernel can change it in place, else a copy of it that must be copied back."""
    if state.dtype in NATIVE_DTYPES and (state.stride(-1) == 1 or state.shape[-1] <= 1):
        return state
    return native(state).clone(memory_format=torch.contiguous_format)


def may_share(a: Tensor, b: Tensor) -> bool:
    """Whether b, which begins within the bytes that a would take if dense, shares memory with a."""
    # rows of one may lie between those of the other
    return a.data_ptr() == b.data_ptr() or (a.is_contiguous() and b.is_contiguous())


def as_rows(x: Tensor) -> Tensor:
    """(..., D) as (R, D), without a copy where the strides allow."""
    return x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)


def room_for_gradient(x: Tensor | None, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialized gradient of x, dense; empty if x is absent, because an operator cannot return None."""
    shape = (0,) if x is None else x.shape
    return like.new_empty(shape, dtype=dtype or (like if x is None else x).dtype)


def if_given(gradient: Tensor, x: Tensor | None) -> Tensor | None:
    """The gradient of x, which `room_for_gradient` made; None if x is absent."""
    return None if x is None else gradient.to(x.dtype)


def if_present(array: Tensor, x: Tensor | None) -> Tensor | None:
    """An array for a kernel that fills it only if x is present."""
    return None if x is None else array
