"""The table that `cobra kernels` prints."""

import torch
from rich.console import Console
from rich.table import Table

from cobra.kernels.dispatch import explain


def print_kernels(device: str, dtype: str) -> None:
    """Print operator × backend, with the one that runs marked and the reason why another does not."""
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"--dtype {dtype!r} is not a torch dtype: try float32, bfloat16, float16 or float64")
    table = Table("operator", "backend", "runs", "reason", title=f"kernels on {device} in {dtype}")
    for row in explain(device, kind):
        table.add_row(row.op, row.backend, "yes" if row.chosen else "", row.reason)
    Console().print(table)
