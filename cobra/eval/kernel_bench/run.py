"""Measures a plan and writes bench.json, bench.md and bench.png."""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cobra.eval.kernel_bench.group import Group, Number, Outcome
from cobra.eval.kernel_bench.plan import plan
from cobra.eval.kernel_bench.plot import draw
from cobra.eval.kernel_bench.report import markdown, numbers_table, write_json
from cobra.eval.kernel_bench.runners import OURS
from cobra.eval.kernel_bench.sample import Missing, Prepared, Sample
from cobra.eval.kernel_bench.sizes import Sizes, quick_sizes
from cobra.eval.kernel_bench.workers import Workers

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
        results = [_measure(group, workers, repeats, bar) for group, bar in _with_progress(chosen, console)]
    report = {
        "schema": SCHEMA,
        "machine": {**_machine(), **about, "load_before": load, "load_after": os.getloadavg()},
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


class Result:
    """What one group gave.

    Args:
        group: what was measured.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.prepared: dict[str, Prepared] = {}
        self.missing: dict[str, str] = {}
        self.samples: dict[str, list[Sample]] = {}

    def entries(self) -> list[dict[str, Any]]:
        """A JSON object for each measurement."""
        return [self._entry(label) for label in self.group.parts]

    def _entry(self, label: str) -> dict[str, Any]:
        part = self.group.parts[label]
        entry = {
            "group": self.group.title,
            "label": label,
            "runner": part.runner.name,
            "case": part.case,
            "arguments": dict(part.arguments),
        }
        if label in self.missing:
            return {**entry, "missing": self.missing[label]}
        prepared = self.prepared[label]
        return {
            **entry,
            "cpu_seconds": _summary([sample.cpu for sample in self.samples[label]]),
            "wall_seconds": _summary([sample.wall for sample in self.samples[label]]),
            "bytes": prepared.bytes,
            "flops": prepared.flops,
            "peak_bytes": prepared.peak_bytes,
        }

    def numbers(self, threads: int, quick: bool) -> list[dict[str, Any]]:
        """A JSON object for each number with a target."""
        return [self._number(number, threads, quick) for number in self.group.numbers]

    def _number(self, number: Number, threads: int, quick: bool) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "name": number.name,
            "target": number.target,
            "at_least": number.at_least,
            "unit": number.unit,
            "note": number.note,
        }
        try:
            values = [number.value(outcomes) for outcomes in self._repeats(threads)]
        except KeyError as label:
            name = label.args[0]
            return {**entry, "missing": self.missing.get(name, f"{name} was not measured")}
        value = statistics.median(values)
        reached = value >= number.target if number.at_least else value <= number.target
        return {
            **entry,
            "value": value,
            "least": min(values),
            "most": max(values),
            "reached": None if quick else reached,
        }

    def _repeats(self, threads: int) -> list[dict[str, Outcome]]:
        count = min((len(samples) for samples in self.samples.values()), default=0)
        return [
            {
                label: Outcome(self.prepared[label], samples[i].cpu if threads == 1 else samples[i].wall)
                for label, samples in self.samples.items()
            }
            for i in range(count)
        ] or [{}]


def _measure(group: Group, workers: Workers, repeats: int, bar: Progress) -> Result:
    result = Result(group)
    for label, part in group.parts.items():
        try:
            result.prepared[label] = workers.prepare(part)
            result.samples[label] = []
        except Missing as reason:
            result.missing[label] = str(reason)
    task = bar.add_task(group.title, total=min(repeats, group.repeats))
    for _ in range(min(repeats, group.repeats)):
        for label in list(result.samples):
            try:
                result.samples[label].append(workers.time(group.parts[label]))
            except Missing as reason:
                result.missing[label] = str(reason)
                del result.samples[label]
        bar.advance(task)
    bar.remove_task(task)
    for label in result.samples:
        # a process that died has forgotten by itself
        with suppress(Missing):
            workers.forget(group.parts[label])
    return result


def _with_progress(groups: list[Group], console: Console) -> Any:
    """Each group with a progress bar that shows how many are done."""
    columns = TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        whole = bar.add_task("groups", total=len(groups))
        for group in groups:
            yield group, bar
            bar.advance(whole)


def _summary(seconds: list[float]) -> dict[str, Any]:
    return {"best": min(seconds), "median": statistics.median(seconds), "samples": seconds}


def _machine() -> dict[str, Any]:
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "transformers": version("transformers"),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
