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
    left = _Left(lengths, room)
    rows = np.empty(len(lengths), dtype=np.int64)
    row = 0
    while left.present:
        free = room
        chosen = [left.present.bit_length() - 1]
        while chosen:
            for length in chosen:
                rows[left.take(length)] = row
                free -= length
            chosen = left.fill(free)
        row += 1
    return rows


class _Left:
    """The lengths that have no row yet.

    Attributes:
        present: bit n is whether there is a length n.
        mirrored: the same, with bit room - n.
    """

    def __init__(self, lengths: np.ndarray, room: int) -> None:
        self.room, self.present, self.mirrored = room, 0, 0
        order = np.argsort(lengths, kind="stable")
        values, starts = np.unique(lengths[order], return_index=True)
        self.places = {
            int(value): part.tolist() for value, part in zip(values, np.split(order, starts[1:]), strict=True)
        }
        for value in self.places:
            self._flip(value)

    def _flip(self, length: int) -> None:
        self.present ^= 1 << length
        self.mirrored ^= 1 << (self.room - length)

    def take(self, length: int) -> int:
        """The place of one of them, which is then gone."""
        places = self.places[length]
        place: int = places.pop()
        if not places:
            self._flip(length)
        return place

    def fill(self, free: int) -> list[int]:
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
                second = total - first
                if first != second or len(self.places[first]) > 1:
                    return [first, second]
        return [longest]
