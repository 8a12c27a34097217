"""Something that can be run again and again, and a watch for what it does."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from cobra.bench.timing.sample import Sample


@dataclass(frozen=True)
class Case:
    """A call without arguments.

    Attributes:
        run: the call. It may return a `Sample`, where it knows better than a clock around it: stages, or
            seconds that another program measured.
        rehearsal: a shorter call that warms up all the same and takes as much memory; None: `run`.
        about: what the report should know of it, plain JSON.
        end: lets go of what garbage collection does not; called when the case is not needed any more.
    """

    run: Callable[[], object]
    rehearsal: Callable[[], object] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    end: Callable[[], object] | None = None


def dtype_of(name: str) -> torch.dtype:
    """float32, bfloat16 or float16, by name."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


class Stopwatch:
    """Seconds of one stage after another, a GPU's work included.

    Args:
        device: that works.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.stages: dict[str, tuple[float, float]] = {}
        self.restart()

    def restart(self) -> None:
        """The next stage begins now."""
        self.last = self._now()

    def mark(self, stage: str) -> None:
        """A stage ends, the next begins."""
        now = self._now()
        self.stages[stage] = now[0] - self.last[0], now[1] - self.last[1]
        self.last = now

    def sample(self, *stages: str) -> Sample:
        """The sum of these stages, all of them when none is named; the others are kept beside it."""
        summed = [self.stages[stage] for stage in stages or self.stages]
        return Sample(sum(cpu for cpu, _ in summed), sum(wall for _, wall in summed), self.stages)

    def _now(self) -> tuple[float, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time(), time.perf_counter()
