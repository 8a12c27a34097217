"""Rows of a state that several sequences go on from, for backends that want one for each."""

from torch import Tensor


def of_rows(initial_state: Tensor | None, initial_rows: Tensor | None) -> Tensor | None:
    """The state (B, ...) of each sequence, a copy where rows (B,) are picked of (S, ...)."""
    if initial_state is None or initial_rows is None:
        return initial_state
    return initial_state.index_select(0, initial_rows)
