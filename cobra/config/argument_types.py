"""Types of command-line arguments: numbers within bounds, and paths as a user writes them."""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

from cobra.config.limits import MAX_SIZE


def whole(least: int, most: int = MAX_SIZE) -> Callable[[str], int]:
    """A whole number of at least `least` and at most `most`."""

    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} must be {least} to {most}")
        return int(text)

    return number


def positive(text: str) -> float:
    """A finite number above 0."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be finite and above 0")
    return float(text)


def share(text: str) -> float:
    """A share of something of which some has to be left: at least 0, below 1."""
    if not 0 <= float(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a share, at least 0 and below 1")
    return float(text)


def path(text: str) -> Path:
    """A path; `~` is the user's home wherever a shell has left it, as in `--out=~/runs`."""
    if not text:
        raise argparse.ArgumentTypeError("a path is empty")
    return Path(os.path.expanduser(text))
