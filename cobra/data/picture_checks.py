"""Pictures of every record of a source, decoded once: which are missing, which are broken."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from cobra.data.image import load_rgb
from cobra.data.measured import measured, table_path, write_table
from cobra.data.record import ImageSource, Record
from cobra.data.source import Source
from cobra.data.token_counts import image_bytes

# Part of the key under which results are found again: raise it with any change to what is looked at.
_VERSION = 1
_COLUMNS = {"state": "int8", "size": "int64", "files": "uint64"}
_GOOD, _MISSING, _BROKEN = range(3)


@dataclass
class PictureChecks:
    """What is known of the pictures of each record; all (records,).

    Attributes:
        missing: whether one is not there.
        broken: whether one cannot be decoded.
        size: bytes of all.
        files: a number that records of the same pictures share.
        reasons: id and what is wrong, by the number of the record.
    """

    missing: np.ndarray
    broken: np.ndarray
    size: np.ndarray
    files: np.ndarray
    reasons: dict[int, tuple[str, str]]

    @classmethod
    def of(cls, source: Source, name: str) -> "PictureChecks":
        """Those of a source; what was good once is taken to be so, what was bad is looked at again."""
        key = {"pictures": source.identity(), "version": _VERSION}
        table = measured(source, look, _COLUMNS, key, f"Decoding pictures of {name}")
        state, size, files = (table.column(column).to_numpy() for column in _COLUMNS)
        reasons, state, size = {}, state.copy(), size.copy()
        bad = np.flatnonzero(state)
        for index in bad.tolist():
            record = source[index]
            state[index], size[index], reason = _state(record.images)
            if reason:
                reasons[index] = record.id, reason
        if len(reasons) < len(bad):
            columns = {"state": state, "size": size, "files": files, "problem": table.column("problem")}
            write_table(table_path(key), pa.table(columns))
        return cls(state == _MISSING, state == _BROKEN, size, files, reasons)

    @property
    def disk(self) -> int:
        """Bytes of pictures, those of records that share them once."""
        _, first = np.unique(self.files, return_index=True)
        return int(self.size[first].sum())


def look(record: Record) -> dict[str, int]:
    """The state of a record's pictures, their bytes and a number for all of them."""
    state, size, _ = _state(record.images)
    digest = blake2b(digest_size=8)
    for image in record.images:
        digest.update(image_bytes(image) + b"\0")
    return {"state": state, "size": size, "files": int.from_bytes(digest.digest(), "little")}


def _state(images: Sequence[ImageSource]) -> tuple[int, int, str]:
    """The state of pictures up to the first bad one, their bytes, and what is wrong with it."""
    size = 0
    for image in images:
        try:
            load_rgb(image)
            if isinstance(image, str | Path):
                size += Path(image).stat().st_size
            elif isinstance(image, bytes):
                size += len(image)
        except FileNotFoundError as error:
            return _MISSING, size, str(error)
        except (ValueError, OSError) as error:
            return _BROKEN, size, str(error)
    return _GOOD, size, ""
