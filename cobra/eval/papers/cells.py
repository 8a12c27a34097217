"""Cells of a paper's tables, ours beside theirs."""

from collections.abc import Sequence
from dataclasses import dataclass

from cobra.eval.papers.finished import Finished
from cobra.eval.papers.paper import Paper
from cobra.eval.published import Number, read_numbers

# split of VQAv2 and VizWiz that only a server scores
SECRET = "test-dev"


@dataclass(frozen=True)
class Cell:
    """A place of a paper's table.

    Attributes:
        system: its row.
        column: from 0.
        benchmark: of the column.
        number: what the paper printed there; None where nobody printed any.
        ours: by the paper's protocol; None where it was not run, or cannot be.
        folder: that ours is from.
        open: whether ours would be the same measurement, but for the split.
        partial: whether ours is of a part of the questions.
    """

    system: str
    column: int
    benchmark: str
    number: Number | None
    ours: float | None
    folder: str
    open: bool
    partial: bool = False

    @property
    def secret(self) -> bool:
        """Whether the paper's split has its answers on a server alone, so that ours is of another one."""
        return self.number is not None and self.number.split == SECRET


def table_cells(paper: Paper, runs: Sequence[Finished]) -> dict[str, list[Cell]]:
    """The cells of each of its tables; of a paper without any those of all its systems and benchmarks."""
    return {table: _cells(paper, table, runs) for table in paper.tables} or {"": _unprinted(paper, runs)}


def _cells(paper: Paper, table: str, runs: Sequence[Finished]) -> list[Cell]:
    return [
        _cell(paper, runs, number.system, number.column, number.benchmark, number)
        for number in read_numbers()
        if number.table == table
    ]


def _unprinted(paper: Paper, runs: Sequence[Finished]) -> list[Cell]:
    return [
        _cell(paper, runs, system, column, benchmark, None)
        for system in paper.systems
        for column, benchmark in enumerate(paper.benchmarks)
    ]


def _cell(
    paper: Paper, runs: Sequence[Finished], system: str, column: int, benchmark: str, number: Number | None
) -> Cell:
    # where nobody says how it was asked, ours would be another measurement
    known = number is None or bool(paper.tasks) or not number.unsaid
    theirs = (number.how, number.protocol) if number else ()
    asked = paper.headline(benchmark, *theirs) if known else None
    for run in runs:
        value = run.ours(benchmark, asked) if run.system == system else None
        if value is not None:
            partial = run.partial(benchmark, asked)
            return Cell(system, column, benchmark, number, value, str(run.folder), True, partial)
    return Cell(system, column, benchmark, number, None, "", asked is not None)
