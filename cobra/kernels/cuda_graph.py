"""CUDA graph of a function of one tensor: its kernels on fixed memory, started at once.

The twin on a GPU of what `cobra.kernels.cpu.replay` records on a CPU. There kernels are compared, because a
function may also compute on its own; here all that runs on the device is captured, and what a capture cannot
hold is looked for before.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_COLLECTIVES = ("c10d", "_c10d_functional")


class Recorder:
    """A function, called twice: as it is, then captured and replayed.

    The first call warms up: kernels are compiled and libraries take their memory, which no capture may do.

    Args:
        function: of a tensor that always lies in the same place.

    Attributes:
        obstacle: why it cannot be replayed; None if it can, or it is not known yet.
        replay: makes what the function does; None until it is captured.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.obstacle: str | None = None
        self.replay: Replay | None = None
        self._result: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The function's result."""
        if self._result is None:
            with _beside(x.device), _looking_for_obstacles() as obstacles:
                result = self._compute(x)
            self.obstacle = next(iter(obstacles), None)
            return result
        try:
            self.replay = Replay(self._compute, x)
        except RuntimeError as error:
            # no kernel has run yet
            self.obstacle = f"its capture failed: {str(error).partition(chr(10))[0]}"
            return self.function(x)
        return self.replay.run()

    def _compute(self, x: Tensor) -> Tensor:
        """The function's result, in memory that no graph computes in."""
        result = self.function(x)
        if self._result is None:
            self._result = torch.empty_like(result)
        return self._result.copy_(result)


# By device the graph that was captured last, which keeps the memory that all compute in, one after the other.
# Memory of its own would not come back with the end of an answer: torch frees it when no other is left.
_newest: dict[torch.device, torch.cuda.CUDAGraph] = {}


class Replay:
    """What a function did when it was captured, on the memory that it did it on.

    Args:
        function: must have run before. Its result lies in memory that was there before.
        x: its argument.

    Raises:
        RuntimeError: if it does what no graph holds.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        # weights and states belong to the function
        self._graph, self._function = torch.cuda.CUDAGraph(), function
        before = _newest.get(x.device)
        pool = None if before is None else before.pool()
        with _beside(x.device):
            # another thread may go on, e.g. pin memory for the next batch
            self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self._result = function(x)
            except BaseException:
                with suppress(RuntimeError):
                    self._graph.capture_end()
                raise
            self._graph.capture_end()
        _newest[x.device] = self._graph

    def run(self) -> Tensor:
        """The function's result, which the next run overwrites."""
        self._graph.replay()
        return self._result


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """A stream of its own, as captures ask for, in turn with the current one."""
    current, side = torch.cuda.current_stream(device), _stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield
    current.wait_stream(side)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    # one for all: cuBLAS keeps a workspace for each that it has seen
    return torch.cuda.Stream(device)


@contextmanager
def _looking_for_obstacles() -> Iterator[list[str]]:
    """A list, in the end of what no capture holds: a failed one leaves the allocator in disorder."""
    obstacles: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as warned, _Subclasses(obstacles):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield obstacles
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in warned:
        if "synchronizing CUDA operation" in str(warning.message):
            obstacles.append(f"{warning.filename}:{warning.lineno} waits for the device")
        elif "Synchronization debug mode" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


class _Subclasses(TorchDispatchMode):
    """Notes what other processes take part in, and sharded weights, which would."""

    def __init__(self, obstacles: list[str]) -> None:
        super().__init__()
        self.obstacles = obstacles

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if types or func.namespace in _COLLECTIVES:
            self.obstacles.append(f"{func} may wait for other processes")
        return func(*args, **(kwargs or {}))
