"""Randomly damaged files through the loaders: no crash, no hang, no silent success on garbage."""

import json
from pathlib import Path

import pytest

from tests.test_cli import run


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "count"), [("images", 2000), ("models", 500), ("checkpoints", 1000)])
def test_a_damaged_file_is_refused_by_name_or_loaded_whole(kind: str, count: int, tmp_path: Path) -> None:
    result = run("-X", "faulthandler", "-m", "tests.mutations", kind, str(tmp_path), str(count))
    assert result.returncode == 0, result.stderr[-3000:]
    ends = json.loads(result.stdout.splitlines()[-1])
    assert sum(ends.values()) == count
    # a campaign of which all is refused, or nothing, has tried nothing
    assert min(ends["loaded"], ends["refused"]) > count // 10, ends
