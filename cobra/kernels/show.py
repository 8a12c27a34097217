"""The table that `cobra kernels` prints."""

from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from cobra.kernels import dispatch
from cobra.kernels.ops import OPS

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
_DTYPES |= {str(dtype).removeprefix("torch."): dtype for dtype in _DTYPES.values()}


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
    """Print which backend runs each op, its limits, those that run the rest, and why others do not."""
    if dtype not in _DTYPES:
        raise ValueError(
            f"--dtype {dtype!r} is none that operators compute in: take one of {', '.join(_DTYPES)}"
        )
    kind = _DTYPES[dtype]
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device {device!r} is not a torch device: {error}") from error
    rows = explain(place, kind)
    # reasons hold brackets, which rich would read
    console = Console(markup=False, highlight=False)
    is_here = "" if _is_here(place) else f"; no {place.type} device is here: what would run"
    console.print(_table(rows, f"kernels on {device} in {dtype}{is_here}"))
    reasons = _reasons(rows)
    width = max((len(name) for name, _ in reasons), default=0)
    for name, reason in reasons:
        line = Table.grid(padding=(0, 1))
        line.add_column(width=width)
        line.add_row(name, reason)
        console.print(line)


def _is_here(device: torch.device) -> bool:
    """Whether this machine has a device of this type."""
    if device.type in ("cpu", "meta"):
        return True
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator is not None and accelerator.type == device.type


def _table(rows: list[Explanation], title: str) -> Table:
    """A row an op: the backend that runs it, those that take what is beyond its limits, and these."""
    table = Table("operator", "runs", "else", "its limits", title=title, title_justify="left")
    for op, of_op in _grouped(rows).items():
        running = [row for row in of_op if row.reason.startswith("ok")]
        running.sort(key=lambda row: not row.chosen)
        first = running[0] if running else None
        limits = "" if first is None else first.reason.removeprefix("ok").removeprefix("; ")
        others = ", ".join(row.backend for row in running[1:])
        table.add_row(op, "nothing" if first is None else first.backend, others, limits)
    return table


def _reasons(rows: list[Explanation]) -> list[tuple[str, str]]:
    """Backends that do not run some ops, each with the reason and, if it is not that of all, the ops."""
    ops_of: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if not row.reason.startswith("ok"):
            reason = row.reason.replace(f"has no {row.op}", "has no")
            ops_of.setdefault((row.backend, reason), []).append(row.op)
    return [
        (backend, reason if len(ops) == len(OPS) else f"{reason} {', '.join(ops)}")
        for (backend, reason), ops in ops_of.items()
    ]


def _grouped(rows: list[Explanation]) -> dict[str, list[Explanation]]:
    grouped: dict[str, list[Explanation]] = {}
    for row in rows:
        grouped.setdefault(row.op, []).append(row)
    return grouped
