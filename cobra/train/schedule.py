"""Batches by number: which examples make each is a function of the seed alone."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch.utils.data import DataLoader, Sampler

from cobra.train.stages import Plan, Stage

# An example: the name of its source and its number there.
Pick = tuple[str, int]


def make_plan(stages: Sequence[Stage], sizes: dict[str, int], examples_per_size: int) -> Plan:
    """Lengths of the stages in optimizer steps.

    Args:
        stages: in order.
        sizes: examples of each source.
        examples_per_size: examples an optimizer step takes at a batch size of 1 (devices × accumulation).
    """
    steps = []
    for stage in stages:
        unknown = sorted(set(stage.data) - set(sizes))
        if unknown:
            raise ValueError(
                f"stage {stage.name!r} names unknown sources {unknown}; there are {sorted(sizes)}"
            )
        if empty := [name for name in stage.data if not sizes[name]]:
            raise ValueError(f"stage {stage.name!r}: its sources {empty} hold no records")
        examples = sum(sizes[name] for name in stage.data) * (stage.epochs or 0)
        steps.append(stage.steps or math.ceil(examples / (stage.batch_size * examples_per_size)))
    return Plan(stages, steps)


class StageSampler(Sampler[list[Pick]]):
    """The batches of a whole run, one after the other.

    Batch k is the same whatever came before it, so a run that is resumed sees what the uninterrupted one
    would have seen. Each source is walked through in a new random order every epoch; devices take disjoint
    slices.

    Args:
        plan: the stages and their lengths.
        sizes: examples of each source.
        accumulate: batches an optimizer step.
        rank: number of this device.
        world: devices.
        seed: of all random choices.
    """

    def __init__(
        self,
        plan: Plan,
        sizes: dict[str, int],
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
    ) -> None:
        self.plan, self.sizes = plan, sizes
        self.accumulate, self.rank, self.world, self.seed = accumulate, rank, world, seed
        self.start = 0

    def __len__(self) -> int:
        return self.plan.total * self.accumulate

    def __iter__(self) -> Iterator[list[Pick]]:
        taken: dict[str, int] = dict.fromkeys(self.sizes, 0)
        for number in range(len(self)):
            stage = self.plan.stages[self.plan.index(number // self.accumulate)]
            rng = np.random.default_rng([self.seed, number])
            names = list(stage.data)
            shares = np.array([stage.data[name] for name in names], dtype=float)
            name = names[rng.choice(len(names), p=shares / shares.sum())]
            first = taken[name] + self.rank * stage.batch_size
            taken[name] += stage.batch_size * self.world
            if number >= self.start:
                yield [(name, self._example(name, first + i)) for i in range(stage.batch_size)]

    def _example(self, name: str, position: int) -> int:
        epoch, offset = divmod(position, self.sizes[name])
        return int(_order(self.seed, name, epoch, self.sizes[name])[offset])


# a batch can span the end of an epoch in every source, so a handful of orders are in use at a time
@lru_cache(maxsize=16)
def _order(seed: int, name: str, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, *name.encode()]).permutation(size)


class ResumableLoader(DataLoader):
    """A loader that can start after the batches that a run has taken, which its optimizer steps tell."""

    _start = 0

    def state_dict(self) -> dict[str, int]:
        """Nothing: Lightning asks whoever it gives a state."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start after the batches that were taken."""
        self._start = state["batches"]

    def __iter__(self) -> Iterator:  # type: ignore[override]  # an iterator of a private class
        sampler = self.batch_sampler
        assert isinstance(sampler, StageSampler)
        sampler.start = self._start
        return super().__iter__()
