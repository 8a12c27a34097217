"""Operators whose results are what compiled graphs are told of them."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class AsDeclared(TorchDispatchMode):
    """Checks results of this project's operators while it is entered: against those on tensors without data,
    and that each has memory of its own, from its beginning."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        if func.namespace.startswith("cobra_"):
            declared = listed(func(*map(without_data, args)))
            assert [described(x) for x in listed(results)] == [described(x) for x in declared], func
            places = [x.data_ptr() for x in listed(results) if x.numel()]
            memory = [x.untyped_storage().data_ptr() for x in listed(results) if x.numel()]
            assert places == memory, func
            assert len(memory) == len(set(memory)), func
        return results


def listed(results: Any) -> list[Tensor]:
    return [x for x in (results if isinstance(results, tuple | list) else (results,)) if x is not None]


def without_data(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def described(x: Tensor) -> tuple[Any, ...]:
    # strides of nothing mean nothing
    return x.shape, x.dtype, x.stride() if x.numel() else None
