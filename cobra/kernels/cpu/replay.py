"""Captured calls, made again by one call of the library: no Python between one kernel and the next."""

import ctypes
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cobra.kernels.cpu.capture import Capture, capture, put_address
from cobra.kernels.cpu.library import failure, load

# as torch aligns memory
_ALIGNMENT = 64


class Recorder:
    """A function, called twice: if both calls make the same kernels do the same, these can be replayed.

    Args:
        function: of a tensor that always lies in the same place.

    Attributes:
        obstacle: why it cannot be replayed; None if it can, or it is not known yet.
        replay: makes what the function does; None until it was called twice.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.obstacle: str | None = None
        self.replay: Replay | None = None
        self._before: Capture | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The function's result."""
        result, captured, used = capture(self.function, x)
        if captured.obstacle is not None:
            self.obstacle = captured.obstacle
        elif self._before is None:
            self._before = captured
        elif self._before == captured:
            self.replay = Replay(captured, result, used)
        else:
            self.obstacle = "two calls differ in more than their input"
        return result


class Replay:
    """Calls over fixed memory.

    Args:
        captured: calls without an obstacle.
        like: the function's result when the calls were captured.
        used: what they read and write besides buffers of their own; kept alive here.

    Attributes:
        result: the function's result, which every run overwrites.
    """

    def __init__(self, captured: Capture, like: Tensor, used: Sequence[Tensor]) -> None:
        assert captured.result is not None
        begins, size = _arranged(captured)
        self._memory = torch.empty(size // like.itemsize, dtype=like.dtype)
        self._used = used
        at = begins[captured.result.buffer] + captured.result.offset
        self.result = self._memory.as_strided(like.shape, like.stride(), at // like.itemsize)
        structures = []
        for call in captured.calls:
            structure = bytearray(call.arguments)
            for where, place in call.places.items():
                put_address(structure, where, self._memory.data_ptr() + begins[place.buffer] + place.offset)
            structures.append(structure)
        self._names = [call.kernel.name for call in captured.calls]
        self._structures = _words(b"".join(structures))
        self._calls = (ctypes.c_int64 * (2 * len(structures)))()
        address = ctypes.addressof(self._structures)
        for index, (call, structure) in enumerate(zip(captured.calls, structures, strict=True)):
            self._calls[2 * index] = call.kernel.address
            self._calls[2 * index + 1] = address
            address += len(structure)

    def run(self) -> Tensor:
        """Make the calls; the result.

        Raises:
            MemoryError, ValueError, IndexError: as the kernel that fails.
        """
        number = ctypes.c_int64()
        if code := load().cobra_run_plan(self._calls, len(self._names), ctypes.byref(number)):
            raise failure(self._names[number.value], code)
        return self.result


def _words(data: bytes) -> "ctypes.Array[ctypes.c_int64]":
    return (ctypes.c_int64 * (len(data) // 8)).from_buffer_copy(data)


def _arranged(captured: Capture) -> tuple[dict[int, int], int]:
    """Where each buffer begins in a memory that they share, and its size.

    Two that are never needed at the same time may lie in the same place, which then stays in the cache.
    """
    assert captured.result is not None
    uses = [
        (place.buffer, index) for index, call in enumerate(captured.calls) for place in call.places.values()
    ]
    uses.append((captured.result.buffer, len(captured.calls)))
    last = dict(uses)
    begins: dict[int, int] = {}
    total, live = 0, list[tuple[int, int, int]]()
    for buffer, index in uses:
        if buffer in begins:
            continue
        live = sorted(each for each in live if each[2] >= index)
        size = -(-captured.sizes[buffer] // _ALIGNMENT) * _ALIGNMENT
        begin = 0
        for other, end, _ in live:
            if begin + size <= other:
                break
            begin = max(begin, end)
        begins[buffer] = begin
        live.append((begin, begin + size, last[buffer]))
        total = max(total, begin + size)
    return begins, total
