"""Page of a paper in Markdown: commands, tables, what was run, prices."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cobra.eval.papers.cells import SECRET, Cell
from cobra.eval.papers.commands import paper_commands
from cobra.eval.papers.finished import Finished, Scored
from cobra.eval.papers.paper import Paper
from cobra.eval.papers.price import Price
from cobra.eval.protocols.protocol import Protocol
from cobra.eval.published import Number


def commands_section(paper: Paper, protocols: Sequence[str]) -> str:
    """The commands that make ours."""
    lines = paper_commands(paper, [each for each in protocols if each != paper.protocol])
    return "\n".join(["## Commands\n", "```sh", *lines, "```", ""])


def table_section(paper: Paper, cells: Sequence[Cell]) -> str:
    """One table: theirs, and below a system of the paper ours."""
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
    # + 0.0: no minus before what rounds to nothing
    difference = f" ({round(cell.ours - cell.number.value, 2) + 0.0:+.2f})" if cell.number else ""
    return f"**{cell.ours:.2f}**{difference}"


def _remarks(cells: Sequence[Cell]) -> list[str]:
    """What the columns are, and notes."""
    numbers = [cell.number for cell in cells if cell.number]
    columns = [
        f"{n.benchmark}: {', '.join(filter(None, (n.metric, n.split, n.how)))}"
        for n in numbers
        if not n.quoted
    ]
    notes = _notes(numbers)
    if any(cell.secret and cell.ours is not None for cell in cells):
        notes.append(f"‡ ours is of the split with public answers; {SECRET} is scored by its server alone")
    if any(cell.partial for cell in cells):
        notes.append("* ours is of a part of the questions")
    said = dict.fromkeys([*(["; ".join(dict.fromkeys(columns))] if columns else []), *notes])
    return [*(f"- {each}" for each in said), *([""] if said else [])]


def _notes(numbers: Sequence[Number]) -> list[str]:
    """Each note once, with its columns where it is not of the whole row."""
    noted: dict[tuple[str, str], list[str]] = {}
    for number in numbers:
        if number.note:
            noted.setdefault((number.system, number.note), []).append(number.benchmark)
    sizes = Counter(number.system for number in numbers)
    return [
        f"{', '.join([system, *columns] if len(columns) < sizes[system] else [system])}: {note}"
        for (system, note), columns in noted.items()
    ]


def conflicts_section(tables: Iterable[Sequence[Cell]]) -> str:
    """What the daggers say."""
    numbers = [cell.number for cells in tables for cell in cells if cell.number and cell.number.conflict]
    said = dict.fromkeys(f"{n.system}, {n.benchmark}: {n.conflict}" for n in numbers)
    return list_section("† Numbers in conflict", list(said))


def runs_section(runs: Sequence[Finished]) -> str:
    """Which folders ours are from."""
    if not runs:
        return ""
    lines = ["## What was run\n", "| system | folder | model | weights | benchmark | ask | questions |"]
    lines.append("|---|---|---|---|---|---|---:|")
    for run in runs:
        for (benchmark, ask), scored in run.asks.items():
            model = run.about.get("model", "–")
            lines.append(
                f"| {run.system} | {run.folder} | {model} | {scored.model[:12] or '–'} | {benchmark} "
                f"| {ask or '–'} | {_asked(scored)} |"
            )
    return "\n".join([*lines, ""])


def _asked(scored: Scored) -> str:
    if scored.stopped:
        return f"{scored.questions:,}, not finished"
    return f"{scored.questions:,}" + (f" of {scored.total:,}" if scored.partial else "")


def protocols_section(paper: Paper, runs: Sequence[Finished], protocols: Mapping[str, Protocol]) -> str:
    """What each protocol makes of the answers."""
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


def prices_section(priced: Sequence[Price]) -> str:
    """What each difference of protocol is worth."""
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


def list_section(title: str, lines: Sequence[str]) -> str:
    """A heading and a list; nothing without lines."""
    return "\n".join([f"## {title}\n", *(f"- {line}" for line in lines), ""]) if lines else ""
