"""`cobra conform`: engines against the laws of state."""

from collections.abc import Sequence
from pathlib import Path


def conform(engines: Sequence[str], laws: Sequence[str], markdown: Path | None, json: Path | None) -> bool:
    """Whether ours keeps the laws; prints the matrix."""
    raise NotImplementedError
