"""A function that is called for every token: Python runs it twice, then its kernels alone are replayed."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from cobra.kernels.cpu.capture import Capture, capture
from cobra.kernels.cpu.replay import Replay

_log = logging.getLogger(__name__)


class StepGraph:
    """A function of one tensor, as fast as its kernels where that can be had without changing its results.

    On a CPU the kernels of the first two calls are captured. If they are the same and nothing else computes,
    all later calls only replay them: a sequence of kernels on fixed memory, as a CUDA graph is. Otherwise the
    function is called, always. A state that it reads and writes must keep its memory.

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
        self._before: Capture | None = None
        self._replay: Replay | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The function's result."""
        if self.obstacle is not None:
            return self.function(x)
        if self._input is None:
            self._input = torch.empty_like(x)
        self._input.copy_(x)
        return self._capture(self._input) if self._replay is None else self._replay.run()

    def _capture(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return self._give_up("only calls on the CPU without gradients are replayed", self.function(x))
        result, captured, used = capture(self.function, x)
        if captured.obstacle is not None:
            return self._give_up(captured.obstacle, result)
        if self._before is None:
            self._before = captured
        elif self._before == captured:
            self._replay = Replay(captured, result, used)
        else:
            return self._give_up("two calls differ in more than their input", result)
        return result

    def _give_up(self, obstacle: str, result: Tensor) -> Tensor:
        _log.debug("kernels are not replayed: %s", obstacle)
        self.obstacle = obstacle
        return result
