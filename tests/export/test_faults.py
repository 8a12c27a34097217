"""Exports that something befalls, as commands: whole or as before, and told in one line."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cobra.export import targets
from cobra.export.manifest import MANIFEST, Contents, check_files
from cobra.export.targets import Target
from cobra.export.write import export_model

pytestmark = pytest.mark.faults

# a target that needs no packages; the model's name says when its process is killed
_MAIN = f"""
import os, signal, sys
from cobra.export import targets
targets.TARGETS["gguf"] = targets.Target(("f16",), "{__name__}:write", {{}})
import cobra.weights.saving as saving
plain, moves = os.replace, []
def replace(source, target):
    plain(source, target)
    moves.append(target)
    if sys.argv[2].endswith("moved") and len(moves) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
saving.os.replace = replace
from cobra.cli import main
main()
"""


def write(model: Path, quant: str, folder: Path) -> Contents:
    """The writer of a target."""
    (folder / "lm.bin").write_bytes(model.name.encode())
    if model.name == "written":
        os.kill(os.getpid(), signal.SIGKILL)
    if model.name == "slow":
        print("writes", flush=True)
        sys.stdin.read()
    return Contents()


def command(model: str, out: Path) -> list[str]:
    return [sys.executable, "-c", _MAIN, "export", model, "--target", "gguf", "--out", str(out)]


def export(model: str, out: Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(model, out), capture_output=True, text=True, cwd=cwd, env=_ENVIRONMENT)


_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize("when", ["written", "moved"])
def test_an_export_that_is_killed_leaves_the_one_before(when: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export("written", out).returncode == -signal.SIGKILL
    assert not out.exists()
    assert export("first", out).returncode == 0
    assert os.listdir(tmp_path) == ["out"], "what the killed one left is gone"
    assert export(when, out).returncode == -signal.SIGKILL
    if when == "written":
        assert check_files(out).model == "first"
    done = export("second", out)
    assert done.returncode == 0, done.stderr
    assert check_files(out).model == "second"
    assert os.listdir(tmp_path) == ["out"]


def test_what_was_moved_aside_comes_back_where_the_next_export_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export("first", out).returncode == 0
    assert export("moved", out).returncode == -signal.SIGKILL
    assert not out.exists()
    assert export("written", out).returncode == -signal.SIGKILL
    assert check_files(out).model == "first"


def test_two_exports_to_one_folder_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = subprocess.Popen(
        command("slow", out), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "writes\n"
    second = export("other", out)
    assert second.returncode == 1
    assert second.stderr.startswith(f"cobra export: another process exports to {out}: wait for it")
    # beside it there is room
    assert export("other", tmp_path / "beside").returncode == 0
    first.communicate("")
    assert first.returncode == 0
    assert check_files(out).model == "slow"
    assert sorted(os.listdir(tmp_path)) == ["beside", "out"]


def test_paths_are_those_of_the_working_directory(tmp_path: Path) -> None:
    done = export("model", Path("a/b"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert check_files(tmp_path / "a/b").model == "model"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["export", "m", "--target", "gguf", "--quant", "q9", "--out", "o"],
            "has no --quant q9: take one of",
        ),
        (["export", "m", "--target", "tflite", "--out", "o"], "invalid choice: 'tflite'"),
        (["export", "m", "--target", "gguf", "--out", "o"], r"pip install 'cobra-vlm[llama]'"),
        (["export", "run", "none", "--prompt", "a"], "none/manifest.json is missing: expected a folder"),
        (["export", "run", "old", "--prompt", "a"], "has format 1, this version of cobra reads 2"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / MANIFEST).write_text('{"format": 1}')
    # there is no llama.cpp, in the cache or installed
    settings = {**_ENVIRONMENT, "COBRA_CACHE": str(tmp_path / "cache")}
    code = "import sys; sys.modules['llama_cpp'] = None; from cobra.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, env=settings
    )
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "o").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for little."""
    (disk := tmp_path / "disk").mkdir()
    if os.geteuid():
        pytest.skip("mounting needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts nothing")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def write_much(model: Path, quant: str, folder: Path) -> Contents:
    """The writer of a target."""
    (folder / "lm.bin").write_bytes(bytes(10_000 if model.name == "small" else 100_000))
    return Contents()


def test_a_full_disk_keeps_the_export_before(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(("f16",), f"{__name__}:{write_much.__name__}", {})
    monkeypatch.setitem(targets.TARGETS, "much", target)
    export_model(small_disk / "small", "much", None, small_disk / "out")
    with pytest.raises(OSError, match="No space left on device"):
        export_model(small_disk / "large", "much", None, small_disk / "out")
    assert check_files(small_disk / "out").model == "small"
    assert os.listdir(small_disk) == ["out"]
