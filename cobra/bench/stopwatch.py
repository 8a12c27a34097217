"""When the stages of a call ended."""

import time

import torch

from cobra.bench.timing.sample import Sample


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
