"""A disk that is full, before a file is written or while llama.cpp quantises."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cobra.data.chat import Chat
from cobra.export.gguf import progress
from cobra.export.gguf.file import Weight
from cobra.export.write import export_model
from cobra.pretrained import save_pretrained
from cobra.weights.tensors import Stored
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


def test_room_for_small_files_is_told_in_numbers_that_say_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_500_000))
    weight = Weight(Stored(torch.Size([700, 1000]), torch.float32, lambda: torch.zeros(700, 1000)))
    with pytest.raises(OSError, match=r"lm\.gguf needs 2\.8 MB, 1\.5 MB are free: make room"):
        progress.write_shown(tmp_path / "lm.gguf", {}, {"w": weight}, "language model")


def test_it_is_told_and_nothing_is_left(saved: Path, disk: Path) -> None:
    with pytest.raises(OSError, match=r"llama\.cpp could not write lm\.gguf .* MB are free, make room"):
        export_model(saved, "gguf", "q8_0", disk / "out")
    assert not os.listdir(disk)
