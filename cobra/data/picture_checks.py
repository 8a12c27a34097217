"""Pictures of every record of a source, decoded once: which are missing, which are broken."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from cobra.data.image import load_rgb
from cobra.data.measured import keep_table, measure_again, measure_all, measured, table_path
from cobra.data.record import ImageSource, Record
from cobra.data.source import Source
from cobra.data.token_counts import image_bytes

# Part of the key under which results are found again: raise it with any change to what is looked at.
_VERSION = 1
_COLUMNS = {"state": "int8", "size": "int64", "files": "uint64", "folders": "uint64", "stamp": "uint64"}
_GOOD, _MISSING, _BROKEN = range(3)
_FOLDERS = b"folders"


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
        """Those of a source. What was looked at before is taken to be as it was, but for bad pictures.

        Where one of their folders was written to since, files of another size or date are decoded again.
        """
        key = {"pictures": source.identity(), "version": _VERSION}
        table = measured(source, look, _COLUMNS, key, f"Decoding pictures of {name}")
        known = json.loads((table.schema.metadata or {}).get(_FOLDERS, b"null"))
        folders = _folders(source, table.column("folders").to_numpy())
        state = table.column("state").to_numpy()
        stale = state != _GOOD
        if known not in (None, folders):
            title = f"Looking for changed pictures of {name}"
            stamps = measure_all(source, stamp, {"stamp": "uint64"}, title)
            stale |= stamps.column("stamp").to_numpy() != table.column("stamp").to_numpy()
        title = f"Decoding changed pictures of {name}"
        again = measure_again(table, np.flatnonzero(stale), source, look, _COLUMNS, title)
        if known != folders or not again.equals(table):
            keep_table(table_path(key), again.replace_schema_metadata({_FOLDERS: json.dumps(folders)}))
        found = {column: again.column(column).to_numpy() for column in ("state", "size", "files")}
        state = found["state"]
        problems = enumerate(again.column("problem").to_pylist())
        reasons = {index: (str(index), problem) for index, problem in problems if problem}
        reasons |= _reasons(source, np.flatnonzero(state))
        return cls(state == _MISSING, state == _BROKEN, found["size"], found["files"], reasons)

    @property
    def disk(self) -> int:
        """Bytes of pictures, those of records that share them once."""
        _, first = np.unique(self.files, return_index=True)
        return int(self.size[first].sum())


def look(record: Record) -> dict[str, int]:
    """The state of a record's pictures, their bytes, and numbers of their names, folders and dates."""
    state, size = _GOOD, 0
    for image in record.images:
        try:
            load_rgb(image)
            size += len(image) if isinstance(image, bytes) else sum(stat.st_size for stat in _stats(image))
        except FileNotFoundError:
            state = _MISSING
        except (ValueError, OSError):
            state = state or _BROKEN
    return {
        "state": state,
        "size": size,
        "files": _number(record, image_bytes),
        "folders": _number(record, lambda image: str(_folder(image)).encode("utf-8", "replace")),
        **stamp(record),
    }


def stamp(record: Record) -> dict[str, int]:
    """A number of the sizes and dates of a record's files."""
    return {
        "stamp": _number(
            record, lambda image: repr([(s.st_size, s.st_mtime_ns) for s in _stats(image)]).encode()
        )
    }


def _number(record: Record, say: Callable[[ImageSource], bytes]) -> int:
    digest = blake2b(digest_size=8)
    for image in record.images:
        digest.update(say(image) + b"\0")
    return int.from_bytes(digest.digest(), "little")


def _folder(image: ImageSource) -> Path | None:
    """Of a picture's file; None where it is in memory."""
    return Path(image).parent if isinstance(image, str | Path) else None


def _stats(image: ImageSource) -> Iterator[os.stat_result]:
    """Of a picture's file, if it is in one and that is there."""
    if isinstance(image, str | Path):
        try:
            yield Path(image).stat()
        except (OSError, ValueError):
            return


def _folders(source: Source, numbers: np.ndarray) -> dict[str, int]:
    """When each folder of pictures was written to, by its name."""
    _, first = np.unique(numbers, return_index=True)
    folders: set[Path] = set()
    for index in first.tolist():
        try:
            folders |= {folder for image in source[index].images if (folder := _folder(image))}
        # such a record has no pictures that were looked at
        except (ValueError, OSError):
            continue
    return {str(folder): next((stat.st_mtime_ns for stat in _stats(folder)), 0) for folder in sorted(folders)}


def _reasons(source: Source, bad: np.ndarray) -> Iterator[tuple[int, tuple[str, str]]]:
    """Id of each record, and what is wrong with its first bad picture."""
    for index in bad.tolist():
        record = source[index]
        for image in record.images:
            try:
                load_rgb(image)
            except (ValueError, OSError) as error:
                yield index, (record.id, str(error))
                break
