"""Small files in the form of published ones, of benchmarks whose own may not be here."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cobra.eval.benchmarks.base import Benchmark


def write_small(root: Path, path: str, value: Any) -> Path:
    """A JSON file below the root of all benchmarks."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")
    return file


def allow_any_size(monkeypatch: pytest.MonkeyPatch, *benchmarks: type[Benchmark]) -> None:
    """Let files have any number of rows."""
    for each in benchmarks:
        monkeypatch.setattr(each, "downloads", tuple(replace(d, entries=0) for d in each.downloads))
