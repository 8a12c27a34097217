"""Rows of VLMEvalKit's tables, as text; needs nothing but Python."""

import base64
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from cobra.config.limits import MAX_RECORD_TEXT

# What is no longer than this is the `index` of the row that has the picture.
LONGEST_INDEX = 64


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table in order, by column; cells that a row lacks are None.

    Raises:
        OSError: where there is no such file.
        ValueError: where it has no pictures or questions, or is damaged.
    """
    # a global setting of Python's, whose default is less than a picture
    csv.field_size_limit(MAX_RECORD_TEXT)
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from _rows(file, path)


def decode_pictures(cell: str) -> list[bytes]:
    """The bytes of the pictures that a cell has in base64: one, or a list of them as Python writes it.

    Raises:
        ValueError: where it is no base64.
    """
    if not cell:
        return []
    codes = re.findall(r"['\"]([^'\"]+)['\"]", cell) if cell.startswith("[") else [cell]
    return [base64.b64decode(code, validate=True) for code in codes]


def _rows(file: TextIO, path: Path) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(_lines(file, path), delimiter="\t")
    try:
        missing = {"question", "image"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path} has no columns {sorted(missing)}, but {reader.fieldnames}")
        for row in reader:
            if None in row:
                raise ValueError(
                    f"{path}: line {reader.line_num} has more cells than the header: fetch it again"
                )
            yield row
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {reader.line_num} cannot be read ({error}): fetch it again"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 after line {reader.line_num}: save it as UTF-8") from error


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_RECORD_TEXT):
        number += 1
        if len(line) == MAX_RECORD_TEXT:
            raise ValueError(
                f"{path}: line {number} has more than {MAX_RECORD_TEXT} characters: it is no table"
            )
        yield line
