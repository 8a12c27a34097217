"""Kernels compiled for GPUs that are not here, at the shapes of published models.

`python -m tests.kernels.compile_triton ARCH [OP ...]` prints a JSON list of what the compiler made of them,
in a process of its own: under TRITON_INTERPRET, which the other tests set, nothing is compiled.
"""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget

from cobra.kernels.dispatch import BACKENDS
from cobra.kernels.ops import OPS
from cobra.kernels.triton import INTERPRETED, OPERATORS
from tests.kernels.published_calls import CALLS

_TENSOR_CORE = ("mma.sync", "wgmma.mma_async", "tcgen05.mma")


@dataclass(frozen=True)
class Compiled:
    """A kernel of a target.

    Attributes:
        name: the kernel's.
        arch: compute capability, 90 for 9.0.
        shared: bytes of shared memory a block.
        registers: a thread.
        spilled: bytes of the stack a thread: registers that did not suffice.
        products: tensor-core instructions in its text.
        warps: of a block.
    """

    name: str
    arch: int
    shared: int
    registers: int
    spilled: int
    products: int
    warps: int


def run(op: str, inputs: dict[str, Any]) -> None:
    """Launch the kernels of an op, and those of its gradient where an input asks for one."""
    backend = next(backend for backend in BACKENDS if backend.name == "triton")
    function = backend.find(op)
    assert function is not None, op
    values = inspect.signature(OPS[op]).bind(**inputs)
    values.apply_defaults()
    results = function(*values.arguments.values())
    results = [x for x in (results if isinstance(results, tuple) else (results,)) if x is not None]
    leaves = [x for x in inputs.values() if isinstance(x, Tensor) and x.requires_grad]
    if leaves:
        torch.autograd.grad([x.sum() for x in results if x.requires_grad], leaves, allow_unused=True)


def compile_for(arch: int, calls: Callable[[], None]) -> list[Compiled]:
    """What kernels become for a compute capability that are launched by `calls`, on meta tensors.

    Raises:
        RuntimeError: in Triton's interpreter, which compiles nothing.
    """
    if INTERPRETED:
        raise RuntimeError("TRITON_INTERPRET is set, under which nothing is compiled: unset it")
    found: dict[str, Compiled] = {}

    def listen(*, src: Any, metadata: dict[str, Any], metadata_group: dict[str, str], **_: Any) -> None:
        files = {Path(path).suffix: Path(path) for path in metadata_group.values()}
        if ".cubin" in files and metadata["hash"] not in found:
            found[metadata["hash"]] = _read(metadata, files)

    with _driver(arch), _listening(listen), _RunningOnMeta():
        calls()
    return list(found.values())


def _read(metadata: dict[str, Any], files: dict[str, Path]) -> Compiled:
    text = files[".ptx"].read_text()
    tool = triton.knobs.nvidia.cuobjdump.path
    usage = subprocess.run(
        [tool, "--dump-resource-usage", str(files[".cubin"])], capture_output=True, text=True, check=True
    ).stdout
    fields = dict(
        part.split(":", 1)
        for line in usage.splitlines()
        if "REG:" in line
        for part in line.split()
        if ":" in part
    )
    return Compiled(
        metadata["name"],
        metadata["target"].arch,
        metadata["shared"],
        int(fields["REG"]),
        int(fields["STACK"]),
        sum(text.count(instruction) for instruction in _TENSOR_CORE),
        metadata["num_warps"],
    )


class _Driver:
    """A GPU to Triton that can only be compiled for."""

    def __init__(self, arch: int) -> None:
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        # Triton keeps what it compiled by device
        return int(self.target.arch)

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def _driver(arch: int) -> Iterator[None]:
    config = triton.runtime.driver
    before, config._active = config._active, _Driver(arch)
    try:
        yield
    finally:
        config._active = before


@contextmanager
def _listening(listen: Callable[..., None]) -> Iterator[None]:
    before, triton.knobs.compilation.listener = triton.knobs.compilation.listener, listen
    try:
        yield
    finally:
        triton.knobs.compilation.listener = before


class _RunningOnMeta(TorchDispatchMode):
    """Runs what launches kernels on meta tensors, too, where an operator would only make empty results."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operator = OPERATORS.function(func)
        if operator is None:
            return func(*args, **(kwargs or {}))
        with self:
            return operator(*args)


def main(arch: str, *only: str) -> None:
    """Print what the kernels of all ops, or of some, are for a compute capability."""
    cases = [case for case in CALLS if not only or case[0] in only]
    assert cases, only

    def calls() -> None:
        for case in cases:
            run(*case)

    compiled = compile_for(int(arch), calls)
    print(json.dumps([asdict(kernel) for kernel in compiled], indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
