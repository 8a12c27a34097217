"""Documents: whole texts, from files or from a column of a table."""

import gzip
import logging
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from glob import glob
from hashlib import sha256
from os.path import expanduser
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

# what the `datasets` library calls the formats of files, by their names' ends
_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
# rows that are read at a time
_ROWS = 64


class Documents(ABC):
    """Whole texts, one after the other, always in the same order."""

    @abstractmethod
    def __len__(self) -> int:
        """Documents, those that turn out to be empty included."""

    @abstractmethod
    def __iter__(self) -> Iterator[str]:
        """Each one's text."""

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """What they are read from, as plain data: where it is the same, so are they."""


class TextFiles(Documents):
    """Files in UTF-8, each a document; those whose names end in .gz are unpacked. Others are left out.

    Args:
        folder: where they are.
        patterns: of their names from there; ** stands for any folders.
    """

    def __init__(self, folder: str, patterns: list[str]) -> None:
        self.folder = Path(expanduser(folder)).absolute()
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(self.folder)!r}: check `folder`")
        found = {path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file()}
        self.files = sorted(found)
        if not self.files:
            raise FileNotFoundError(f"{self.folder} has no files {', '.join(patterns)}: check `patterns`")

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[str]:
        bad = []
        for path in self.files:
            try:
                yield read_document(path)
            except ValueError:
                bad.append(str(path))
        if bad:
            logger.warning("left out %d files that are no UTF-8, the first %s", len(bad), bad[0])

    def key(self) -> dict[str, Any]:
        """Names, sizes and times of all files."""
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        return {"files": sha256(repr(stats).encode()).hexdigest()}


class TextTable(Documents):
    """A column of a table that the `datasets` library reads, each row a document.

    Args:
        path: JSON Lines or parquet files, as a pattern such as `download/*.jsonl`; or a data set's name on
            the hub.
        column: which holds the texts; rows that have none are left out.
        split: of a data set on the hub.
        name: of its configuration there, where it has several.
    """

    def __init__(
        self, path: str, column: str = "text", split: str = "train", name: str | None = None
    ) -> None:
        from datasets import load_dataset

        kind = _FORMATS.get(Path(path).suffix)
        if kind is None:
            table = load_dataset(path, name, split=split)
        else:
            files = sorted(glob(expanduser(path), recursive=True))
            if not files:
                raise FileNotFoundError(f"there is no file {path!r}: check `path`")
            table = load_dataset(kind, data_files=files, split="train")
        if column not in table.column_names:
            raise ValueError(f"{path} has no column {column!r}: name one of {', '.join(table.column_names)}")
        self.column, self.table = column, table.select_columns([column])

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[str]:
        for rows in self.table.iter(batch_size=_ROWS):
            yield from (text or "" for text in rows[self.column])

    def key(self) -> dict[str, Any]:
        """The library's own fingerprint of the table, and the column."""
        return {"table": self.table._fingerprint, "column": self.column}


def is_table(path: Path) -> bool:
    """Whether a file's name is one of a table that `TextTable` reads."""
    return path.suffix in _FORMATS


def read_document(path: Path) -> str:
    """The text of a file, which may be packed by gzip.

    Raises:
        ValueError: where it is not UTF-8, or is packed and broken.
    """
    data = path.read_bytes()
    try:
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): leave it out") from error


def is_held_out(text: str, share: float) -> bool:
    """Whether a document is among those, a share of all, that are never trained on.

    By its text: copies of a document, of which collections have many, are on the same side, and others that
    come or go move none.
    """
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") < share * 2**64
