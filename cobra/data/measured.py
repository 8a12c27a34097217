"""Tables of what was found of each record of a source, by worker processes, once: kept on disk and mapped."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from cobra.data.cache_folder import cache_folder
from cobra.data.record import Record
from cobra.data.source import Source

logger = logging.getLogger(__name__)

# Numbers found of a record, by the column.
Measure = Callable[[Record], Mapping[str, int]]
# Records that a process measures at a time, and those that are too few to start processes for.
_CHUNK, _FEW = 256, 2048


def measured(source: Source, measure: Measure, columns: Mapping[str, str], key: Any, title: str) -> pa.Table:
    """What `measure` finds of every record, a row each, and its `problem`: why there is nothing, or "".

    The table is mapped from a file in the cache folder, which all processes of a machine share; where there
    is none, or a broken one, it is measured and written. Records with a problem are measured again each time:
    a file that was missing may have come.

    Args:
        source: the records.
        measure: raises ValueError or OSError at a record of which there is nothing to find.
        columns: numpy's types of what it finds.
        key: all that it depends on, as plain data: where it differs, the table is another.
        title: what the progress bar says.
    """
    path = table_path(key)
    table = read_table(path, len(source))
    if table is None:
        table = measure_all(source, measure, columns, title)
    else:
        rows = np.flatnonzero(pc.not_equal(table.column("problem"), "").to_numpy())
        again = measure_again(table, rows, source, measure, columns, title)
        if again.equals(table):
            return table
        table = again
    keep_table(path, table)
    found = read_table(path, len(source))
    return table if found is None else found


def measure_again(
    table: pa.Table,
    rows: np.ndarray,
    source: Source,
    measure: Measure,
    columns: Mapping[str, str],
    title: str,
) -> pa.Table:
    """The table with some of its rows as they are now."""
    if not len(rows):
        return table
    found = measure_all(_Part(source, rows), measure, columns, title)
    mended = {name: table.column(name).to_numpy().copy() for name in table.column_names}
    for name, values in mended.items():
        values[rows] = found.column(name).to_numpy()
    return pa.table(mended, schema=table.schema)


def table_path(key: Any) -> Path:
    """The file of the table of a key."""
    name = sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:32]
    return cache_folder("measured") / f"{name}.arrow"


def read_table(path: Path, rows: int) -> pa.Table | None:
    """The table of a file, mapped; None where there is no file, or a broken one."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        logger.warning("%s is broken (%s): measuring again", path, error)
        return None
    return table if len(table) == rows else None


def keep_table(path: Path, table: pa.Table) -> None:
    """Write a table if that can be, so that no other process reads half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, table)
    except OSError as error:
        logger.warning(
            "cannot keep what was found in %s (%s): set COBRA_CACHE to a folder with room", path, error
        )


def _write(path: Path, table: pa.Table) -> None:
    # not of `tempfile`, whose files are their user's alone: users may share a cache
    name = path.with_name(f"{path.stem}-{uuid4().hex}.tmp")
    try:
        with pa.OSFile(str(name), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
            # a column in one piece is read without a copy
            writer.write_table(table.combine_chunks(), max_chunksize=max(1, len(table)))
        os.replace(name, path)
    finally:
        name.unlink(missing_ok=True)


def measure_all(source: Source, measure: Measure, columns: Mapping[str, str], title: str) -> pa.Table:
    """As `measured`, and not kept."""
    chunks = _Chunks(source, measure, columns)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # a generator of its own: a run that finds the table has the same random numbers
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=workers if len(source) > _FEW else 0,
        generator=torch.Generator(),
    )
    found: dict[str, list[np.ndarray]] = {name: [] for name in columns}
    problems: list[str] = []
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*bars, console=Console(stderr=True), disable=len(source) <= _FEW) as progress:
        task = progress.add_task(title, total=len(source))
        for values, told in loader:
            for name, column in values.items():
                found[name].append(column)
            problems += told
            progress.advance(task, len(told))
    arrays: dict[str, Any] = {
        name: np.concatenate([*parts, np.empty(0, columns[name])]) for name, parts in found.items()
    }
    return pa.table({**arrays, "problem": pa.array(problems, pa.string())})


class _Chunks(Dataset):
    """What is found of some records that follow each other."""

    def __init__(self, source: Source, measure: Measure, columns: Mapping[str, str]) -> None:
        self.source, self.measure, self.columns = source, measure, columns

    def __len__(self) -> int:
        return -(-len(self.source) // _CHUNK)

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray], list[str]]:
        # a data set ends where it raises this
        if number >= len(self):
            raise IndexError(number)
        indices = range(number * _CHUNK, min((number + 1) * _CHUNK, len(self.source)))
        values = {name: np.zeros(len(indices), kind) for name, kind in self.columns.items()}
        problems = [""] * len(indices)
        for row, index in enumerate(indices):
            try:
                for name, value in self.measure(self.source[index]).items():
                    values[name][row] = value
            except (ValueError, OSError) as error:
                problems[row] = str(error) or type(error).__name__
        return values, problems


class _Part(Source):
    """Some records of a source."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.indices[index])]

    def identity(self) -> dict[str, Any]:
        """Nothing that is kept."""
        return {}
