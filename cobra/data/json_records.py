"""JSON records: the elements of a large file, one after the other, read in pieces of bounded size."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import rich.progress
from rich.console import Console

from cobra.config.limits import MAX_RECORD_TEXT

_PIECE = 1 << 20
# What stands between the elements of an array, or between lines, and the mark that some editors put first.
_BETWEEN = re.compile("[ \t\r\n,\\[\\]\ufeff]*")
# A literal, a number or an escape that a piece has cut ends in an error so near to the end of the piece.
_NEAR = 32
# Files that take long enough for a bar.
_LARGE = 1 << 26


def read_json_records(path: Path) -> Iterator[Any]:
    """The elements of a JSON array, or of a file with one value a line; one is in memory at a time.

    Raises:
        ValueError: where the file is no UTF-8, no JSON or an array has no end, with the position; or where a
            record is longer than `MAX_RECORD_TEXT`.
    """
    size = path.stat().st_size
    with rich.progress.open(
        path, "rb", description=f"Reading {path.name}", disable=size < _LARGE, console=Console(stderr=True)
    ) as file:
        _check_end(file, size, path)
        yield from _Reader(file, path).records()


def _check_end(file: BinaryIO, size: int, path: Path) -> None:
    """Refuse an array without an end before it is read: a download may have stopped just after a record."""
    start = file.read(100).removeprefix(codecs.BOM_UTF8).lstrip()
    end, place = b"", size
    # an end is found behind any space
    while place and not end:
        place = max(place - 4096, 0)
        file.seek(place)
        end = file.read(4096).rstrip()
    file.seek(0)
    if start.startswith(b"[") and not end.endswith(b"]"):
        raise ValueError(f"{path} is an array without an end at byte {size}: fetch it again")


class _Reader:
    """A window on the text of a file, which moves on and grows with the record that it holds."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.decode = codecs.getincrementaldecoder("utf-8")()
        # the window, its place in the file in characters, and bytes that were read
        self.text, self.start, self.read = "", 0, 0
        self.is_whole = False

    def records(self) -> Iterator[Any]:
        """All values in order."""
        scan, at = json.JSONDecoder().raw_decode, 0
        self._more(_PIECE)
        while True:
            between = _BETWEEN.match(self.text, at)
            at = between.end() if between else at
            if at == len(self.text):
                if self.is_whole:
                    return
                at = self._forget(at, _PIECE)
                continue
            try:
                value, end = scan(self.text, at)
            except json.JSONDecodeError as error:
                at = self._extended(at, error)
                continue
            # nested too deep, or a number of thousands of digits
            except (RecursionError, ValueError) as error:
                raise ValueError(
                    f"{self.path} cannot be read at character {self.start + at} ({error}): it is no chat"
                ) from error
            # a number may go on in the next piece
            if end == len(self.text) and not self.is_whole:
                at = self._forget(at, _PIECE)
                continue
            yield value
            at = end

    def _extended(self, at: int, error: json.JSONDecodeError) -> int:
        """Where the record starts after more was read, if the window's end may be what is wrong with it."""
        cut = error.msg.startswith("Unterminated string") or len(self.text) - error.pos < _NEAR
        if self.is_whole or not cut:
            raise ValueError(
                f"{self.path} is no JSON at character {self.start + error.pos} ({error.msg}): fetch it again"
            ) from error
        held = len(self.text) - at
        if held > MAX_RECORD_TEXT:
            raise ValueError(
                f"{self.path} holds a record of more than {MAX_RECORD_TEXT} characters at character "
                f"{self.start + at}: it is no chat"
            )
        # twice as much each time, so that a long record is not scanned for ever
        return self._forget(at, max(_PIECE, held))

    def _forget(self, at: int, more: int) -> int:
        """Move the window's start up to a place, read on, and give the place in the new window."""
        self.text, self.start = self.text[at:], self.start + at
        self._more(more)
        return 0

    def _more(self, size: int) -> None:
        data = self.file.read(size)
        self.is_whole = len(data) < size
        pending = len(self.decode.getstate()[0])
        try:
            self.text += self.decode.decode(data, final=self.is_whole)
        except UnicodeDecodeError as error:
            place = self.read - pending + error.start
            raise ValueError(f"{self.path} is no UTF-8 at byte {place}: save it as UTF-8") from error
        self.read += len(data)
