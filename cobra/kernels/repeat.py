"""A function that is called for every token: Python runs it twice, then its kernels alone are repeated."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from cobra.kernels.cpu.notes import Notes, note
from cobra.kernels.cpu.plan import Plan

_log = logging.getLogger(__name__)


class Repeated:
    """A function of one tensor, as fast as its kernels where that can be had without changing its results.

    On a CPU the kernels of the first two calls are noted. If they are the same and nothing else computes, all
    later calls only repeat them: a sequence of kernels on fixed memory, as a CUDA graph is. Otherwise the
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
        self._before: Notes | None = None
        self._plan: Plan | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The function's result."""
        if self.obstacle is not None:
            return self.function(x)
        if self._input is None:
            self._input = torch.empty_like(x)
        self._input.copy_(x)
        return self._note(self._input) if self._plan is None else self._plan.run()

    def _note(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return self._give_up("only calls on the CPU without gradients are repeated", self.function(x))
        result, notes, used = note(self.function, x)
        if notes.obstacle is not None:
            return self._give_up(notes.obstacle, result)
        if self._before is None:
            self._before = notes
        elif self._before == notes:
            self._plan = Plan(notes, result, used)
        else:
            return self._give_up("two calls differ in more than their input", result)
        return result

    def _give_up(self, obstacle: str, result: Tensor) -> Tensor:
        _log.debug("kernels are not repeated: %s", obstacle)
        self.obstacle = obstacle
        return result
