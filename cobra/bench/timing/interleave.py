"""Measures the parts of a group in turn and keeps what every repeat gave."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cobra.bench.timing.group import Group, Number, Outcome
from cobra.bench.timing.sample import Missing, Prepared, Sample
from cobra.bench.timing.workers import Workers


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
            "cpu_seconds": summary([sample.cpu for sample in self.samples[label]]),
            "wall_seconds": summary([sample.wall for sample in self.samples[label]]),
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


def measure(group: Group, workers: Workers, repeats: int, bar: Progress) -> Result:
    """Prepare every part of a group, then time them in turn, as often as asked or as the group allows."""
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


def with_progress(groups: Sequence[Group], console: Console) -> Iterator[tuple[Group, Progress]]:
    """Each group with a progress bar that shows how many are done."""
    columns = TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        whole = bar.add_task("groups", total=len(groups))
        for group in groups:
            yield group, bar
            bar.advance(whole)


def summary(seconds: list[float]) -> dict[str, Any]:
    """Best, median and all of the seconds that the repeats took."""
    return {"best": min(seconds), "median": statistics.median(seconds), "samples": seconds}
