"""Batches by number: which examples make each is a function of the seed alone."""

import math
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from torch.utils.data import DataLoader, Sampler

from cobra.data.source import Source
from cobra.data.token_counts import TokenCounts
from cobra.train.stages import Plan, Stage
from cobra.train.streams import (
    GroupedStream,
    Order,
    PackedStream,
    Pick,
    RandomStream,
    Row,
    Stream,
    token_arrays,
)

_Names = tuple[str, ...]


@dataclass
class Supply:
    """What a run's batches are made of, and for how many devices.

    Attributes:
        sources: by name.
        world: devices.
        seed: of all random choices.
        max_length: to which examples are cut.
        row_length: of a packed row, at least `max_length`.
        counts: tokens of the records of sources, for stages whose batches are grouped or packed.
    """

    sources: Mapping[str, Source]
    world: int = 1
    seed: int = 0
    max_length: int = 2048
    row_length: int = 2048
    counts: Mapping[str, TokenCounts] = field(default_factory=dict)
    _orders: dict[_Names, Order] = field(default_factory=dict)
    _made: dict[tuple[int, str], list[Stream]] = field(default_factory=dict)

    def streams(self, stage: Stage, number: int, before: Mapping[_Names, int] | None = None) -> list[Stream]:
        """The streams that a stage's batches are drawn from.

        Args:
            stage: the stage.
            number: of the stage.
            before: examples that earlier stages took of streams in random order, which go on behind them.
        """
        if stage.batching == "random":
            return [
                RandomStream(self._order(names), stage.batch_size, self.world, (before or {}).get(names, 0))
                for names in stage.streams
            ]
        key = number, stage.batching
        if key not in self._made:
            self._made[key] = [self._stream(stage, number, names) for names in stage.streams]
        return self._made[key]

    def tokens(self, pick: Pick) -> int:
        """Of an example, after the cut."""
        name, index = pick
        return min(self.max_length, int(self.counts[name].tokens[index]))

    def _order(self, names: _Names) -> Order:
        if names not in self._orders:
            self._orders[names] = Order({name: self.sources[name] for name in names}, [self.seed])
        return self._orders[names]

    def _stream(self, stage: Stage, number: int, names: _Names) -> Stream:
        # every stage begins with a first epoch, in an order of its own
        order = Order({name: self.sources[name] for name in names}, [self.seed, number])
        tokens, pictured = token_arrays(order, self.counts)
        tokens = np.minimum(tokens, self.max_length)
        if stage.batching == "grouped":
            return GroupedStream(order, stage.batch_size, self.world, tokens, pictured)
        return PackedStream(order, stage.batch_size, self.world, tokens, self.row_length)


def make_plan(stages: Sequence[Stage], supply: Supply, accumulate: int = 1) -> Plan:
    """Lengths of the stages in optimizer steps.

    Args:
        stages: in order.
        supply: what their batches are made of.
        accumulate: batches an optimizer step.
    """
    sizes = {name: len(source) for name, source in supply.sources.items()}
    steps = []
    for number, stage in enumerate(stages):
        unknown = sorted(set(stage.data) - set(sizes))
        if unknown:
            raise ValueError(
                f"stage {stage.name!r} names unknown sources {unknown}; there are {sorted(sizes)}"
            )
        if empty := [name for name in stage.data if not sizes[name]]:
            raise ValueError(f"stage {stage.name!r}: its sources {empty} hold no records")
        steps.append(steps_of(stage, number, supply, accumulate))
    return Plan(stages, steps)


def steps_of(stage: Stage, number: int, supply: Supply, accumulate: int = 1) -> int:
    """Length of a stage of this number in optimizer steps."""
    return stage.steps or math.ceil(_batches(stage, number, supply) / accumulate)


def drawn_stream(stage: Stage, seed: int, number: int) -> int:
    """The stream that a batch of a run is from."""
    if len(stage.streams) == 1:
        return 0
    return bisect_right(
        _bounds(tuple(stage.streams.values())), np.random.default_rng([seed, number]).random()
    )


def _batches(stage: Stage, number: int, supply: Supply) -> float:
    """Batches of a stage's epochs: as many as hold the examples of all its sources, or a share of them."""
    assert stage.epochs is not None
    streams = supply.streams(stage, number)
    examples = sum(stream.order.size for stream in streams)
    if stage.batching == "random":
        return stage.epochs * examples / (stage.batch_size * supply.world)
    if len(streams) == 1:
        return streams[0].length(stage.epochs)
    shares = np.array([*stage.streams.values()])
    held = np.array([stream.order.size / stream.batches(1) for stream in streams])
    return stage.epochs * examples / float((shares / shares.sum() * held).sum())


@lru_cache
def _bounds(shares: tuple[float, ...]) -> list[float]:
    """Below which number from 0 to 1 each is drawn: with this numpy's `choice` draws, without its checks."""
    bounds = (np.array(shares, dtype=float) / np.array(shares, dtype=float).sum()).cumsum()
    ends: list[float] = (bounds / bounds[-1]).tolist()
    return ends


class StageSampler(Sampler[list[Row]]):
    """The batches of a whole run, one after the other.

    Batch k is the same whatever came before it, so a run that is resumed sees what the uninterrupted one
    would have seen, and batches that were taken are counted, not made. Each source is walked through in a new
    order every epoch; devices take disjoint rows.

    Args:
        plan: the stages and their lengths.
        supply: what batches are made of.
        accumulate: batches an optimizer step.
        rank: number of this device.
    """

    def __init__(self, plan: Plan, supply: Supply, accumulate: int = 1, rank: int = 0) -> None:
        self.plan, self.supply, self.accumulate, self.rank = plan, supply, accumulate, rank
        self.start = 0

    def __len__(self) -> int:
        return self.plan.total * self.accumulate

    def __iter__(self) -> Iterator[list[Row]]:
        taken: Counter[_Names] = Counter()
        first = 0
        for index, (stage, steps) in enumerate(zip(self.plan.stages, self.plan.steps, strict=True)):
            last = first + steps * self.accumulate
            begin = min(max(self.start, first), last)
            counts = self._count(stage, first, begin)
            if begin < last:
                streams = self.supply.streams(stage, index, taken)
                for number in range(begin, last):
                    drawn = drawn_stream(stage, self.supply.seed, number)
                    yield streams[drawn].rows(counts[drawn], self.rank)
                    counts[drawn] += 1
            if stage.batching == "random":
                for names, count in zip(stage.streams, counts, strict=True):
                    taken[names] += count * stage.batch_size * self.supply.world
            first = last

    def _count(self, stage: Stage, first: int, begin: int) -> list[int]:
        """Batches of each stream among those of a stage before one of them."""
        if len(stage.streams) == 1:
            return [begin - first]
        drawn = Counter(drawn_stream(stage, self.supply.seed, number) for number in range(first, begin))
        return [drawn[number] for number in range(len(stage.streams))]


class ResumableLoader(DataLoader):
    """A loader that can start after the batches that a run has taken, which its optimizer steps tell.

    Attributes:
        waited: seconds that batches were waited for.
    """

    _start = 0
    waited = 0.0

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
        return self._timed(super().__iter__())

    def _timed(self, batches: Iterator) -> Iterator:
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch
