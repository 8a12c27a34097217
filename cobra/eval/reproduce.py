"""A paper's tables with ours beside theirs, commands that make ours, and prices of protocol differences."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cobra.eval.papers.commands import paper_commands
from cobra.eval.papers.finished import Finished
from cobra.eval.papers.paper import Paper, cached_protocol, read_paper
from cobra.eval.papers.price import Price, prices
from cobra.eval.protocols.protocol import Protocol, protocol_names
from cobra.eval.published import Number, read_numbers

# split of VQAv2 and VizWiz that only a server scores
_SECRET = "test-dev"


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
        return self.number is not None and self.number.split == _SECRET


def reproduce(name: str, said: Sequence[str], protocols: Sequence[str], out: Path | None) -> None:
    """Print a paper's commands and tables, with ours where they have been run.

    Args:
        name: of the paper.
        said: `[SYSTEM=]FOLDER` of each finished evaluation.
        protocols: to price the differences between, `paper` for its own.
        out: folder for reproduce.json and reproduce.md.
    """
    paper = read_paper(name)
    named = list(dict.fromkeys(paper.protocol if each == "paper" else each for each in protocols or _all()))
    known = {each: cached_protocol(each) for each in [paper.protocol, *named] if each}
    runs = [Finished.read(each, paper) for each in said]
    tables = {table: _cells(paper, table, runs) for table in paper.tables} or {"": _unprinted(paper, runs)}
    priced = prices(paper, runs, list(known.values())) if not paper.tasks else []
    parts = [
        f"# {paper.title}\n",
        _commands(paper, named),
        *(_table(paper, cells) for cells in tables.values()),
        _list("† Numbers in conflict", _conflicts(tables.values())),
        _runs(runs),
        _by_protocol(paper, runs, known),
        _prices(priced),
        _list("Not found", paper.not_found),
    ]
    text = "\n".join(part for part in parts if part)
    print(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "reproduce.md").write_text(text, encoding="utf-8")
        plain = {
            "paper": name,
            "protocol": paper.protocol or paper.tasks,
            "tables": {table: [asdict(cell) for cell in cells] for table, cells in tables.items()},
            "prices": [asdict(price) for price in priced],
            "not_found": list(paper.not_found),
        }
        (out / "reproduce.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def _all() -> list[str]:
    return ["paper", *protocol_names()]


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
    known = number is None or bool(number.protocol or paper.tasks)
    theirs = (number.how, number.protocol) if number else ()
    asked = paper.headline(benchmark, *theirs) if known else None
    for run in runs:
        value = run.ours(benchmark, asked) if run.system == system else None
        if value is not None:
            partial = run.partial(benchmark, asked)
            return Cell(system, column, benchmark, number, value, str(run.folder), True, partial)
    return Cell(system, column, benchmark, number, None, "", asked is not None)


def _commands(paper: Paper, protocols: Sequence[str]) -> str:
    lines = paper_commands(paper, [each for each in protocols if each != paper.protocol])
    return "\n".join(["## Commands\n", "```sh", *lines, "```", ""])


def _table(paper: Paper, cells: Sequence[Cell]) -> str:
    first = cells[0].number
    titles = _titles(cells)
    by_place = {(cell.system, cell.column): cell for cell in cells}
    lines = [
        f"## {first.source if first else 'Accuracy: not found, nobody printed any'}\n",
        _row("", titles.values()),
        "|---|" + "---:|" * len(titles),
    ]
    for system in dict.fromkeys(cell.system for cell in cells):
        row = [by_place.get((system, column)) for column in titles]
        quoted = any(cell and cell.number and cell.number.quoted for cell in row)
        lines.append(_row(f"{system}, quoted" if quoted else system, map(_printed, row)))
        ours = any(cell and cell.ours is not None for cell in row)
        if ours or (system in paper.systems and any(cell and cell.open for cell in row)):
            lines.append(_row("**here**", map(_ours, row)))
    return "\n".join([*lines, "", *_remarks(cells)])


def _titles(cells: Sequence[Cell]) -> dict[int, str]:
    """Of each column the benchmark, and of a benchmark with several what tells them apart."""
    columns: dict[int, Cell] = {}
    for cell in cells:
        if cell.column not in columns or (cell.number and not cell.number.quoted):
            columns[cell.column] = cell
    names = [cell.benchmark for cell in columns.values()]
    return {
        column: f"{cell.benchmark}, {cell.number.how or cell.number.metric}"
        if cell.number and names.count(cell.benchmark) > 1
        else cell.benchmark
        for column, cell in sorted(columns.items())
    }


def _row(title: str, values: Iterable[str]) -> str:
    return f"| {title} | {' | '.join(values)} |"


def _printed(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    return f"{cell.number.value}{' †' if cell.number.conflict else ''}" if cell.number else "not found"


def _ours(cell: Cell | None) -> str:
    if cell is None or cell.ours is None:
        return ""
    if cell.secret or cell.partial:
        return f"{cell.ours:.2f}{' ‡' * cell.secret}{' *' * cell.partial}"
    difference = f" ({cell.ours - cell.number.value:+.2f})" if cell.number else ""
    return f"**{cell.ours:.2f}**{difference}"


def _remarks(cells: Sequence[Cell]) -> list[str]:
    """What the columns are, and notes."""
    numbers = [cell.number for cell in cells if cell.number]
    columns = [
        f"{n.benchmark}: {', '.join(filter(None, (n.metric, n.split, n.how)))}"
        for n in numbers
        if not n.quoted
    ]
    notes = [f"{n.system}: {n.note}" for n in numbers if n.note]
    if any(cell.secret and cell.ours is not None for cell in cells):
        notes.append(f"‡ ours is of the split with public answers; {_SECRET} is scored by its server alone")
    if any(cell.partial for cell in cells):
        notes.append("* ours is of a part of the questions")
    said = dict.fromkeys([*(["; ".join(dict.fromkeys(columns))] if columns else []), *notes])
    return [*(f"- {each}" for each in said), *([""] if said else [])]


def _conflicts(tables: Iterable[Sequence[Cell]]) -> list[str]:
    numbers = [cell.number for cells in tables for cell in cells if cell.number and cell.number.conflict]
    return list(dict.fromkeys(f"{n.system}, {n.benchmark}: {n.conflict}" for n in numbers))


def _runs(runs: Sequence[Finished]) -> str:
    if not runs:
        return ""
    lines = ["## What was run\n", "| system | folder | model | weights | benchmark | ask | questions |"]
    lines.append("|---|---|---|---|---|---|---:|")
    for run in runs:
        for (benchmark, ask), scored in run.asks.items():
            model = run.about.get("model", "–")
            lines.append(
                f"| {run.system} | {run.folder} | {model} | {scored.model[:12] or '–'} | {benchmark} "
                f"| {ask or '–'} | {scored.questions:,}{f' of {scored.total:,}' * scored.partial} |"
            )
    return "\n".join([*lines, ""])


def _by_protocol(paper: Paper, runs: Sequence[Finished], protocols: dict[str, Protocol]) -> str:
    rows = []
    for run in runs:
        for benchmark in dict.fromkeys(name for name, _ in run.asks):
            own = {paper.protocol: paper.headline(benchmark)}
            asked = [own.get(name) or each.headlines.get(benchmark) for name, each in protocols.items()]
            values = [run.ours(benchmark, headline) for headline in asked]
            shown = [
                ""
                if value is None or headline is None
                else f"{value:.2f} ({headline.ask}, {headline.metric})"
                for value, headline in zip(values, asked, strict=True)
            ]
            rows.append(_row(f"{run.system} | {run.folder} | {benchmark}", shown))
    if not rows or paper.tasks:
        return ""
    titles = [f"{name}, the paper's" if name == paper.protocol else name for name in protocols]
    lines = ["## The same answers by protocol\n", f"| system | folder | benchmark | {' | '.join(titles)} |"]
    return "\n".join([*lines, "|---|---|---|" + "---:|" * len(titles), *rows, ""])


def _prices(priced: Sequence[Price]) -> str:
    if not priced:
        return ""
    lines = [
        "## What each difference of protocol is worth\n",
        "Points against the paper's way, on the same model; with an interval where the metric is a mean over "
        "questions. Splits whose answers are secret, and prompts that were not asked, have no price.\n",
        "| system | benchmark | what differs | the paper | instead | points | 95 % interval | questions |",
        "|---|---|---|---|---|---:|---:|---:|",
    ]
    for price in priced:
        interval = "" if price.interval is None else "{:+.2f} … {:+.2f}".format(*price.interval)
        lines.append(
            f"| {price.system} | {price.benchmark} | {price.what} | {price.paper} | {price.other} "
            f"| {price.points:+.2f} | {interval} | {price.questions:,} |"
        )
    return "\n".join([*lines, ""])


def _list(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}\n", *(f"- {line}" for line in lines), ""]) if lines else ""
