"""Hash of a file's bytes."""

import hashlib
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 20


def file_hash(path: Path) -> str:
    """Its SHA-256 in hexadecimal digits."""
    with path.open("rb") as stream:
        return stream_hash(stream)


def stream_hash(stream: BinaryIO) -> str:
    """The same of what a stream holds from here on."""
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()
