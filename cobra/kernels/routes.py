"""The orders in which scans and convolutions visit the tokens of a sequence, or of an image row by row."""

from collections.abc import Mapping
from typing import Literal, overload

from torch import Tensor

Route = Literal["forward", "reversed", "columns", "columns_reversed"]
Grid = tuple[int, int]

# whether a route goes down the columns of the grid, one after the other, and whether from the last token on
ROUTES: Mapping[Route, tuple[bool, bool]] = {
    "forward": (False, False),
    "reversed": (False, True),
    "columns": (True, False),
    "columns_reversed": (True, True),
}


def check_route(route: Route, grid: Grid | None, length: int) -> None:
    """Refuse a route that is unknown or lacks its grid, or a grid of other size, with a ValueError."""
    if route not in ROUTES:
        raise ValueError(f"route is {route!r} but must be one of {', '.join(ROUTES)}: name one of these")
    by_columns, _ = ROUTES[route]
    if by_columns and grid is None:
        raise ValueError(f"route {route!r} goes down the columns of a grid: give grid=(height, width)")
    if grid is not None and (grid[0] * grid[1] != length or min(grid) < 0):
        raise ValueError(
            f"grid is {grid} but there are {length} tokens: give the (height, width) that holds them"
        )


def for_kernels(route: Route, grid: Grid | None) -> tuple[bool, int]:
    """`reversed` and `grid_height`, as the native kernels take a route (cpu/csrc/scan_abi.h)."""
    by_columns, from_end = ROUTES[route]
    return from_end, grid[0] if by_columns and grid is not None else 1


@overload
def visit(tokens: Tensor, route: Route, grid: Grid | None = None) -> Tensor: ...
@overload
def visit(tokens: None, route: Route, grid: Grid | None = None) -> None: ...
def visit(tokens: Tensor | None, route: Route, grid: Grid | None = None) -> Tensor | None:
    """Tokens (B, L, ...) in the order in which the route visits them; nothing stays nothing."""
    if tokens is None:
        return None
    by_columns, from_end = ROUTES[route]
    if by_columns and grid is not None:
        tokens = tokens.unflatten(1, grid).transpose(1, 2).flatten(1, 2)
    return tokens.flip(1) if from_end else tokens


def unvisit(visits: Tensor, route: Route, grid: Grid | None = None) -> Tensor:
    """Tokens (B, L, ...) in their own order, from that in which the route visits them."""
    by_columns, from_end = ROUTES[route]
    if from_end:
        visits = visits.flip(1)
    if by_columns and grid is not None:
        visits = visits.unflatten(1, grid[::-1]).transpose(1, 2).flatten(1, 2)
    return visits
