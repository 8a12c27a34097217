"""The orders in which scans and convolutions visit the tokens of a sequence, or of an image row by row."""

from collections.abc import Mapping, Sequence
from typing import Literal, overload

from torch import Tensor

ScanOrder = Literal["forward", "reversed", "columns", "columns_reversed"]
Grid = tuple[int, int]

# whether an order goes down the columns of the grid, one after the other, and whether from the last token on
SCAN_ORDERS: Mapping[ScanOrder, tuple[bool, bool]] = {
    "forward": (False, False),
    "reversed": (False, True),
    "columns": (True, False),
    "columns_reversed": (True, True),
}


def check_scan_order(scan_order: ScanOrder, grid: Grid | None, length: int) -> None:
    """Refuse a scan order that is unknown or lacks its grid, or a grid of other size, with a ValueError."""
    if scan_order not in SCAN_ORDERS:
        raise ValueError(
            f"scan_order is {scan_order!r} but must be one of {', '.join(SCAN_ORDERS)}: name one of these"
        )
    by_columns, _ = SCAN_ORDERS[scan_order]
    if by_columns and grid is None:
        raise ValueError(
            f"scan_order {scan_order!r} goes down the columns of a grid: give grid=(height, width)"
        )
    if grid is not None and (grid[0] * grid[1] != length or min(grid) < 0):
        raise ValueError(
            f"grid is {grid} but there are {length} tokens: give the (height, width) that holds them"
        )


def for_kernels(scan_order: str, grid: Sequence[int] | None) -> tuple[bool, int]:
    """`reversed` and `grid_height`, as the native kernels take a scan order (cpu/csrc/scan_abi.h)."""
    by_columns, from_end = _directions(scan_order)
    return from_end, grid[0] if by_columns and grid is not None else 1


def _directions(scan_order: str) -> tuple[bool, bool]:
    return SCAN_ORDERS[scan_order]  # type: ignore[index]  # checked


@overload
def visit(tokens: Tensor, scan_order: str, grid: Sequence[int] | None = None) -> Tensor: ...
@overload
def visit(tokens: None, scan_order: str, grid: Sequence[int] | None = None) -> None: ...
def visit(tokens: Tensor | None, scan_order: str, grid: Sequence[int] | None = None) -> Tensor | None:
    """Tokens (B, L, ...) in the order in which the scan order visits them; nothing stays nothing."""
    if tokens is None:
        return None
    by_columns, from_end = _directions(scan_order)
    if by_columns and grid is not None:
        tokens = tokens.unflatten(1, grid).transpose(1, 2).flatten(1, 2)
    return tokens.flip(1) if from_end else tokens


def unvisit(visits: Tensor, scan_order: str, grid: Sequence[int] | None = None) -> Tensor:
    """Tokens (B, L, ...) in their own order, from that in which the scan order visits them."""
    by_columns, from_end = _directions(scan_order)
    if from_end:
        visits = visits.flip(1)
    if by_columns and grid is not None:
        visits = visits.unflatten(1, grid[::-1]).transpose(1, 2).flatten(1, 2)
    return visits
