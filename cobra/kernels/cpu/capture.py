"""The native calls of a function, captured while it runs, to be compared and replayed."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cobra.kernels.cpu import OPERATORS
from cobra.kernels.cpu.library import ARRAY_BYTES, Kernel, watching

_ALLOCATIONS = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.empty_strided.default,
    torch.ops.aten.new_empty.default,
    torch.ops.aten.new_empty_strided.default,
}
_ADDRESS = struct.Struct("q")


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a buffer that was allocated while calls were captured.

    Attributes:
        buffer: its number, in the order of allocation.
        offset: bytes before the tensor.
    """

    buffer: int
    offset: int


@dataclass(frozen=True)
class Call:
    """One native call; two are equal if they do the same, wherever buffers between calls lie.

    Attributes:
        kernel: what runs.
        arguments: its structure, with 0 for the addresses in such buffers.
        places: those, by their offset in the structure.
    """

    kernel: Kernel
    arguments: bytes
    places: dict[int, Place]


@dataclass
class Capture:
    """What a function of tensors did.

    Attributes:
        calls: native calls in order.
        sizes: bytes of the buffers that were allocated meanwhile.
        obstacle: the first thing that is no native call, so that replaying these would not repeat it.
        result: where the function's result lies.
    """

    calls: list[Call] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    obstacle: str | None = None
    result: Place | None = None


def capture(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Capture, list[Tensor]]:
    """The function's result, what it did, and the tensors that it used besides buffers of its own."""
    with _CaptureMode() as mode:
        result = function(x)
    captured = mode.captured
    captured.result = mode.place(result)
    if captured.result is None:
        captured.obstacle = captured.obstacle or "the result lies in memory that was there before"
    return result, captured, [tensor for tensor in mode.kept if mode.place(tensor) is None]


def put_address(structure: bytearray, offset: int, address: int) -> None:
    """Write an address into the structure of a kernel."""
    _ADDRESS.pack_into(structure, offset, address)


class _CaptureMode(TorchDispatchMode):
    """Captures what runs under it, which runs as it would without.

    Torch operators may look at memory in other ways and allocate it; one that computes is an obstacle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.captured = Capture()
        self._numbers: dict[int, int] = {}
        # alive until the end, so that no address is met twice; weights and state, too
        self.kept: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        native = OPERATORS.function(func)
        # what an operator consists of is seen, too
        with self:
            # a subclass, e.g. a sharded weight, has no memory here to read: its own dispatch refuses the call
            if native is not None and not types:
                with watching(self._capture):
                    return native(*args, **kwargs)
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        result = func(*args, **kwargs)
        if func in _ALLOCATIONS:
            self._numbers[result.untyped_storage().data_ptr()] = len(self.captured.sizes)
            self.captured.sizes.append(result.untyped_storage().nbytes())
            self.kept.append(result)
        elif not func.is_view:
            self.captured.obstacle = self.captured.obstacle or f"{func} computes"
        return result

    def place(self, tensor: Tensor) -> Place | None:
        """Where a tensor lies in a buffer that was allocated meanwhile; None if in older memory."""
        begin = tensor.untyped_storage().data_ptr()
        number = self._numbers.get(begin)
        return None if number is None else Place(number, tensor.data_ptr() - begin)

    def _capture(self, kernel: Kernel, arguments: bytes, arrays: Sequence[Tensor | None]) -> None:
        template, places = bytearray(arguments), {}
        for index, array in enumerate(arrays):
            place = None if array is None else self.place(array)
            if array is not None:
                self.kept.append(array)
            if place is not None:
                places[ARRAY_BYTES * index] = place
                put_address(template, ARRAY_BYTES * index, 0)
        self.captured.calls.append(Call(kernel, bytes(template), places))
