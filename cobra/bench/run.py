"""Measures what a bench plans and writes JSON, Markdown and a plot."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from cobra.bench.ceilings import MACHINE
from cobra.bench.plot import draw
from cobra.bench.report import SCHEMA, markdown, write_json
from cobra.bench.tables import summary
from cobra.bench.timing.interleave import Group, measure, with_progress
from cobra.bench.timing.workers import Workers


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        kind: of the report: e2e, decode, prefill, train or kernels.
        groups: one after the other.
        settings: of them all, for the report; `device` is one.
        missing: entries of what cannot be measured, with the reason.
    """

    kind: str
    groups: Sequence[Group]
    settings: Mapping[str, Any]
    missing: Sequence[Mapping[str, Any]] = field(default_factory=list)


def run(plan: Plan, threads: int, repeats: int, out: Path) -> None:
    """Measure a plan and write the reports to `out`, named after its kind.

    Args:
        plan: what is measured.
        threads: of each process. One is judged by its own CPU time, which the load hardly changes, more by
            the clock.
        repeats: of everything, in turn with the others of its group.
        out: made if missing.
    """
    console = Console()
    load = os.getloadavg()
    with Workers(threads) as workers:
        about = workers.about(MACHINE)
        entries = [
            entry
            for group, bar in with_progress(plan.groups, console)
            for entry in measure(group, workers, repeats, bar)
        ]
    on_cpu = plan.settings["device"] == "cpu"
    if on_cpu:
        about["gpu"] = None
    report = {
        "schema": SCHEMA,
        "kind": plan.kind,
        "machine": {**about, "load_before": load, "load_after": os.getloadavg()},
        "settings": {**plan.settings, "repeats": repeats},
        "basis": "cpu" if threads == 1 and on_cpu else "wall",
        "weights": "random",
        "measurements": [*entries, *plan.missing],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(report, out / f"{plan.kind}.json")
    (out / f"{plan.kind}.md").write_text(markdown(report), encoding="utf-8")
    draw(report, out / f"{plan.kind}.png")
    console.print(Markdown(summary(report)))
    console.print(f"written: {out / plan.kind}.json, .md, .png")
