"""Rows that are nearly full."""

import numpy as np
import pytest

from cobra.train.packing import pack


@pytest.mark.parametrize("seed", range(20))
def test_each_length_has_a_row_and_no_row_more_than_its_room(seed: int) -> None:
    rng = np.random.default_rng(seed)
    room = int(rng.integers(1, 60))
    lengths = rng.integers(1, room + 1, int(rng.integers(1, 200)))
    rows = pack(lengths, room)
    filled = np.bincount(rows, weights=lengths)
    assert (filled > 0).all()
    assert (filled <= room).all()
    # any two rows that could be one would have been one, and best fit is within 11/9 of the best, plus 4
    assert len(filled) == 1 or np.sort(filled)[:2].sum() > room
    assert len(filled) <= 11 / 9 * np.ceil(lengths.sum() / room) * 1.3 + 4


def test_what_fits_a_gap_exactly_goes_there() -> None:
    assert pack(np.array([5, 3, 2, 7, 3, 10]), 10).max() + 1 == 3
    large = np.random.default_rng(0).integers(51, 100, 40)
    assert pack(np.concatenate([100 - large, large]), 100).max() + 1 == 40


def test_what_has_no_room_is_refused() -> None:
    assert pack(np.array([], int), 5).tolist() == []
    for lengths in ([3, 6], [0, 2]):
        with pytest.raises(ValueError, match="must be 1 to 5"):
            pack(np.array(lengths), 5)
