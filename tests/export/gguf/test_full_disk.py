"""A disk that is full while llama.cpp quantises."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cobra.data.chat import Chat
from cobra.export.write import export_model
from cobra.pretrained import save_pretrained
from tests.export.gguf.exported import NO_LLAMA, TOKENIZER, model

pytestmark = [pytest.mark.export, pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_pretrained(model(), Chat(TOKENIZER), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def disk(saved: Path, tmp_path: Path) -> Iterator[Path]:
    """With room for the tokenizer, the exact weights, and half of the quantised ones."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    export_model(saved, "gguf", "q8_0", tmp_path / "q8_0")
    export_model(saved, "gguf", "f32", tmp_path / "f32")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "f32").iterdir()}
    room = sizes["lm.gguf"] + sum(size for name, size in sizes.items() if name.startswith(("t", "ch")))
    room += (tmp_path / "q8_0/lm.gguf").stat().st_size // 2
    (found := tmp_path / "disk").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={room}", "none", str(found)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine mounts nothing")
    yield found
    subprocess.run(["umount", "-l", found], check=True)


def test_it_is_told_and_nothing_is_left(saved: Path, disk: Path) -> None:
    with pytest.raises(OSError, match=r"llama\.cpp could not write lm\.gguf .* MB are free, make room"):
        export_model(saved, "gguf", "q8_0", disk / "out")
    assert not os.listdir(disk)
