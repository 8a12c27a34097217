"""Packing: which row each of some lengths goes to, so that rows are nearly full."""

import numpy as np


def pack(lengths: np.ndarray, room: int) -> np.ndarray:
    """The row (N,) of each length (N,), by best fit, the longest first: rows of at most `room`.

    Each goes where it leaves the least room; best fit decreasing needs at most 11/9 of the fewest rows that
    could be (Johnson et al. 1974). Which rooms some row has is a bit each of one integer, so that the least
    that fits is found in one step: a million lengths take about a second.

    Raises:
        ValueError: where a length is none or more than there is room.
    """
    if len(lengths) and not 0 < lengths.min() <= lengths.max() <= room:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} must be 1 to {room} to be packed")
    rows = np.empty(len(lengths), dtype=np.int64)
    # rows by the room that they have left, and a bit for each such room
    open_rows: list[list[int]] = [[] for _ in range(room + 1)]
    rooms, opened = 0, 0
    longest_first = np.argsort(-lengths, kind="stable")
    for place, length in zip(longest_first.tolist(), lengths[longest_first].tolist(), strict=True):
        if fitting := rooms >> length:
            least = length + (fitting & -fitting).bit_length() - 1
            row = open_rows[least].pop()
            if not open_rows[least]:
                rooms ^= 1 << least
        else:
            least, row, opened = room, opened, opened + 1
        left = least - length
        # a full row is looked at no more
        if left:
            open_rows[left].append(row)
            rooms |= 1 << left
        rows[place] = row
    return rows
