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


# LLaVA's 665K records by parts: thousands, median of the text's tokens, spread of its logarithm, pictures
PARTS = [
    (158, 350, 0.6, True), (40, 1400, 0.9, False), (83, 110, 0.45, True), (72, 180, 0.5, True),
    (9, 60, 0.3, True), (80, 200, 0.4, True), (66, 90, 0.4, True), (22, 70, 0.3, True),
    (48, 230, 0.4, True), (86, 220, 0.4, True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("image_tokens", "max_length", "room"), [(729, 2777, 2777), (196, 2048, 2048), (576, 2048, 4096)]
)
def test_rows_of_records_like_published_ones_have_at_most_5_percent_of_padding(
    image_tokens: int, max_length: int, room: int
) -> None:
    rng = np.random.default_rng(0)
    parts = [
        image_tokens * pictured + 1 + np.exp(rng.normal(np.log(median), spread, size * 50)).astype(int)
        for size, median, spread, pictured in PARTS
    ]
    lengths = np.minimum(np.concatenate(parts), max_length)
    rows = pack(lengths, room).max() + 1
    assert 1 - lengths.sum() / (rows * room) <= 0.05
