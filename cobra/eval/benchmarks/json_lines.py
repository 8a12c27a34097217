"""Files of benchmarks as JSON and JSON Lines, with errors that say what is wrong with them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from cobra.config.limits import MAX_RECORD_TEXT

# Of a column, such as `str` or `str | list`.
Kind = type | UnionType


def read_json_lines(path: Path, columns: Mapping[str, Kind]) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, which have at least these columns of these types.

    Raises:
        OSError: where it is missing.
        ValueError: where it is no UTF-8, or a line no such row.
    """
    rows = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_RECORD_TEXT), ""), 1):
                if line.strip():
                    rows.append(_row(line, columns, f"{path}, line {number}"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no UTF-8 ({error.reason} at byte {error.start}): fetch it again"
        ) from error
    return rows


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: where it is missing.
        ValueError: where it is no JSON, e.g. cut short.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): it may be cut short; fetch it again") from error


def require_columns(row: Any, columns: Mapping[str, Kind], where: str) -> dict[str, Any]:
    """The row, where it is an object with at least these columns of these types, else a ValueError."""
    for name, kind in columns.items():
        if not isinstance(row, dict) or not isinstance(row.get(name), kind):
            raise ValueError(f"{where}: no {name!r} of type {getattr(kind, '__name__', kind)}")
    found: dict[str, Any] = row
    return found


def refuse_duplicates(path: Path, ids: Iterable[object]) -> None:
    """Raise a ValueError that names an id which comes twice."""
    seen: set[object] = set()
    for each in ids:
        if each in seen:
            raise ValueError(f"{path} has the id {each!r} twice: fetch it again")
        seen.add(each)


def _row(line: str, columns: Mapping[str, Kind], where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: no JSON ({error}): the file may be cut short; fetch it again") from error
    return require_columns(row, columns, where)
