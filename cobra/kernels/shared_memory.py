"""Refusal of a tensor that changes in place while another argument of the same call lies in its memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)
# behind all addresses: of what has no memory here to compare
_NOWHERE = 2**64


def refuse_shared(names: Sequence[str], values: Sequence[Any], changed: Sequence[int]) -> None:
    """Raise a ValueError where another argument would be read half changed.

    Args:
        names: of the arguments.
        values: the arguments.
        changed: positions of those that change in place.
    """
    # a small kernel has no time for more than a look at where they are
    starts = [x.data_ptr() if type(x) in _PLAIN else _NOWHERE for x in values]
    for i in changed:
        state, begin = values[i], starts[i]
        if begin == _NOWHERE or state.is_meta:
            continue
        # what begins before its storage lies in another
        first, end = begin - state.storage_offset() * state.itemsize, _end(state)
        for j, start in enumerate(starts):
            if first <= start < end and i != j and _share(state, values[j]):
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
    """Whether two tensors have a byte in common."""
    ends, begins = (_end(a), _end(b)), (a.data_ptr(), b.data_ptr())
    if max(begins) >= min(ends):
        return False
    if a.is_contiguous() and b.is_contiguous():
        return True
    # rows of one may lie between those of the other
    mine, others = (_marked(x, min(begins), max(ends) - min(begins)) for x in (a, b))
    return bool((mine & others).any())


def _marked(x: Tensor, begin: int, size: int) -> Tensor:
    """(size,) bool of the bytes from address `begin` on: which are those of x."""
    marks = torch.zeros(size, dtype=torch.bool)
    strides = [stride * x.itemsize for stride in x.stride()]
    marks.as_strided((*x.shape, x.itemsize), (*strides, 1), x.data_ptr() - begin).fill_(True)
    return marks
