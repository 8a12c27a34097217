"""Argument checks of the public ops: shapes, dtypes and devices only, so nothing waits for the device."""

import torch
from torch import Tensor

from cobra.kernels.call import needs_gradient

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGERS = (torch.int32, torch.int64)
BOOLEANS = (torch.bool,)
# of packed weights
WORDS = (torch.int32,)


def check_first(name: str, x: Tensor, letters: str) -> None:
    """The input that the others must fit: a floating tensor of the rank of `letters` ("B, L, C").

    Raises:
        ValueError: if it is not.
    """
    rank = letters.count(",") + 1
    if x.dim() != rank:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)} but must be ({letters}): reshape it to {rank} dimensions"
        )
    check_floating(name, x)


def check_floating(name: str, x: Tensor) -> None:
    """Refuse a tensor that is not floating, with a ValueError."""
    if x.dtype not in FLOATS:
        raise ValueError(f"{name} is {x.dtype} but must be floating: cast it with .float()")


def check_rows(name: str, x: Tensor) -> None:
    """Refuse a tensor that is not floating or has no last dimension, with a ValueError."""
    check_floating(name, x)
    if x.dim() == 0:
        raise ValueError(f"{name} has no dimensions but needs at least one: reshape it to (1,)")


def check(
    name: str,
    value: Tensor | None,
    letters: str,
    shape: tuple[int, ...],
    like: Tensor,
    dtypes: tuple[torch.dtype, ...] = FLOATS,
) -> None:
    """A further input: absent, or of this shape and one of these dtypes on the device of `like`.

    Raises:
        ValueError: naming the argument, what it is and what it must be.
    """
    if value is None:
        return
    if value.shape != shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} but must be ({letters}) = {tuple(shape)} "
            "to fit the other inputs: reshape it or them"
        )
    if value.dtype not in dtypes:
        wanted = ", ".join(map(str, dtypes))
        raise ValueError(f"{name} is {value.dtype} but must be one of {wanted}: cast it with .to(...)")
    if value.device != like.device:
        raise ValueError(
            f"{name} is on {value.device} but the first input on {like.device}: "
            f"move it with .to({str(like.device)!r})"
        )


def check_matrix(name: str, matrix: Tensor) -> None:
    """Refuse what is no matrix, with a ValueError."""
    if matrix.dim() != 2:
        raise ValueError(f"{name} has shape {tuple(matrix.shape)} but must have 2 dimensions: reshape it")


def refuse_gradient(*tensors: Tensor | None) -> None:
    """Refuse inputs of an op for inference whose gradient is asked for, with a ValueError."""
    if needs_gradient(*tensors):
        raise ValueError("an input requires a gradient, which this op has not: call it under torch.no_grad()")


def check_state(name: str, state: Tensor) -> None:
    """Refuse a state whose elements share memory, so that it cannot change in place, with a ValueError."""
    if any(stride == 0 and size > 1 for stride, size in zip(state.stride(), state.shape, strict=True)):
        raise ValueError(
            f"{name} is expanded, so its elements share memory and cannot change in place: clone it first"
        )


def check_divides(divisor_name: str, divisor: int, name: str, value: int) -> None:
    """Refuse a `value` that does not fall into `divisor` equal parts, with a ValueError."""
    if divisor < 1 or value % divisor:
        raise ValueError(
            f"{name} {value} must be a multiple of {divisor_name} {divisor}: change one of the two"
        )


def check_activation(activation: str | None) -> None:
    """Refuse an activation that the convolutions do not have, with a ValueError."""
    if activation not in (None, "silu"):
        raise ValueError(
            f"activation is {activation!r} but must be None or 'silu': apply another one outside"
        )
