"""The table that `cobra kernels` prints."""

from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from cobra.kernels import dispatch
from cobra.kernels.ops import OPS


@dataclass(frozen=True)
class Explanation:
    """One op on one backend.

    Attributes:
        op: its name.
        backend: its name.
        reason: "ok" and the limits within which it runs, or why it does not run.
        chosen: whether it is the one that runs what is within its limits.
    """

    op: str
    backend: str
    reason: str
    chosen: bool


def explain(device: torch.device, dtype: torch.dtype) -> list[Explanation]:
    """Every op × backend on a device type and dtype, as an ops call would choose now."""
    rows = []
    for op in OPS:
        first = dispatch.accepting(op, device, dtype)[:1]
        for backend in dispatch.BACKENDS:
            reason = dispatch.refusal(backend, op, device, dtype)
            if reason is None:
                reason = "; ".join(["ok", *(limit.reason for limit in backend.ops[op].limits)])
            rows.append(Explanation(op, backend.name, reason, backend in first))
    return rows


def print_kernels(device: str, dtype: str) -> None:
    """Print operator × backend, with the one that runs marked and the reason why another does not."""
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"--dtype {dtype!r} is not a torch dtype: try float32, bfloat16, float16 or float64")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device {device!r} is not a torch device: {error}") from error
    table = Table("operator", "backend", "runs", "reason", title=f"kernels on {device} in {dtype}")
    for row in explain(place, kind):
        table.add_row(row.op, row.backend, "yes" if row.chosen else "", row.reason)
    Console().print(table)
