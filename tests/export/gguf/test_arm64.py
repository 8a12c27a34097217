"""cobra-run for 64-bit ARM, in an emulator: it says what it says here."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cobra.export.gguf.llama import ARM64
from cobra.export.gguf.native_library import program
from cobra.export.lacking import LackingError
from tests.export.gguf.exported import NO_LLAMA, export, model

pytestmark = [pytest.mark.export, pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)]

# the first has no dot products: what is built for plain armv8-a must not use them
CPUS = {"arm64": "cortex-a53", "arm64-v8.2": "cortex-a76"}
QUESTIONS = ("how many circles?", "which colour?")


def emulated(variant: str) -> list[str | Path]:
    qemu = next(filter(None, map(shutil.which, ("qemu-aarch64-static", "qemu-aarch64"))), None)
    if qemu is None:
        pytest.skip("qemu-aarch64-static is not on the PATH")
    try:
        return [qemu, "-cpu", CPUS[variant], program(variant)]
    except LackingError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("variant", ARM64)
@pytest.mark.parametrize("quant", ["f32", "f16"])
def test_the_answers_are_those_of_this_machine(variant: str, quant: str, tmp_path: Path) -> None:
    command = emulated(variant)
    out = export(model(), tmp_path, quant)
    noise = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "p.png")
    options: list[str | Path] = [
        out,
        "--image",
        tmp_path / "p.png",
        "--prompt",
        *QUESTIONS,
        "--max-new-tokens",
        "16",
        "--threads",
        "1",
    ]
    here = subprocess.run([program(), *options], capture_output=True, timeout=200, check=True)
    there = subprocess.run([*command, *options], capture_output=True, timeout=200, check=True)
    assert len(here.stdout) > 32
    assert there.stdout == here.stdout
