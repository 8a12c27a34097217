"""Streams: batches of some sources, numbered from 0 without end, each a function of the seed alone."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil

import numpy as np

from cobra.data.source import Source
from cobra.data.token_counts import TokenCounts
from cobra.train.packing import pack

# An example: the name of its source and its number there.
Pick = tuple[str, int]
# Examples that share a row of a batch; one, unless they are packed.
Row = tuple[Pick, ...]

# Batches of which the examples are sorted together by length: as transformers' LengthGroupedSampler has it,
# few enough that a batch differs from epoch to epoch.
_SORTED = 50
# Examples that are packed together: those of a row were near each other in the epoch's order, and the rows
# that are left half full, the last ones, are few.
_PACKED = 2**16


class Order:
    """Examples of some sources in the order in which an epoch goes through them.

    With several sources each comes in its own order, and which is next is drawn: all are shuffled together.

    Args:
        sources: by name.
        seed: of all random choices, as numpy's generators take it.
    """

    def __init__(self, sources: Mapping[str, Source], seed: Sequence[int]) -> None:
        self.sources, self.seed = sources, list(seed)
        self.names = list(sources)
        # an example's number is that in all sources laid end to end
        self.ends = np.cumsum([len(source) for source in sources.values()])
        self.size = int(self.ends[-1])
        # a batch can span the end of an epoch
        self.epoch = lru_cache(maxsize=3)(self._epoch)

    def pick(self, number: int) -> Pick:
        """The example of a number."""
        which = int(np.searchsorted(self.ends, number, side="right"))
        return self.names[which], int(number) - (int(self.ends[which - 1]) if which else 0)

    def generator(self, epoch: int, *more: int, name: str = "") -> np.random.Generator:
        """Of one epoch's random choices."""
        return np.random.default_rng([*self.seed, epoch, *more, *name.encode()])

    def _epoch(self, epoch: int) -> np.ndarray:
        """Numbers of all examples (size,)."""
        parts = [_order(self.sources[name], self.generator(epoch, name=name), name) for name in self.names]
        starts = [0, *self.ends[:-1]]
        joined = [part + start for part, start in zip(parts, starts, strict=True)]
        return interleave(joined, self.generator(epoch, name="\n".join(self.names)))


def _order(source: Source, rng: np.random.Generator, name: str) -> np.ndarray:
    order = np.asarray(source.order(rng))
    if not (len(order) == len(source) and (np.bincount(order, minlength=len(source)) == 1).all()):
        raise ValueError(
            f"the order of source {name!r} is no permutation of its {len(source)} records: let "
            f"{type(source).__name__}.order return each number once"
        )
    return order


def interleave(parts: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The elements of all parts in one array; each part's stay in order, which part is next is drawn."""
    if len(parts) == 1:
        return parts[0]
    which = rng.permutation(np.repeat(np.arange(len(parts)), [len(part) for part in parts]))
    mixed = np.empty((len(which), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for number, part in enumerate(parts):
        mixed[which == number] = part
    return mixed


class Stream(ABC):
    """Batches of some sources, numbered from 0 without end. Epoch follows epoch; none waits for another.

    Args:
        order: of the examples.
        batch_size: rows a batch on each device.
        world: devices, which take disjoint rows.
    """

    def __init__(self, order: Order, batch_size: int, world: int) -> None:
        self.order, self.batch_size, self.world = order, batch_size, world
        self.rows_a_batch = batch_size * world

    @abstractmethod
    def rows(self, number: int, rank: int) -> list[Row]:
        """The rows of a device's batch."""

    @abstractmethod
    def batches(self, epochs: int) -> int:
        """Batches in which whole epochs come to their end."""

    def length(self, epochs: float) -> int:
        """Batches of a number of epochs, the last of which may be a part of one."""
        whole = int(epochs)
        start, part = self.batches(whole), epochs - whole
        return start + ceil(part * (self.batches(whole + 1) - start) if part else 0)


class RandomStream(Stream):
    """Batches of whatever examples come next, as the epochs' orders have them.

    Args:
        order: of the examples.
        batch_size: examples a batch on each device.
        world: devices.
        before: examples that earlier stages took.
    """

    def __init__(self, order: Order, batch_size: int, world: int, before: int = 0) -> None:
        super().__init__(order, batch_size, world)
        self.before = before

    def rows(self, number: int, rank: int) -> list[Row]:
        """Examples of their own row each."""
        first = self.before + number * self.rows_a_batch + rank * self.batch_size
        return [(self._pick(first + i),) for i in range(self.batch_size)]

    def _pick(self, position: int) -> Pick:
        epoch, offset = divmod(position, self.order.size)
        return self.order.pick(self.order.epoch(epoch)[offset])

    def batches(self, epochs: int) -> int:
        """Batches with as many examples."""
        return ceil(epochs * self.order.size / self.rows_a_batch)


class GroupedStream(Stream):
    """Batches purely with or purely without pictures, of examples of similar length on all devices.

    As prismatic's SplitModalitySampler and LLaVA's `group_by_modality_length`, which sort within a step's
    examples; here, as in transformers' LengthGroupedSampler, the examples of 50 steps are sorted together and
    then cut into batches. As in prismatic the longest batch comes first: what does not fit a device's memory
    is seen at once. At an epoch's end the last batch of either kind is filled from the next epoch, which then
    goes on behind: nothing is left out, nothing comes twice.

    Args:
        order: of the examples.
        batch_size: examples a batch on each device.
        world: devices.
        tokens: of each example.
        pictured: whether each has pictures.
    """

    def __init__(
        self, order: Order, batch_size: int, world: int, tokens: np.ndarray, pictured: np.ndarray
    ) -> None:
        super().__init__(order, batch_size, world)
        self.tokens, self.pictured = tokens, pictured
        seen = int(pictured.sum())
        self.kinds = {kind: size for kind, size in ((True, seen), (False, len(pictured) - seen)) if size}
        self.plan = lru_cache(maxsize=2)(self._plan)

    def rows(self, number: int, rank: int) -> list[Row]:
        """Examples of their own row each."""
        epoch = number * self.rows_a_batch // self.order.size
        while self.batches(epoch) > number:
            epoch -= 1
        while self.batches(epoch + 1) <= number:
            epoch += 1
        batch = self.plan(epoch)[number - self.batches(epoch)]
        # of neighbours by length each goes to another device
        return [(self.order.pick(example),) for example in batch[rank :: self.world]]

    def batches(self, epochs: int) -> int:
        """Batches of both kinds."""
        return sum(self._of_kind(epochs, size) for size in self.kinds.values())

    def _of_kind(self, epochs: int, size: int) -> int:
        return -(-epochs * size // self.rows_a_batch)

    def _plan(self, epoch: int) -> np.ndarray:
        """Examples of an epoch's batches (batches, batch_size × world)."""
        rng, parts = self.order.generator(epoch, 1), []
        for kind, size in self.kinds.items():
            first, last = (self._of_kind(n, size) * self.rows_a_batch for n in (epoch, epoch + 1))
            parts.append(self._sorted(self._examples(kind, size, first, last), rng))
        batches = interleave(parts, rng)
        if not epoch and len(batches):
            longest = int(self.tokens[batches].max(1).argmax())
            batches[[0, longest]] = batches[[longest, 0]]
        return batches

    def _examples(self, kind: bool, size: int, first: int, last: int) -> np.ndarray:
        """The examples of one kind between two positions in all epochs laid end to end."""
        epochs = range(first // size, -(-last // size))
        parts = [order[self.pictured[order] == kind] for order in map(self.order.epoch, epochs)]
        start = first - epochs.start * size
        return np.concatenate([*parts, np.empty(0, int)])[start : start + last - first].astype(int)

    def _sorted(self, examples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Batches (batches, rows) of examples, sorted by length within windows, in random order there."""
        size = _SORTED * self.rows_a_batch
        batches = []
        for start in range(0, len(examples), size):
            window = examples[start : start + size]
            window = window[np.argsort(self.tokens[window], kind="stable")].reshape(-1, self.rows_a_batch)
            batches.append(rng.permutation(window))
        return np.concatenate(batches) if batches else examples.reshape(0, self.rows_a_batch)


class PackedStream(Stream):
    """Batches of rows that are filled with whole examples, up to a length.

    An epoch's examples are packed within windows of its order; rows then come in random order. The last batch
    of an epoch goes on with the rows of the next.

    Args:
        order: of the examples.
        batch_size: rows a batch on each device.
        world: devices.
        tokens: of each example.
        room: of a row.
    """

    def __init__(self, order: Order, batch_size: int, world: int, tokens: np.ndarray, room: int) -> None:
        super().__init__(order, batch_size, world)
        self.tokens, self.room = np.maximum(tokens, 1), room
        # rows before each epoch, as far as is known
        self.starts = [0]
        self.plan = lru_cache(maxsize=2)(self._plan)

    def rows(self, number: int, rank: int) -> list[Row]:
        """Rows of several examples."""
        first = number * self.rows_a_batch + rank * self.batch_size
        return [self._row(first + i) for i in range(self.batch_size)]

    def _row(self, number: int) -> Row:
        while self.starts[-1] <= number:
            self._row_count(len(self.starts))
        epoch = bisect_right(self.starts, number) - 1
        examples, ends = self.plan(epoch)
        at = number - self.starts[epoch]
        return tuple(self.order.pick(example) for example in examples[ends[at] : ends[at + 1]])

    def batches(self, epochs: int) -> int:
        """Batches in which the rows of the epochs come to their end."""
        return -(-self._row_count(epochs) // self.rows_a_batch)

    def _row_count(self, epochs: int) -> int:
        """Rows of whole epochs."""
        while len(self.starts) <= epochs:
            ends = self.plan(len(self.starts) - 1)[1]
            self.starts.append(self.starts[-1] + len(ends) - 1)
        return self.starts[epochs]

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The examples of an epoch's rows laid end to end, and where rows begin and the last ends."""
        rng, order = self.order.generator(epoch, 2), self.order.epoch(epoch)
        parts, sizes = [], []
        for start in range(0, len(order), _PACKED):
            window = order[start : start + _PACKED]
            rows = pack(self.tokens[window], self.room)
            # a random number for each row in the place of that in which it was opened
            rows = rng.permutation(int(rows.max()) + 1)[rows]
            parts.append(window[np.argsort(rows, kind="stable")])
            sizes.append(np.bincount(rows))
        return np.concatenate(parts), np.cumsum([0, *np.concatenate(sizes)])


def token_arrays(order: Order, counts: Mapping[str, TokenCounts]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each example of an order, and whether it has pictures."""
    found = [counts[name] for name in order.names]
    tokens = np.concatenate([count.tokens for count in found])
    return tokens, np.concatenate([count.pictures > 0 for count in found])
