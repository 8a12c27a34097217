"""A function that is called for every token: Python runs it twice, then its kernels alone are replayed."""

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from cobra.kernels import cuda_graph
from cobra.kernels.cpu import replay

_log = logging.getLogger(__name__)


class _Replay(Protocol):
    def run(self) -> Tensor:
        """The function's result, which the next run overwrites."""


class _Recorder(Protocol):
    """Calls a function until it can be replayed, or until it is known why not."""

    @property
    def obstacle(self) -> str | None: ...
    @property
    def replay(self) -> _Replay | None: ...
    def __call__(self, x: Tensor) -> Tensor: ...


# by device type
_RECORDERS: dict[str, Callable[[Callable[[Tensor], Tensor]], _Recorder]] = {
    "cpu": replay.Recorder,
    "cuda": cuda_graph.Recorder,
}


class StepGraph:
    """A function of one tensor, as fast as its kernels where that can be had without changing its results.

    The kernels of the first two calls are recorded, and all later calls only replay them: a sequence of
    kernels on fixed memory. On a CPU they must be the same twice, and nothing else may compute; on a GPU they
    are a CUDA graph, in which nothing may wait for the device. Otherwise the function is called, always. A
    state that it reads and writes must keep its memory.

    Args:
        function: of a tensor that always has the same shape and dtype. Its result may be overwritten by the
            next call.

    Attributes:
        obstacle: why the function itself is called; None if it is not, or not known yet.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.obstacle: str | None = None
        self._input: Tensor | None = None
        self._recorder: _Recorder | None = None
        self._replay: _Replay | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The function's result."""
        if self.obstacle is not None:
            return self.function(x)
        if self._input is None:
            self._input = torch.empty_like(x)
        self._input.copy_(x)
        return self._record(self._input) if self._replay is None else self._replay.run()

    def _record(self, x: Tensor) -> Tensor:
        make = _RECORDERS.get(x.device.type)
        if make is None or torch.is_grad_enabled():
            return self._give_up(
                "only calls on a CPU or a CUDA device without gradients are replayed", self.function(x)
            )
        self._recorder = self._recorder or make(self.function)
        result = self._recorder(x)
        self._replay = self._recorder.replay
        obstacle = self._recorder.obstacle
        return result if obstacle is None else self._give_up(obstacle, result)

    def _give_up(self, obstacle: str, result: Tensor) -> Tensor:
        _log.debug("kernels are not replayed: %s", obstacle)
        self.obstacle = obstacle
        return result
