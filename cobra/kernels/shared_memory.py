"""Refusal of a tensor that changes in place while another argument of the same call lies in its memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)


def refuse_shared(names: Sequence[str], values: Sequence[Any], changed: Sequence[int]) -> None:
    """Raise a ValueError where another argument would be read half changed.

    Args:
        names: of the arguments.
        values: the arguments.
        changed: positions of those that change in place.
    """
    for i in changed:
        state = values[i]
        if type(state) not in _PLAIN or state.is_meta:
            # it has no memory here to compare
            return
        begin, end = state.data_ptr(), _end(state)
        for j, other in enumerate(values):
            if i == j or type(other) not in _PLAIN:
                continue
            start = other.data_ptr()
            # most lie elsewhere, which is all that a small kernel has the time to find out
            if start >= end or (start < begin and _end(other) <= begin):
                continue
            if other.numel() and _share(state, other):
                raise ValueError(
                    f"{names[i]} shares memory with {names[j]} but changes in place: clone one of them"
                )


def _end(x: Tensor) -> int:
    """The address behind the last byte of x; its first where it is empty."""
    if x.is_contiguous() or not x.numel():
        return x.data_ptr() + x.nbytes
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr() + (last + 1) * x.itemsize


def _share(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors whose ends lie within each other have a byte in common: rows may lie in turn."""
    if a.is_contiguous() and b.is_contiguous():
        return True
    begin, end = min(a.data_ptr(), b.data_ptr()), max(_end(a), _end(b))
    mine, others = (_marked(x, begin, end - begin) for x in (a, b))
    return bool((mine & others).any())


def _marked(x: Tensor, begin: int, size: int) -> Tensor:
    """(size,) bool of the bytes from address `begin` on: which are those of x."""
    marks = torch.zeros(size, dtype=torch.bool)
    strides = [stride * x.itemsize for stride in x.stride()]
    marks.as_strided((*x.shape, x.itemsize), (*strides, 1), x.data_ptr() - begin).fill_(True)
    return marks
