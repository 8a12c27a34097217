"""Results of an evaluation: every metric for programs, the papers' numbers for people."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cobra.eval.asks import headline_of
from cobra.eval.benchmarks.base import Benchmark, Scores
from cobra.eval.beside import COLUMNS, Asked, beside_rows, beside_table
from cobra.eval.evaluation_folder import read_written
from cobra.eval.predictions import Prediction
from cobra.eval.protocols.protocol import Ask, Protocol

SCORES, TABLE = "scores.json", "scores.md"


@dataclass(frozen=True)
class Result:
    """Scores of the answers to one ask of a benchmark.

    Attributes:
        benchmark: its name.
        ask: its name.
        answered: questions that were answered.
        questions: those that the benchmark has.
        scores: all metrics.
        headlines: by protocol, the metric that its papers print of these answers.
    """

    benchmark: str
    ask: str
    answered: int
    questions: int
    scores: Scores
    headlines: Mapping[str, str]

    @classmethod
    def of(
        cls,
        benchmark: Benchmark,
        ask: Ask,
        predictions: Sequence[Prediction],
        questions: int,
        protocols: Sequence[Protocol],
    ) -> "Result":
        """The scores of predictions."""
        said = {protocol.name: headline_of(type(benchmark), protocol) for protocol in protocols}
        headlines = {name: line.metric for name, line in said.items() if line and line.ask == ask.name}
        scores = benchmark.score(predictions)
        return cls(benchmark.name, ask.name, len(predictions), questions, scores, headlines)


@dataclass(frozen=True)
class Row:
    """A line of the table of an evaluation.

    Attributes:
        benchmark: its name.
        protocol: whose papers print this number; empty where none does.
        ask: the way in which it was asked.
        metric: name of the number.
        ours: the number; None where nothing was answered.
        coverage: questions that were answered, of those that there are.
    """

    benchmark: str
    protocol: str
    ask: str
    metric: str
    ours: float | None
    coverage: str

    @property
    def part(self) -> str:
        """The coverage, where it is not whole."""
        answered, _, questions = self.coverage.partition("/")
        return "" if answered == questions else f"{answered} of {questions}"


def rows(results: Sequence[Result]) -> list[Row]:
    """What papers print of the results; of further asks the same number, or else the first."""
    printed = {(r.benchmark, metric): metric for r in results for metric in r.headlines.values()}
    found = []
    for result in results:
        usual = [metric for name in result.scores if (metric := printed.get((result.benchmark, name)))]
        headlines = result.headlines or {"": next(iter([*usual, *result.scores]), "-")}
        coverage = f"{result.answered:,}/{result.questions:,}"
        found += [
            Row(result.benchmark, protocol, result.ask, metric, result.scores.get(metric), coverage)
            for protocol, metric in headlines.items()
        ]
    return found


def write_results(out: Path, results: Sequence[Result]) -> list[Result]:
    """Write scores.json and scores.md; all that are in them then, of other benchmarks and protocols too."""
    before = {(each.benchmark, each.ask): each for each in read_results(out)}
    both = []
    for result in results:
        earlier = before.pop((result.benchmark, result.ask), result)
        both.append(replace(result, headlines={**earlier.headlines, **result.headlines}))
    both = [*before.values(), *both]
    _replace(out / SCORES, json.dumps([asdict(result) for result in both], indent=2) + "\n")
    _replace(out / TABLE, markdown(rows(both)))
    return both


def read_rows(out: Path) -> list[Row]:
    """The rows of `read_results`."""
    return rows(read_results(out))


def read_results(out: Path) -> list[Result]:
    """What `write_results` wrote to a folder; none where it wrote nothing."""
    path = out / SCORES
    return [Result(**said) for said in read_written(path)] if path.is_file() else []


def print_results(results: Sequence[Result]) -> None:
    """Print the table, and what papers print of these benchmarks."""
    table = Table()
    for name in ("benchmark", "protocol", "ask", "metric"):
        table.add_column(name, overflow="fold")
    table.add_column("ours", justify="right", no_wrap=True)
    table.add_column("coverage", justify="right", overflow="fold")
    for row in rows(results):
        table.add_row(row.benchmark, row.protocol, row.ask, row.metric, _number(row.ours), row.coverage)
    Console().print(table)
    if printed := _printed(rows(results)):
        beside = Table(title=f"printed by papers; sources in {TABLE}")
        for name in COLUMNS[:-1]:
            beside.add_column(name, overflow="fold")
        for each in printed:
            beside.add_row(*each[:-1])
        Console().print(beside)


def markdown(shown: Sequence[Row]) -> str:
    """The table in Markdown, and what papers print of these benchmarks."""
    lines = ["| benchmark | protocol | ask | metric | ours | coverage |", "|---|---|---|---|---:|---:|"]
    lines += [
        "| " + " | ".join((r.benchmark, r.protocol, r.ask, r.metric, _number(r.ours), r.coverage)) + " |"
        for r in shown
    ]
    return "\n".join([*lines, ""]) + beside_table(_printed(shown))


def _printed(shown: Sequence[Row]) -> list[tuple[str, ...]]:
    return beside_rows([Asked(row.benchmark, row.protocol, row.ours, row.part) for row in shown])


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
