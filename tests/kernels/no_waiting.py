"""Fails where Python asks for a number that a device would have to be waited for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
# what Python asks a tensor, and tensors that Python makes of numbers, which are copied to the device
_ASKED = {
    Tensor.tolist, Tensor.item, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__,
    Tensor.numpy, Tensor.cpu, torch.tensor, torch.as_tensor,
}  # fmt: skip
# operators that read on the host how large their result is, or check what they are given
_READING = {
    _aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default,
    _aten.multinomial.default, _aten.repeat_interleave.Tensor, _aten.equal.default, _aten.is_nonzero.default,
}  # fmt: skip
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}


@contextmanager
def no_waiting() -> Iterator[None]:
    """A context in which asking is a RuntimeError."""

    def refuse(function: Any) -> None:
        raise RuntimeError(f"{function} waits for the device")

    with waits_of(refuse):
        yield


@contextmanager
def waits_of(asked: Callable[[Any], None]) -> Iterator[None]:
    """A context that tells a function what is asked, before it is answered."""
    with _Functions(asked), _Operators(asked):
        yield


class _Functions(TorchFunctionMode):
    def __init__(self, asked: Callable[[Any], None]) -> None:
        super().__init__()
        self.asked = asked

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _ASKED:
            self.asked(func)
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, asked: Callable[[Any], None]) -> None:
        super().__init__()
        self.asked = asked

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        masks = func in _INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1])
        if func in _READING or masks:
            self.asked(func)
        return func(*args, **(kwargs or {}))
