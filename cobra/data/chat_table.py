"""Chat table: the chats of a source in one schema, converted once to an Arrow file that is mapped."""

import json
import logging
import mmap
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import sha256
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cobra.data.bad_sample import BadSample
from cobra.data.raw_chat import RawChat, to_messages, to_turns
from cobra.data.record import ImageSource, Message, Record
from cobra.data.source import Source
from cobra.data.table_writer import CannotWrite, TableWriter, table_writer

logger = logging.getLogger(__name__)

# Part of the key under which a converted table is found again: raise it with any change to what is stored.
_VERSION = 4
# After so many records the pages that they lay on are let go; the system keeps them for whoever asks next.
_FORGET = 64
# bytes that are hashed at a time
_BLOCK = 1 << 24


class ChatTable(Source):
    """A source whose chats are converted once.

    The table is mapped and not read, so that all processes share it, and a process lets go of what it has
    read. Records that are no chat are dropped, counted in `dropped` and logged in one line with the first of
    each kind; what was left out of others is counted in `mended`.

    Args:
        name: of the source.
        files: that it reads.
        cache_dir: where the table is kept; the folder of the `datasets` library when left out.
        options: whatever else the table depends on.
        shown: what messages call the data; the first file when left out.
    """

    # what is stored of a picture: its name, or its bytes
    image_type: pa.DataType = pa.string()
    # whether a chat may end on a question
    may_ask = False

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        cache_dir: str | Path | None,
        options: Any = None,
        shown: str | None = None,
    ) -> None:
        self.source = name
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        key = json.dumps([_VERSION, type(self).raws.__qualname__, options, stats])
        if shown is None:
            shown = f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else str(files[0])
        self.path = _folder(cache_dir) / f"{name[:80]}-{sha256(key.encode()).hexdigest()[:20]}.arrow"
        self._convert(shown)
        self._open()
        problem = pc.unique(self._column("problem")).to_pylist()
        self.bad = 0 if problem == [""] else pc.sum(pc.not_equal(self._column("problem"), "")).as_py()
        self.dropped, self.mended = self._counts("problem"), self._counts("mended")
        if not len(self):
            raise ValueError(f"none of the {self.bad} records of {shown} is a chat: {self.dropped}")
        if self.bad:
            logger.warning(
                "dropped %d of %d records of %s: %s; the first of each: %s",
                self.bad, len(self) + self.bad, shown, self.dropped, self._firsts(),
            )  # fmt: skip

    @abstractmethod
    def raws(self) -> Iterator[RawChat]:
        """All chats of the files, in order; read once."""

    @abstractmethod
    def image(self, name: Any, row: int) -> ImageSource:
        """A picture by what is stored of it, of the chat of this number in the files."""

    def messages(self, turns: Sequence[dict[str, str]]) -> list[Message]:
        """What a record has of its chat."""
        return to_messages(turns)

    def __len__(self) -> int:
        return self._ends[-1] - self.bad

    def __getitem__(self, index: int) -> Record:
        row = self._row(index)
        try:
            images = [self.image(name, row["row"]) for name in row["images"]]
        except (ValueError, OSError) as error:
            kind = OSError if isinstance(error, OSError) else ValueError
            raise kind(f"record {row['id']!r} of {self.source}: {error}") from error
        return Record(row["id"], self.messages(row["turns"]), images, self.source, dict(row["meta"]))

    def bad_records(self) -> Iterator[BadSample]:
        """Those that were dropped, each with its reason."""
        for number in range(len(self), self._ends[-1]):
            row = self._row(number, bad=True)
            yield BadSample(self.source, row["id"], row["problem"])

    def rows(self) -> np.ndarray:
        """The number that each record (len,) has in the files."""
        return self._column("row").to_numpy()[: len(self)]

    def identity(self) -> dict[str, Any]:
        """With a hash of all that was read of the files: of 1.2 million chats in a second or two."""
        content = sha256()
        with self.path.open("rb") as table:
            while block := table.read(_BLOCK):
                content.update(block)
        return {**super().identity(), "content": content.hexdigest()[:16]}

    def _said(self, index: int) -> Any:
        # without its pictures, which need not be read
        row = self._row(index)
        return row["id"], [message.text for message in self.messages(row["turns"])]

    def _row(self, index: int, bad: bool = False) -> dict[str, Any]:
        if not 0 <= index < (self._ends[-1] if bad else len(self)):
            raise IndexError(f"there is no record {index} in {self.source}, which has {len(self)}")
        self._taken += 1
        if self._taken % _FORGET == 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)
        number = bisect_right(self._ends, index)
        start = self._ends[number - 1] if number else 0
        return self._batches[number].slice(index - start, 1).to_pylist()[0]

    def _open(self) -> None:
        try:
            with self.path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            reader = pa.ipc.open_file(pa.py_buffer(self._mapped))
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (OSError, ValueError) as error:
            raise ValueError(f"the table {self.path} cannot be read ({error}): delete it") from error
        self._ends: list[int] = np.cumsum([batch.num_rows for batch in self._batches]).tolist()
        self._taken = 0

    def _column(self, name: str) -> pa.ChunkedArray:
        return pa.chunked_array([batch.column(name) for batch in self._batches])

    def _counts(self, name: str) -> dict[str, int]:
        counts = pc.value_counts(self._column(name)).to_pylist()
        return {count["values"]: count["counts"] for count in counts if count["values"]}

    def _firsts(self) -> dict[str, str]:
        firsts: dict[str, str] = {}
        for sample in self.bad_records():
            firsts.setdefault(sample.reason, sample.id)
            if len(firsts) == len(self.dropped):
                break
        return firsts

    def __getstate__(self) -> dict[str, Any]:
        # another process maps the file itself
        return {name: value for name, value in vars(self).items() if name not in ("_mapped", "_batches")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _convert(self, shown: str) -> None:
        """Write the table, if there is none. Processes that need it at the same time wait for the first."""
        if self.path.exists():
            return
        try:
            with table_writer(self.path, self.image_type) as writer:
                if writer is not None:
                    self._write(writer, shown)
        except CannotWrite as error:
            raise OSError(
                f"the table of {shown} cannot be written to {self.path.parent} ({error}): set `cache_dir` "
                "to a folder with room"
            ) from error

    def _write(self, writer: TableWriter, shown: str) -> None:
        """Records in order, then those that are no chat."""
        bad = []
        number = -1
        for number, raw in enumerate(self.raws()):
            given = raw.chat if isinstance(raw.chat, dict) else {}
            name = given.get("id", given.get("idx"))
            row = {"id": _text(number if name is None else name), "row": number}
            try:
                if raw.problem:
                    raise ValueError(raw.problem)
                chat = to_turns(raw.chat, self.may_ask, raw.is_named)
            except ValueError as problem:
                bad.append({**row, "problem": str(problem)})
                continue
            row |= {"turns": chat.turns, "images": chat.images, "meta": raw.meta}
            writer.add({**row, "mended": ", ".join(filter(None, (raw.mended, chat.mended)))})
        if number < 0:
            raise ValueError(f"{shown} holds no records: fetch it again")
        for row in bad:
            writer.add(row)


def _text(name: Any) -> str:
    return str(name).encode("utf-8", "replace").decode()


def _folder(cache_dir: str | Path | None) -> Path:
    if cache_dir:
        return Path(expanduser(cache_dir)).absolute()
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / "cobra"
