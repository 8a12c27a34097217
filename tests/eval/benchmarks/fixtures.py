"""Real files of benchmarks, which the project may not ship."""

import os
from pathlib import Path

import pytest

# a folder with pope/, mmbench_samples/, vsr/, ... as published
FIXTURES = Path(os.environ.get("COBRA_FIXTURES", Path(__file__).parents[4] / "shared/fixtures"))


def fixture(name: str) -> Path:
    """A file of that folder; the test is skipped where it is absent."""
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"no {path}: $COBRA_FIXTURES names no folder that has it")
    return path
