"""`cobra export run`: a question about a picture, answered by an export's own runtime."""

from collections.abc import Sequence
from pathlib import Path


def run_export(folder: Path, images: Sequence[Path], prompts: Sequence[str], max_new_tokens: int) -> None:
    """Print the answers while they are generated, and behind them how long each part took."""
    raise NotImplementedError
