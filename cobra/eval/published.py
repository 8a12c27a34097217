"""Accuracies that others printed: published.yaml, and the part of it that stands beside a score of ours."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cobra.eval.papers.ask_difference import ask_difference
from cobra.eval.papers.paper import Paper, cached_protocol, read_papers
from cobra.eval.protocols.protocol import Protocol, protocol_names

_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Number:
    """A number that somebody printed.

    Attributes:
        table: of published.yaml.
        column: of that table, from 0.
        system: what it is of.
        benchmark: by our name, where we have it.
        value: per cent, or points.
        metric: as it is named there.
        split: of the benchmark; empty where nobody says.
        how: what else was special: OCR tokens, likelihood, bits.
        source: where it is printed.
        protocol: of ours, after which it was asked; empty where nobody says.
        quoted: whether that source took it from elsewhere.
        note: what is odd about it.
        conflict: what else is printed of the same thing.
    """

    table: str
    column: int
    system: str
    benchmark: str
    value: float
    metric: str
    split: str
    how: str
    source: str
    protocol: str
    quoted: bool
    note: str
    conflict: str

    @property
    def unsaid(self) -> bool:
        """Whether nobody says how it was asked, or a part of it."""
        return not self.protocol or self.how.endswith("not stated")


@dataclass(frozen=True)
class Beside:
    """A published number that may stand beside one of ours, and why the two are not the same measurement.

    Attributes:
        number: with system, value, metric, split and source.
        differences: from the protocol that ours was asked by, for people; empty where none is known.
    """

    number: Number
    differences: list[str]


@cache
def read_numbers() -> tuple[Number, ...]:
    """Every number of published.yaml, in its order."""
    tree = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    conflicts = {(each["system"], each["benchmark"]): each["note"] for each in tree["conflicts"]}
    return tuple(
        number for name, table in tree["accuracy"].items() for number in _of_table(name, table, conflicts)
    )


def _of_table(name: str, table: dict[str, Any], conflicts: dict[tuple[str, str], str]) -> Iterator[Number]:
    notes = table.get("notes", {})
    for kind in ("rows", "quoted"):
        quoted = kind == "quoted"
        for system, values in table.get(kind, {}).items():
            for place, (column, value) in enumerate(zip(table["columns"], values, strict=True)):
                benchmark, metric, split, how = (*column, "", "")[:4]
                if value is None:
                    continue
                yield Number(
                    table=name,
                    column=place,
                    system=system,
                    benchmark=benchmark,
                    value=value,
                    metric=metric,
                    # of what is quoted they are those of elsewhere
                    split="" if quoted else split,
                    how="" if quoted else how,
                    source=table["source"],
                    protocol="" if quoted else table.get("protocol", ""),
                    quoted=quoted,
                    note=notes.get(f"{system}/{benchmark}", notes.get(system, "")),
                    conflict=conflicts.get((system, benchmark), ""),
                )


def published_beside(benchmark: str, protocol: str) -> list[Beside]:
    """What papers print of a benchmark for their own systems, those whose weights are released.

    Args:
        benchmark: its name.
        protocol: name, or path of a yaml, by which ours was asked.
    """
    ours = cached_protocol(protocol)
    released = {
        (table, name): paper
        for paper in read_papers()
        for name, system in paper.systems.items()
        for table in paper.tables
        if system.weights
    }
    found: dict[tuple[str | float, ...], Beside] = {}
    for number in read_numbers():
        paper = released.get((number.table, number.system))
        if (
            paper is None
            or number.benchmark != benchmark
            or number.quoted
            or number.protocol != paper.protocol
        ):
            continue
        # one number in several tables of a paper stands once
        key = (number.system, number.value, number.metric, number.how)
        found.setdefault(key, Beside(number, _differences(number, paper, ours)))
    return list(found.values())


def _differences(number: Number, paper: Paper, ours: Protocol) -> list[str]:
    name = number.benchmark
    theirs, own = paper.headline(name, number.how), ours.headlines.get(name)
    said = ["split test-dev"] if number.split == "test-dev" else []
    said += [number.how] if number.unsaid else []
    if theirs is None or own is None:
        return [*said, f"asked after {number.protocol}"]
    if theirs.ask != own.ask:
        shipped = [cached_protocol(each) for each in protocol_names()]
        asks = {ask.name: ask for each in (*shipped, ours) for ask in each.asks.get(name, ())}
        said.append(ask_difference(asks[own.ask], asks[theirs.ask]))
    return said if theirs.metric == own.metric else [*said, f"metric {theirs.metric}"]
