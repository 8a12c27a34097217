"""`cobra export verify`: an export's files and laws."""

from pathlib import Path


def verify(folder: Path) -> bool:
    """Whether the files are as they were written and the engine keeps the laws; prints both."""
    raise NotImplementedError
