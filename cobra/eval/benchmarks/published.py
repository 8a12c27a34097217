"""Rows of a benchmark's JSON files, held against what its downloads say of them."""

from collections.abc import Mapping
from typing import Any

from cobra.eval.benchmarks.base import Benchmark
from cobra.eval.benchmarks.json_lines import Kind, read_json, refuse_duplicates, require_columns


def published_rows(
    benchmark: Benchmark, path: str, columns: Mapping[str, Kind], *, key: str = "", id_column: str = ""
) -> list[dict[str, Any]]:
    """The rows of one of the files that `benchmark.downloads` lists, as many as it says.

    Args:
        benchmark: has the root that the file lies below.
        path: as it stands in its downloads.
        columns: that each row has, and their types.
        key: of the file's object that has the rows; else the file is their list, or an object of rows by id,
            which then have it as `id`.
        id_column: that no two rows may share.

    Raises:
        OSError: where it is missing; says where to fetch it.
        ValueError: where it is another file or version, or damaged.
    """
    file = benchmark.root / path
    source = next(each for each in benchmark.downloads if each.path == path)
    again = f"fetch it again from {source.url or 'its source'}" + (f" ({source.note})" if source.note else "")
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: {again.replace(' again', '')}")
    rows = _list(read_json(file), key)
    if rows is None:
        raise ValueError(f"{file} has no rows{f' {key!r}' if key else ''}: it is another file; {again}")
    for number, row in enumerate(rows, 1):
        require_columns(row, columns, f"{file}, row {number}")
    if source.entries and len(rows) != source.entries:
        raise ValueError(
            f"{file} has {len(rows):,} entries, not {source.entries:,}: it is cut short or another version; "
            f"{again}"
        )
    if id_column:
        refuse_duplicates(file, (row[id_column] for row in rows))
    return rows


def answers_of_people(row: Mapping[str, Any], where: str) -> list[str]:
    """What each said, of a row whose `answers` are objects with an `answer`."""
    try:
        return [str(person["answer"]) for person in row["answers"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: an answer has no text: the file is damaged; fetch it again") from error


def _list(value: Any, key: str) -> list[Any] | None:
    if key:
        value = value.get(key) if isinstance(value, dict) else None
    elif isinstance(value, dict):
        value = [{"id": name, **row} if isinstance(row, dict) else row for name, row in value.items()]
    return value if isinstance(value, list) else None
