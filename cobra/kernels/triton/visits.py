"""The order in which kernels take tokens: computed where all are visited, else listed, one entry a visit."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from cobra.kernels.reference.masks import places
from cobra.kernels.scan_order import for_kernels, visit


def visit_order(scan_order: str, grid: Sequence[int] | None) -> tuple[bool, int | None]:
    """Whether the last token is visited first, and the height of the grid whose columns are visited."""
    from_end, height = for_kernels(scan_order, grid)
    return from_end, height if height > 1 else None


def visit_list(
    length: int,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> Tensor | None:
    """Token and flag of each visit (B, L), `4 token + flag` in int32; None if no token differs from others.

    The flag is 1 of a token, 3 of one that starts a sequence, the first in a row not counted, and 0 under the
    mask; those tokens come behind all others.
    """
    some = seq_idx if mask is None else mask
    if some is None:
        return None
    tokens = torch.arange(length, dtype=torch.int32, device=some.device).expand(some.shape)
    order = scan_order, grid
    tokens, seq_idx, mask = (visit(x, *order) for x in (tokens, seq_idx, mask))  # type: ignore[assignment]
    entries = 4 * tokens + 1
    if mask is not None:
        index = places(mask)
        entries = entries.scatter(1, index, 4 * tokens + mask)
        seq_idx = None if seq_idx is None else seq_idx.scatter(1, index, seq_idx)
    if seq_idx is not None:
        starts = (seq_idx[:, 1:] != seq_idx[:, :-1]) & (entries[:, 1:] % 4 == 1)
        entries = torch.cat([entries[:, :1], entries[:, 1:] + 2 * starts], dim=1)
    return entries.int()


@triton.jit
def flag_and_token(visits, visit, there, length, height, REVERSED: tl.constexpr):
    """Of visits in a row, the flag as above, 0 also where `there` is False, and the token in int64.

    Without a list, along the sequence, or down the columns of a grid that is `height` high.
    """
    if visits is None:
        place = length - 1 - visit if REVERSED else visit
        if height is not None:
            place = place % height * (length // height) + place // height
        flag = there.to(tl.int32)
    else:
        entry = tl.load(visits + visit, mask=there, other=0)
        flag, place = entry & 3, entry >> 2
    return flag, tl.cast(place, tl.int64)
