"""Measures the parts of a group in turn."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cobra.bench.timing.sample import Measurement, Missing, Prepared, Runner, Sample
from cobra.bench.timing.workers import Workers


@dataclass(frozen=True)
class Group:
    """Measurements taken in turn, so that the machine's load falls on all alike.

    Attributes:
        title: for the progress bar.
        parts: each becomes an entry of the report.
        ceilings: what the machine can do at most, by the name that it has in every entry; their cases tell
            the `amount` of what they do.
        ends: processes that nobody needs afterwards.
    """

    title: str
    parts: Sequence[Measurement]
    ceilings: Mapping[str, Measurement] = field(default_factory=dict)
    ends: Sequence[Runner] = ()


class _Result:
    """What a measurement gave, or why it gave nothing."""

    def __init__(self, measurement: Measurement, workers: Workers) -> None:
        self.measurement, self.workers = measurement, workers
        self.prepared = Prepared(0, 0)
        self.samples: list[Sample] = []
        self.missing = ""
        try:
            self.prepared = workers.prepare(measurement)
        except Missing as reason:
            self.missing = str(reason)

    def time(self) -> None:
        """One repeat."""
        if self.missing:
            return
        try:
            self.samples.append(self.workers.time(self.measurement))
        except Missing as reason:
            self.missing = str(reason)

    def entry(self, ceilings: Mapping[str, Any]) -> dict[str, Any]:
        """What the report keeps of it."""
        if self.missing:
            return {**self.measurement.entry, "missing": self.missing}
        prepared = asdict(self.prepared)
        about = prepared.pop("about")
        seconds = [asdict(sample) for sample in self.samples]
        return {**self.measurement.entry, **about, **prepared, "seconds": seconds, **ceilings}

    def rates(self) -> dict[str, list[float]]:
        """The amount that its case tells, a second."""
        samples, amount = ([] if self.missing else self.samples), self.prepared.about.get("amount", 0)
        return {basis: [amount / getattr(sample, basis) for sample in samples] for basis in ("cpu", "wall")}


def measure(group: Group, workers: Workers, repeats: int, bar: Progress) -> list[dict[str, Any]]:
    """Prepare everything in a group, then time it in turn; a JSON object for each part."""
    parts = [_Result(part, workers) for part in group.parts]
    ceilings = {name: _Result(ceiling, workers) for name, ceiling in group.ceilings.items()}
    task = bar.add_task(group.title, total=repeats)
    for _ in range(repeats):
        for result in (*parts, *ceilings.values()):
            result.time()
        bar.advance(task)
    bar.remove_task(task)
    for part in group.parts:
        # a process that died has forgotten by itself
        with suppress(Missing):
            workers.forget(part)
    for runner in group.ends:
        workers.stop(runner)
    rates = {name: ceiling.rates() for name, ceiling in ceilings.items()}
    return [part.entry(rates) for part in parts]


def with_progress(groups: Sequence[Group], console: Console) -> Iterator[tuple[Group, Progress]]:
    """Each group with a progress bar that shows how many are done."""
    columns = TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        whole = bar.add_task("groups", total=len(groups))
        for group in groups:
            yield group, bar
            bar.advance(whole)
