"""What `cobra.kernels.cuda_graph` asks of torch.cuda, with tensors of the CPU and the manners of a GPU.

In a capture no kernel runs: results lie where they will lie, and hold nothing. A replay runs the kernels on
that memory again, whatever Python has bound to other tensors since, and spoil what other graphs have left in
memory that they share. A kernel that runs for the first time may not do so in a capture, nothing may be asked
of the device there, and one that fails is over.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from warnings import warn

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.kernels.no_waiting import waits_of

_aten = torch.ops.aten
_ALLOCATIONS = (
    _aten.empty.memory_format, _aten.empty_like.default, _aten.new_empty.default,
    _aten.empty_strided.default, _aten.new_empty_strided.default,
)  # fmt: skip


class Gpu:
    """A device.

    Attributes:
        streams: current one last.
        warm: kernels that have run on the side stream.
        replays: of all graphs.
        graphs: that were captured.
        sync_debug_mode: as torch.cuda's.
    """

    def __init__(self) -> None:
        self.streams = [Stream()]
        self.warm: set[Any] = set()
        self.replays = 0
        self.graphs: list[Graph] = []
        self.sync_debug_mode = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let torch.cuda be this."""
        patch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(self))
        patch.setattr(torch.cuda, "Stream", lambda device: Stream())
        patch.setattr(torch.cuda, "current_stream", lambda device: self.streams[-1])
        patch.setattr(torch.cuda, "stream", self.on)
        patch.setattr(torch.cuda, "get_sync_debug_mode", lambda: self.sync_debug_mode)
        patch.setattr(torch.cuda, "set_sync_debug_mode", self.set_sync_debug_mode)

    @contextmanager
    def on(self, stream: "Stream") -> Iterator[None]:
        """Run on a stream."""
        assert stream.waited_for is self.streams[-1], "the streams run at the same time"
        self.streams.append(stream)
        with waits_of(self.asked), _Seen(self.warm):
            yield
        self.streams.pop()

    def asked(self, function: Any) -> None:
        """Python asks something of the device."""
        if any(stream.captures for stream in self.streams):
            self.streams[-1].captures = None
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {function}")
        if self.sync_debug_mode == "warn":
            warn("called a synchronizing CUDA operation", stacklevel=1)

    def set_sync_debug_mode(self, mode: Any) -> None:
        """As torch.cuda's."""
        self.sync_debug_mode = mode


class Stream:
    """In order; `waited_for` is the last stream that it waits for."""

    def __init__(self) -> None:
        self.waited_for: Stream | None = None
        self.captures: Graph | None = None

    def wait_stream(self, other: "Stream") -> None:
        """As torch.cuda's."""
        self.waited_for = other


class Graph:
    """As torch.cuda.CUDAGraph."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.capture: _Capture | None = None
        self.memory: Any = object()

    def pool(self) -> Any:
        """As torch.cuda's."""
        return self.memory

    def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
        """As torch.cuda's."""
        self.memory = pool or self.memory
        assert len(self.gpu.streams) > 1, "a capture needs a stream of its own"
        self.gpu.streams[-1].captures = self
        self.capture = _Capture(self.gpu.warm)
        self.capture.__enter__()

    def capture_end(self) -> None:
        """As torch.cuda's."""
        assert self.capture is not None
        self.capture.__exit__(None, None, None)
        if self.gpu.streams[-1].captures is not self:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        self.gpu.streams[-1].captures = None
        self.gpu.graphs.append(self)

    def replay(self) -> None:
        """As torch.cuda's."""
        assert self.capture is not None
        self.gpu.replays += 1
        for graph in self.gpu.graphs:
            if graph is not self and graph.memory is self.memory and graph.capture is not None:
                for place in graph.capture.places:
                    _spoil(place)
        for kernel in self.capture.kernels:
            kernel()


class _Seen(TorchDispatchMode):
    def __init__(self, kernels: set[Any]) -> None:
        super().__init__()
        self.kernels = kernels

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with self:
            if (result := func.decompose(*args, **(kwargs or {}))) is not NotImplemented:
                return result
        self.kernels.add(func)
        return func(*args, **(kwargs or {}))


class _Capture(TorchDispatchMode):
    def __init__(self, warm: set[Any]) -> None:
        super().__init__()
        self.warm = warm
        self.kernels: list[Callable[[], None]] = []
        self.places: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:
            if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        if func.is_view or func in _ALLOCATIONS:
            return func(*args, **kwargs)
        if func not in self.warm:
            raise RuntimeError(f"CUDA error: {func} cannot be loaded while a stream is capturing")
        given = _tensors((args, kwargs))
        before = [x.clone() for x in given]
        result = func(*args, **kwargs)
        # it has not run
        for x, old in zip(given, before, strict=True):
            x.copy_(old)
        made = [x if all(x is not other for other in given) else None for x in _tensors(result)]
        for place in made:
            if place is not None:
                _spoil(place)
                self.places.append(place)

        def kernel() -> None:
            for place, new in zip(made, _tensors(func(*args, **kwargs)), strict=True):
                if place is not None:
                    place.copy_(new)

        self.kernels.append(kernel)
        return result


def _spoil(place: Tensor) -> None:
    place.fill_(torch.nan if place.is_floating_point() else 0)


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]
