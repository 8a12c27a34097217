"""The table of what the parts of a model start a run with."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cobra.convert.parts import Loaded


def show_start(loaded: Sequence[Loaded]) -> None:
    """Print a row a part: where its weights are from, and what of the checkpoint was left."""
    table = Table("part", "from", "layout", "tensors", "parameters", "dtype", "left out", title="weights")
    for part in loaded:
        count = f"{part.tensors:,}" if part.tensors else ""
        table.add_row(
            part.part, part.source or "-", part.layout, count, f"{part.parameters:,}", part.dtype, part.left
        )
    Console().print(table)
