"""Tensors that the native kernels take, and what becomes of others."""

from typing import Any, overload

import torch
from torch import Tensor

from cobra.kernels.registration import room_for_gradient

NATIVE_DTYPES = (torch.float32, torch.bfloat16)


@overload
def native(x: Tensor) -> Tensor: ...
@overload
def native(x: None) -> None: ...
def native(x: Tensor | None) -> Tensor | None:
    """x, or an fp32 copy of a dtype that the kernels do not read."""
    return x if x is None or x.dtype in NATIVE_DTYPES else x.float()


def natives(*tensors: Tensor | None) -> list[Tensor | None]:
    """The same of each."""
    return [x if x is None or x.dtype in NATIVE_DTYPES else x.float() for x in tensors]


def native_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a kernel gives what is wanted in another."""
    return dtype if dtype in NATIVE_DTYPES else torch.float32


def writable(state: Tensor) -> Tensor:
    """`state` if a kernel can change it in place, else a copy of it that must be copied back by `keep`."""
    if state.dtype in NATIVE_DTYPES and (state.stride(-1) == 1 or state.shape[-1] <= 1):
        return state
    return native(state).clone(memory_format=torch.contiguous_format)


def keep(state: Tensor, changed: Tensor) -> None:
    """Bring a state that had to be copied up to date."""
    if changed is not state:
        state.copy_(changed)


def as_rows(x: Tensor) -> Tensor:
    """(..., D) as (R, D), without a copy where the strides allow."""
    return x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)


def like_first(x: Tensor, *_: Any) -> Tensor:
    """An empty result of the shape and dtype of the first argument."""
    return x.new_empty(x.shape)


def native_room(x: Tensor | None, like: Tensor) -> Tensor:
    """Where a kernel writes the gradient of x, in a dtype that it writes; nothing if x is absent."""
    return room_for_gradient(x, like, None if x is None else native_dtype(x.dtype))


def full_room(x: Tensor | None, like: Tensor) -> Tensor:
    """The same in fp32."""
    return room_for_gradient(x, like, torch.float32)


def if_present(array: Tensor, x: Tensor | None) -> Tensor | None:
    """An array for a kernel that fills it only if x is present."""
    return None if x is None else array
