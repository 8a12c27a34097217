"""The native library: found, checked, loaded, and what is said when it is not."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from cobra.kernels import cpu, dispatch, ops
from cobra.kernels.cpu import library
from cobra.kernels.dispatch import accepting, use_backend

built = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not loaded the library."""
    monkeypatch.setattr(dispatch, "_candidates_of", {})
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    library._warn_once.cache_clear()


@pytest.mark.usefixtures("afresh")
def test_a_missing_library_is_named_once_and_plain_pytorch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "FILE_NAME", "libelsewhere.so")
    with pytest.warns(RuntimeWarning, match=r"libelsewhere.so was not built.*pip install"):
        chosen = [b.name for b in accepting("rms_norm", torch.device("cpu"), torch.float32)]
    assert chosen == ["torch", "reference"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accepting("add_rms_norm", torch.device("cpu"), torch.float32)


@built
@pytest.mark.usefixtures("afresh")
def test_a_stale_library_is_named_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "fingerprint", lambda: "0123456789abcdef")
    with (
        pytest.warns(RuntimeWarning, match=r"built from other sources .* than those in csrc"),
        use_backend("cpu"),
        pytest.raises(RuntimeError, match=r"cpu: .*other sources"),
    ):
        ops.rms_norm(torch.ones(2, 4), torch.ones(4))


@pytest.mark.usefixtures("afresh")
def test_a_broken_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "FILE_NAME", "library.py")
    with pytest.warns(RuntimeWarning, match="library.py does not load"):
        assert "does not load" in str(library.unavailable())


@built
def test_the_fastest_level_is_taken_unless_one_is_asked_for() -> None:
    assert library.level() == os.environ.get(library.LEVEL_VARIABLE, library.levels()[-1])
    for level in library.levels():
        with library.use_level(level):
            assert library.level() == level


@built
@pytest.mark.usefixtures("afresh")
def test_an_impossible_level_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    slowest = library.levels()[0]
    with pytest.raises(ValueError, match="the level is 'mmx'"), library.use_level("mmx"):
        pass
    monkeypatch.setenv("COBRA_ISA", "mmx")
    with pytest.raises(ValueError, match=f"COBRA_ISA is 'mmx' but this machine runs {slowest}"):
        accepting("rms_norm", torch.device("cpu"), torch.float32)


@built
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("first", ["torch", "ctypes"])
def test_torch_and_the_library_share_one_openmp(first: str) -> None:
    path = library.load()._name
    script = f"""
import {first}
import ctypes, torch
ctypes.CDLL({path!r})
paths = {{line.split()[-1] for line in open("/proc/self/maps") if "omp" in line.rsplit("/", 1)[-1]}}
print(*paths)
"""
    if first == "ctypes":
        script = script.replace("import ctypes, torch\n", "import ctypes\n").replace(
            "paths =", "import torch\npaths ="
        )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert len(result.stdout.split()) == 1, f"two OpenMP runtimes compete for the cores: {result.stdout}"
