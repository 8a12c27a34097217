"""Measures a plan and writes bench.json, bench.md and bench.png."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from cobra.bench.kernels.plan import plan
from cobra.bench.kernels.plot import draw
from cobra.bench.kernels.report import markdown, numbers_table, write_json
from cobra.bench.kernels.runners import OURS
from cobra.bench.kernels.sizes import Sizes, quick_sizes
from cobra.bench.timing.interleave import measure, with_progress
from cobra.bench.timing.machine import machine
from cobra.bench.timing.workers import Workers

SCHEMA = 1
# What a bench cannot see: two runs of this project's own training.
_DEMO = {
    "name": "`make demo` training, share of the time on the reference kernels",
    "target": 0.5,
    "at_least": False,
    "unit": "%",
    "missing": "takes two trainings: compare `make demo` with COBRA_BACKEND=reference make demo",
}


def bench(
    out: Path, repeats: int, quick: bool, threads: int, peers: bool, groups: Sequence[str] = ()
) -> None:
    """Measure and write the reports to `out`.

    Args:
        out: folder to write to.
        repeats: interleaved repeats of each group.
        quick: small sizes, to try the bench; nothing is judged.
        threads: of each process. One is judged by CPU time, more by the clock.
        peers: whether transformers' path is measured.
        groups: only those whose title contains one of these; empty for all.
    """
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with Workers(threads) as workers:
        about = workers.about(OURS)
        chosen = plan(quick_sizes() if quick else Sizes(), about["isa_levels"], peers)
        chosen = [group for group in chosen if not groups or any(word in group.title for word in groups)]
        load = os.getloadavg()
        results = [measure(group, workers, repeats, bar) for group, bar in with_progress(chosen, console)]
    report = {
        "schema": SCHEMA,
        "machine": {**machine(), **about, "load_before": load, "load_after": os.getloadavg()},
        "quick": quick,
        "basis": "cpu" if threads == 1 else "wall",
        "repeats": repeats,
        "measurements": [entry for result in results for entry in result.entries()],
        "numbers": [number for result in results for number in result.numbers(threads, quick)] + [_DEMO],
    }
    write_json(report, out / "bench.json")
    (out / "bench.md").write_text(markdown(report), encoding="utf-8")
    draw(report, out / "bench.png")
    console.print(Markdown(numbers_table(report)))
    console.print(f"written: {out / 'bench.json'}, bench.md, bench.png")
