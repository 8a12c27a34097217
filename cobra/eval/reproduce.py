"""A paper's tables with ours beside theirs, commands that make ours, and prices of protocol differences."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cobra.config.shown_text import harmless
from cobra.eval.papers.cells import table_cells
from cobra.eval.papers.finished import Finished
from cobra.eval.papers.page import (
    commands_section,
    conflicts_section,
    list_section,
    prices_section,
    protocols_section,
    runs_section,
    table_section,
)
from cobra.eval.papers.paper import cached_protocol, read_paper
from cobra.eval.papers.price import prices
from cobra.eval.protocols.protocol import protocol_names


def reproduce(name: str, said: Sequence[str], protocols: Sequence[str], out: Path | None) -> None:
    """Print a paper's commands and tables, with ours where they have been run.

    Args:
        name: of the paper.
        said: `[SYSTEM=]FOLDER` of each finished evaluation.
        protocols: to price the differences between, `paper` for its own.
        out: folder for reproduce.json and reproduce.md.
    """
    paper = read_paper(name)
    chosen = protocols or ["paper", *protocol_names()]
    named = list(dict.fromkeys(paper.protocol if each == "paper" else each for each in chosen))
    known = {each: cached_protocol(each) for each in [paper.protocol, *named] if each}
    runs = [Finished.read(each, paper) for each in said]
    tables = table_cells(paper, runs)
    priced = prices(paper, runs, list(known.values())) if not paper.tasks else []
    parts = [
        f"# {paper.title}\n",
        commands_section(paper, named),
        *(table_section(paper, cells) for cells in tables.values()),
        conflicts_section(tables.values()),
        runs_section(runs),
        protocols_section(paper, runs, known),
        prices_section(priced),
        list_section("Not found", paper.not_found),
    ]
    text = "\n".join(part for part in parts if part)
    print(harmless(text, sys.stdout))
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
