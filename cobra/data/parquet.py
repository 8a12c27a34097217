"""Parquet with pictures inside: FineVision, The Cauldron and their like."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cobra.data.chat_table import ChatTable
from cobra.data.columns import Columns, picture
from cobra.data.file_list import find_files, tracked
from cobra.data.parquet_rows import ParquetRows
from cobra.data.raw_chat import RawChat
from cobra.data.record import ImageSource


class ParquetChats(ChatTable):
    """Chats from parquet files with a column of chats and one of pictures, as bytes.

    Read are FineVision's and The Cauldron's `texts` (`[{"user", "assistant"}, ...]`), `messages` and
    `conversations` as in JSON, TRL's `prompt` and `completion`, and `question` and `answer`. Texts are
    converted once to an Arrow table, without a look at the pictures; these are read where they are, a run of
    rows at a time. An epoch goes through the runs in random order and mixes the rows of a few, so that each
    is read about once an epoch and worker.

    Args:
        files: a folder with .parquet files, a pattern such as `data/train-*.parquet`, or one file.
        chats: the column of chats; found by its usual names when left out.
        images: the column of pictures; found by its usual names when left out.
        min_rating: leave out turns that FineVision rates lower, in any of its four ways.
        cache_mb: memory of each worker for pictures, of which half are mixed with each other.
        cache_dir: where the table is kept; the `datasets` library's own folder when left out.
    """

    def __init__(
        self,
        files: str | Path,
        chats: str | None = None,
        images: str | None = None,
        min_rating: int = 0,
        cache_mb: int = 128,
        cache_dir: str | Path | None = None,
    ) -> None:
        if cache_mb < 1:
            raise ValueError(f"cache_mb {cache_mb} must be at least 1")
        self.files = find_files(files, ".parquet")
        self.pictures = ParquetRows(self.files, cache_mb << 20)
        names = self.pictures.names
        self.columns = Columns.find(names, str(self.files[0]), chats, images, min_rating)
        self.pictures.cut(self.columns.images)
        name = Path(files).stem if "*" not in str(files) else self.files[0].stem
        super().__init__(name, self.files, cache_dir, [self.columns.chats, self.columns.images, min_rating])

    def raws(self) -> Iterator[RawChat]:
        """The rows of all files, in order."""
        for path in tracked(self.files, self.source):
            row = 0
            file = pq.ParquetFile(path)
            columns = [*self.columns.texts, *self.pictures.counting(file)]
            for batch in file.iter_batches(1024, columns=columns):
                yield from self.columns.raws(batch, (f"{path.stem}-{row + n}" for n in range(len(batch))))
                row += len(batch)

    def image(self, name: str, row: int) -> ImageSource:
        """The bytes in the row's cell."""
        value = self.pictures[row]
        try:
            return picture(value, int(name))
        except ValueError as error:
            raise ValueError(f"{self.pictures.where(row)}: {error}") from error

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Row groups in random order; rows are mixed with those of a few others."""
        rows = self.rows()
        windows = self.pictures.windows(rng)
        mixed = []
        for window in windows:
            ends = [np.searchsorted(rows, (piece.start, piece.stop)) for piece in window]
            mixed.append(rng.permutation(np.concatenate([np.arange(*end) for end in ends])))
        return np.concatenate(mixed)

    def identity(self) -> dict[str, Any]:
        """As for any source, and what the order depends on."""
        return {**super().identity(), "cache_mb": self.pictures.cache >> 20}
