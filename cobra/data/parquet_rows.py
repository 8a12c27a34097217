"""Rows of one column of many parquet files, by number, read a run of rows at a time and kept for a while."""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Runs that a cache holds, about; half of them are mixed with each other.
_PIECES = 8
# Row groups that are read at the same time, as many as a window has: each holds a page of its column.
_STREAMS = 4


@dataclass(frozen=True)
class Piece:
    """A run of rows of one row group: all of a small one, a part of a large one.

    Attributes:
        file: number of the file.
        group: number of the row group in it.
        start: number of the first row among those of all files.
        stop: that of the row after the last.
        first: number of the first row in the group.
        bytes: of its pictures, about.
    """

    file: int
    group: int
    start: int
    stop: int
    first: int
    bytes: int


class ParquetRows:
    """The column, as far as it was asked for lately.

    A worker gets the file names alone. Row groups are streams, from which runs are taken in their order, so
    that one of several gigabytes needs no more memory than a small one.

    Args:
        files: in order.
        cache: bytes that are kept.
    """

    def __init__(self, files: Sequence[Path], cache: int) -> None:
        self.files, self.cache = files, cache
        self.pieces: list[Piece] = []
        self.column: str | None = None
        self.names = _open(files[0]).schema_arrow.names
        self._forget()

    def cut(self, column: str | None) -> None:
        """Cut the row groups into runs by what a column takes in them."""
        self.column = column
        row = 0
        for number, path in enumerate(self.files):
            file = _open(path)
            if file.schema_arrow.names != self.names:
                raise ValueError(
                    f"{path} has columns {file.schema_arrow.names}, not {self.names}: read it apart"
                )
            for group in range(file.metadata.num_row_groups):
                pieces = self._cut_group(file.metadata.row_group(group), number, group, row)
                self.pieces += pieces
                row = pieces[-1].stop if pieces else row
        self.starts = np.array([piece.start for piece in self.pieces])

    def _cut_group(self, group: Any, file: int, number: int, row: int) -> list[Piece]:
        columns = (group.column(index) for index in range(group.num_columns))
        size = sum(
            c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == self.column
        )
        step = max(1, min(group.num_rows, group.num_rows * (self.cache // _PIECES) // max(size, 1)))
        firsts = range(0, group.num_rows, step)
        ends = [min(first + step, group.num_rows) for first in firsts]
        return [
            Piece(file, number, row + first, row + end, first, size * (end - first) // group.num_rows)
            for first, end in zip(firsts, ends, strict=True)
        ]

    def counting(self, file: pq.ParquetFile) -> list[str]:
        """What of the column tells how many pictures there are: their paths, where they have any."""
        if self.column is None:
            return []
        leaves = [file.schema.column(index).path for index in range(len(file.schema))]
        own = [leaf for leaf in leaves if leaf.split(".")[0] == self.column]
        return [leaf for leaf in own if leaf.endswith(".path")] or own

    def where(self, row: int) -> str:
        """What an error calls a row."""
        piece = self.pieces[self._piece(row)]
        return f"row {row - piece.start + piece.first} of row group {piece.group} of {self.files[piece.file]}"

    def windows(self, rng: np.random.Generator) -> Iterator[list[Piece]]:
        """All pieces, group by group in random order, those together that are mixed."""
        groups: dict[tuple[int, int], list[Piece]] = {}
        for piece in self.pieces:
            groups.setdefault((piece.file, piece.group), []).append(piece)
        keys = list(groups)
        window: list[Piece] = []
        room = self.cache // 2
        for index in rng.permutation(len(keys)):
            for piece in groups[keys[index]]:
                if window and sum(p.bytes for p in window) + piece.bytes > room:
                    yield window
                    window = []
                window.append(piece)
        if window:
            yield window

    def __getitem__(self, row: int) -> Any:
        # a worker that was forked has streams of its own
        if self._process != os.getpid():
            self._forget()
        number = self._piece(row)
        try:
            batch = self._kept[number] if number in self._kept else self._read(number)
        # damaged files fail in Arrow's own ways, which are ValueErrors or OSErrors, and name none
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.where(row)} cannot be read ({error}): fetch the file again") from error
        self._kept.move_to_end(number)
        return batch.column(0)[row - self.pieces[number].start].as_py()

    def _piece(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _read(self, number: int) -> pa.Table:
        """The run of this number, which is kept with those that the stream passes on its way."""
        key = (self.pieces[number].file, self.pieces[number].group)
        if key not in self._streams or self._streams[key][1] > number:
            first = number
            while first and (self.pieces[first - 1].file, self.pieces[first - 1].group) == key:
                first -= 1
            rows = self.pieces[first].stop - self.pieces[first].start
            self._streams[key] = (_Stream(self.files[key[0]], key[1], self.column, rows), first)
        stream, at = self._streams.pop(key)
        for passed in range(at, number + 1):
            piece = self.pieces[passed]
            self._keep(passed, stream.take(piece.stop - piece.start))
        if number + 1 < len(self.pieces) and self.pieces[number + 1].first:
            self._streams[key] = (stream, number + 1)
        while len(self._streams) > _STREAMS:
            self._streams.popitem(last=False)
        return self._kept[number]

    def _keep(self, number: int, batch: pa.Table) -> None:
        self._kept[number] = batch
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self.cache:
            self._kept.popitem(last=False)
        # else a worker keeps three times as much
        pa.default_memory_pool().release_unused()

    def _forget(self) -> None:
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()
        self._streams: OrderedDict[tuple[int, int], tuple[_Stream, int]] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_kept", "_streams")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()


def _open(path: Path, **options: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, **options)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no parquet file that can be read ({error}): fetch it again") from error


class _Stream:
    """A column of a row group from its first row on, page by page."""

    def __init__(self, path: Path, group: int, column: str | None, rows: int) -> None:
        file = _open(path, buffer_size=1 << 20, pre_buffer=False)
        self.batches = file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False)
        self.rest: pa.RecordBatch | None = None

    def take(self, rows: int) -> pa.Table:
        """The next rows."""
        taken: list[pa.RecordBatch] = []
        while rows:
            batch = self.rest if self.rest is not None else next(self.batches, None)
            if batch is None:
                raise ValueError("it has fewer rows than it says: fetch the file again")
            taken.append(batch.slice(0, rows))
            self.rest = batch.slice(rows) if batch.num_rows > rows else None
            rows -= taken[-1].num_rows
        return pa.Table.from_batches(taken)
