"""How OpenMP's threads wait in a command that was started as a user starts it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", ["main", "lightning"])
@pytest.mark.parametrize(
    ("asked", "spins"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_threads_wait_briefly_unless_the_user_said_how(
    command: str, asked: dict[str, str], spins: str
) -> None:
    # what `--help` leaves in the environment is what the runtime reads when torch is imported
    code = f"""
import ctypes, importlib.util, pathlib, sys
from cobra.cli import {command}
sys.argv[1:] = ["--help"]
try:
    {command}()
except SystemExit:
    pass
assert "torch" not in sys.modules
folder = pathlib.Path(importlib.util.find_spec("torch").origin).parent
ctypes.CDLL(str(folder / "lib" / "libgomp.so.1"))
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_DISPLAY_ENV": "verbose", "OMP_NUM_THREADS": "1", **asked}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    found = re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    assert found, done.stderr
    assert found[1] == spins
