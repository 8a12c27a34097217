"""Writer of chat tables: rows one by one into an Arrow file, which is there when it is whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

# A batch has so many rows or bytes, about, whichever is reached first.
_ROWS, _BYTES = 2048, 1 << 24
_TEXT = pa.string()
_COLUMNS: dict[str, pa.DataType] = {
    "id": _TEXT,
    # its number in the files
    "row": pa.int64(),
    "images": pa.list_(_TEXT),
    "turns": pa.list_(pa.struct({"role": _TEXT, "text": _TEXT})),
    "meta": pa.map_(_TEXT, _TEXT),
    # what was left out of it, or why it is no chat
    "mended": _TEXT,
    "problem": _TEXT,
}


class CannotWrite(Exception):
    """No room, or no right to write."""


@contextmanager
def table_writer(path: Path, image: pa.DataType) -> Iterator["TableWriter | None"]:
    """What writes the table, unless it is there. Processes that need it at the same time wait for the first.

    After an error, or the end of a process, there is no table.

    Args:
        path: of the table.
        image: what is stored of a picture.

    Raises:
        CannotWrite: as often as the system does not let it.
    """
    partial = path.with_suffix(".partial")
    with _told():
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    try:
        if path.exists():
            yield None
            return
        schema = pa.schema({**_COLUMNS, "images": pa.list_(image)})
        with _told():
            file = pa.ipc.new_file(partial, schema)
        try:
            writer = TableWriter(file, schema)
            yield writer
            with _told():
                writer.flush()
        finally:
            with _told():
                file.close()
        with _told():
            partial.replace(path)
    finally:
        with _told():
            partial.unlink(missing_ok=True)
        lock.release()


class TableWriter:
    """Rows on their way to a file of a table's columns.

    Args:
        file: takes batches.
        schema: of the table.
    """

    def __init__(self, file: pa.ipc.RecordBatchFileWriter, schema: pa.Schema) -> None:
        self.file, self.schema = file, schema
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; what it does not say is empty."""
        self._rows.append({"images": [], "turns": [], "meta": {}, "mended": "", "problem": "", **row})
        self._bytes += sum(map(len, row.get("images", ()))) + sum(
            len(t["text"]) for t in row.get("turns", ())
        )
        if len(self._rows) >= _ROWS or self._bytes >= _BYTES:
            with _told():
                self.flush()

    def flush(self) -> None:
        """Write what was added."""
        self.file.write_batch(pa.RecordBatch.from_pylist(self._rows, self.schema))
        self._rows, self._bytes = [], 0


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(str(error)) from error
