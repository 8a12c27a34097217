"""Hash of a file's bytes."""

import hashlib
from pathlib import Path

_PIECE = 1 << 20


def file_hash(path: Path) -> str:
    """Its SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
