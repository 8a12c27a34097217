"""Packing: which row each of some lengths goes to, so that rows are nearly full."""

import numpy as np

# The part of a row that a pair may leave empty; where none leaves less, the longest that fits is taken first.
_SLACK = 1 / 32


def pack(lengths: np.ndarray, room: int) -> np.ndarray:
    """The row (N,) of each length (N,), in rows of at most `room`.

    A row begins with the longest that is left and is filled by the one or two others that leave the least of
    it empty, a minimum bin slack heuristic (Gupta and Ho 1999) cut to pairs. Best fit decreasing, which puts
    two of nearly half a row together, wastes four times as much of Cobra's rows. Which lengths there are is a
    bit each of one integer, so that a pair of a given sum is found in one step.

    Raises:
        ValueError: where a length is none or more than there is room.
    """
    if not len(lengths):
        return np.empty(0, dtype=np.int64)
    if not 0 < lengths.min() <= lengths.max() <= room:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} must be 1 to {room} to be packed")
    order = np.argsort(lengths, kind="stable")
    sizes = np.bincount(lengths)
    # where those of a length that have no row yet begin in the order
    starts = (np.cumsum(sizes) - sizes).tolist()
    left = _Left(sizes.tolist(), room)
    rows = np.empty(len(lengths), dtype=np.int64)
    row = 0
    while left.present:
        filled = left.fill_row()
        alike = 1 + left.take_again(filled)
        for length in filled:
            start = starts[length]
            rows[order[start : start + alike]] = np.arange(row, row + alike)
            starts[length] += alike
        row += alike
    return rows


class _Left:
    """The lengths that have no row yet.

    Attributes:
        counts: of each length.
        present: bit n is whether there is a length n.
        mirrored: the same, with bit room - n.
    """

    def __init__(self, counts: list[int], room: int) -> None:
        self.counts, self.room, self.present, self.mirrored = counts, room, 0, 0
        for length, count in enumerate(counts):
            if count:
                self._flip(length)

    def _flip(self, length: int) -> None:
        self.present ^= 1 << length
        self.mirrored ^= 1 << (self.room - length)

    def _take(self, length: int, count: int = 1) -> None:
        self.counts[length] -= count
        if not self.counts[length]:
            self._flip(length)

    def fill_row(self) -> list[int]:
        """The lengths of a row, which are then gone."""
        filled: list[int] = []
        free, chosen = self.room, [self.present.bit_length() - 1]
        while chosen:
            for length in chosen:
                self._take(length)
            filled += chosen
            free -= sum(chosen)
            chosen = self._fitting(free)
        return filled

    def take_again(self, filled: list[int]) -> int:
        """How many more rows of these lengths there are, which are then gone: they would be filled alike."""
        times = min(self.counts[length] // filled.count(length) for length in filled)
        if times:
            for length in filled:
                self._take(length, times)
        return times

    def _fitting(self, free: int) -> list[int]:
        """Lengths to go on with in a row with so much room: none where nothing fits."""
        fitting = self.present & ((2 << free) - 1)
        if not fitting:
            return []
        longest = fitting.bit_length() - 1
        least = (fitting & -fitting).bit_length() - 1
        # pairs of a sum: both present, one of them mirrored at half of it
        for total in range(free, max(free - int(self.room * _SLACK), 2 * least - 1), -1):
            if total <= longest:
                break
            if pairs := self.present & (self.mirrored >> (self.room - total)):
                first = pairs.bit_length() - 1
                if total != 2 * first or self.counts[first] > 1:
                    return [first, total - first]
        return [longest]
