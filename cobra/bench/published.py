"""Speeds that others published."""

from dataclasses import dataclass
from pathlib import Path

import yaml

# beside the accuracies, in the one file of what others printed
_FILE = Path(__file__).parents[1] / "eval/published.yaml"


@dataclass(frozen=True)
class Published:
    """A row of somebody's table.

    Attributes:
        system: its name there.
        tokens_per_second: new tokens over the whole time.
        total_seconds: of 256 tokens.
        hardware: that they had.
        source: where it is printed.
        lm: the language model; empty where the table does not say.
        image_tokens: 0 where the table does not say.
        note: what does not add up.
    """

    system: str
    tokens_per_second: float
    total_seconds: float
    hardware: str
    source: str
    lm: str = ""
    image_tokens: int = 0
    note: str = ""


def read_published() -> list[Published]:
    """The rows of `speed` in published.yaml."""
    tables = yaml.safe_load(_FILE.read_text(encoding="utf-8"))["speed"]
    return [_row(table["source"], table["hardware"], *row) for table in tables for row in table["rows"]]


def _row(
    source: str, hardware: str, system: str, lm: str, tokens: int, rate: float, seconds: float, note: str = ""
) -> Published:
    return Published(system, rate, seconds, hardware, source, lm, tokens, note)


def published_table() -> str:
    """The rows as Markdown."""
    lines = [
        "| system | language model | image tokens | tok/s | total s | hardware | source |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for row in read_published():
        source = f"{row.source}; {row.note}" if row.note else row.source
        tokens = str(row.image_tokens or "–")
        lines.append(
            f"| {row.system} | {row.lm or '–'} | {tokens} | {row.tokens_per_second:g} | "
            f"{row.total_seconds:g} | {row.hardware} | {source} |"
        )
    return "\n".join(lines)
