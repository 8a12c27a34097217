"""`cobra models`: the systems as tables in the terminal, or as the page docs/models.md."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from cobra.bench.systems.configs import read_systems
from cobra.bench.systems.document import document
from cobra.bench.systems.measure import measure
from cobra.bench.systems.notes import read_notes
from cobra.bench.systems.table import COLUMNS, rows

# what a row takes unfolded but for its encoder
_WIDTH = 200


def print_systems(configs: Path, notes: Path, markdown: bool) -> None:
    """Measure every system in a folder of yamls and print it.

    Args:
        configs: the folder.
        notes: what is known of the systems beside their configuration.
        markdown: print the page instead of the tables.
    """
    systems = [measure(name, tree) for name, tree in read_systems(configs).items()]
    known = read_notes(notes)
    if markdown:
        print(document(systems, known), end="")
        return
    console = Console()
    if not console.is_terminal:  # a file or a pager, whose lines may be long
        console.width = max(console.width, _WIDTH)
    for title, columns in COLUMNS.items():
        table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
        for row in rows(systems, known, title):
            table.add_row(*row)
        console.print(table)
