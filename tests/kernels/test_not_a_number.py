"""NaN or infinity in a token reaches it and later ones of its sequence, no earlier one, no other sequence."""

from typing import Any

import pytest
import torch

from tests.kernels.test_masks import LENGTHS, OPS, PER_TOKEN, PLAIN, backend, case, ssd

# visits of the token that is not finite: inside a tile of rows, at ends of chunks and of sequences
PLACES = (0, 5, 8, 31, 32, 35)


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("make", OPS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    ("packed", "scan_order"), [(False, "forward"), (True, "forward"), (True, "columns_reversed")]
)
def test_it_reaches_no_earlier_token_and_no_other_sequence(
    make: Any, packed: bool, scan_order: str, value: float, name: str
) -> None:
    op, length = OPS[make], LENGTHS[name]
    rows = {"scan_order": scan_order, "grid": (10, length // 10)}
    inputs, order = case(make, length, packed, rows, torch.float64 if name in PLAIN else torch.float32)
    sequence = inputs["seq_idx"][0, order] if packed else torch.zeros(length)
    with backend(name):
        y, final = op(**inputs | rows)
        for at in PLACES:
            # of row 0 alone
            reached = torch.zeros(y.shape[:2], dtype=torch.bool)
            if make is ssd and name == "torch":
                # all from the beginning of its chunk on, as its docstring says
                reached[0, order[at - at % inputs["chunk_size"] :]] = True
            else:
                reached[0, order[at:]] = sequence[at:] == sequence[at]
            for bad in [n for n in PER_TOKEN if n in inputs]:
                poisoned = inputs[bad].clone()
                poisoned[0, order[at]] = value
                wrong, last = op(**inputs | rows | {bad: poisoned})
                assert torch.equal(wrong[~reached], y[~reached]), (bad, at)
                assert bad == "C" or not wrong[0, order[at]].isfinite().all(), (bad, at)
                kept = slice(1 if reached[0, order[-1]] else 0, None)
                assert torch.equal(last[kept], final[kept]), (bad, at)
