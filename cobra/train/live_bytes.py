"""Bytes of the tensors that exist while something is computed, on tensors without data."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts memory that operators allocate and that is freed again, each storage once.

    Attributes:
        now: bytes that exist.
        peak: the most that ever did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return results

    def leave_out(self, tensor: Tensor) -> None:
        """Count this tensor no longer, or never."""
        storage = tensor.untyped_storage()
        self._add(storage)
        self.now -= self.sizes[storage._cdata]
        self.sizes[storage._cdata] = 0

    def _add(self, storage: Any) -> None:
        if storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, storage: int) -> None:
        self.now -= self.sizes.pop(storage)


def without_data() -> FakeTensorMode:
    """A context in which tensors have a shape, a dtype and a device, and operators compute nothing."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def on_cpu_without_data(module: nn.Module) -> nn.Module:
    """A module from the meta device as if it were on the CPU, inside `without_data`; ties stay.

    Unlike the meta device, the CPU has autocast, fused attention and kernels with gradients of their own.
    """
    made: dict[int, Tensor] = {}
    for owner in module.modules():
        for held in (owner._parameters, owner._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = made.setdefault(id(tensor), _like(tensor))  # type: ignore[assignment]
    return module


def _like(tensor: Tensor) -> Tensor:
    new = torch.empty(tensor.shape, dtype=tensor.dtype)
    if isinstance(tensor, nn.Parameter):
        new = nn.Parameter(new, tensor.requires_grad)
        # marks, e.g. of weights that do not decay
        vars(new).update(vars(tensor))
    return new
