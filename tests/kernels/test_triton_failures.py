"""A Triton that cannot run a kernel says in one line which, for what, why, and the way back.

As a program, `python -m tests.kernels.test_triton_failures` compiles kernels that are wrong for compute
capability 9.0 and prints what is said: under TRITON_INTERPRET, which the tests set, nothing is compiled.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cobra.kernels import triton as backend

if reason := backend.unavailable():
    pytest.skip(reason, allow_module_level=True)

import triton
import triton.language as tl
from triton.runtime.build import compile_module_from_src
from triton.runtime.errors import OutOfResources

from cobra.kernels.triton.launch import launch

X = torch.empty(3, 5, device="meta", dtype=torch.bfloat16)
WAY_BACK = "COBRA_BACKEND=torch computes without Triton"


@triton.jit
def odd_block_kernel(x, N: tl.constexpr):  # type: ignore[no-untyped-def]
    tl.store(x + tl.arange(0, N), 0.0)


@triton.jit
def no_instruction_kernel(x, N: tl.constexpr):  # type: ignore[no-untyped-def]
    number = tl.arange(0, 8)
    tl.store(x + number, tl.inline_asm_elementwise("nonsense $0, $1;", "=r,r", [number], tl.int32, True, 1))


class Failing:
    """A kernel that comes to what `run` does."""

    __name__ = "failing_kernel"

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def warmup(self, *_: object, **__: object) -> None:
        self.run()


def said(kernel: object) -> str:
    with pytest.raises(RuntimeError) as raised:
        launch(kernel, (1,), X, N=5, num_warps=4)
    return str(raised.value)


def exhaust() -> None:
    raise OutOfResources(262144, 232448, "shared memory")


def build() -> None:
    compile_module_from_src(f"int a_source_that_no_cache_has_{os.getpid()};", "failing")


@pytest.mark.parametrize(
    ("run", "path", "reason"),
    [
        (exhaust, None, "OutOfResources: out of resource: shared memory, Required: 262144"),
        (build, "", "RuntimeError: Failed to find C compiler"),
        (build, "broken", "CalledProcessError: Command .*; install what its compiler misses"),
    ],
)
def test_what_triton_needs_and_has_not_is_named(
    run: Callable[[], object],
    path: str | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if path is not None:
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
        compiler = tmp_path / "gcc"
        compiler.write_text("#!/bin/sh\nexit 1\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path) if path else "")
    check(said(Failing(run)), "failing_kernel", reason)


def check(message: str, kernel: str, reason: str) -> None:
    assert "\n" not in message
    assert message.startswith(f"Triton {triton.__version__} cannot run {kernel} for bfloat16[3, 5], N=5")
    assert re.search(reason, message), message
    assert message.endswith(WAY_BACK)


def test_a_kernel_that_is_wrong_is_named() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.test_triton_failures"]
    result = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    odd, unknown, unreachable = json.loads(result.stdout.splitlines()[-1])
    check(odd, "odd_block_kernel", "CompilationError: .*power of 2")
    check(unknown, "no_instruction_kernel", "PTXASError: .*nonsense")
    if not torch.cuda.is_available():
        assert unreachable.startswith(f"Triton {triton.__version__} cannot reach the GPU: ")
        assert unreachable.endswith(WAY_BACK)


def main() -> None:
    from cobra.kernels.triton.launch import architecture
    from tests.kernels.compile_triton import _driver

    with _driver(90):
        messages = [said(odd_block_kernel), said(no_instruction_kernel)]
    try:
        messages.append(str(architecture()))
    except RuntimeError as error:
        messages.append(str(error))
    print(json.dumps(messages))


if __name__ == "__main__":
    main()
