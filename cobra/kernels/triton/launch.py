"""The one door to a Triton kernel: on the tensors' own device, and a failure to compile says how to go on."""

from typing import Any

import torch
from torch import Tensor

import triton
from cobra.kernels.triton import INTERPRETED
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

_FAILURES = (CompilationError, OutOfResources, PTXASError)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Run a kernel on the device of its first tensor; on the meta device it is compiled and not run.

    Args:
        kernel: under `triton.jit`, or `triton.autotune` over that.
        grid: programs in each of up to three dimensions; with none at all nothing runs.
        arguments: the kernel's, in order, the first of them a tensor.
        options: its constants by name, num_warps, num_stages.

    Raises:
        RuntimeError: if Triton cannot compile it.
    """
    if 0 in grid:
        return
    device = arguments[0].device
    try:
        if device.type == "meta":
            kernel.warmup(*arguments, grid=grid, **options)
        elif INTERPRETED or device.index == torch.accelerator.current_device_index():
            kernel[grid](*arguments, **options)
        else:
            with torch.accelerator.device_index(device.index):
                kernel[grid](*arguments, **options)
    except _FAILURES as error:
        raise RuntimeError(
            f"Triton {triton.__version__} cannot compile {kernel.__name__} for {_shown(arguments, options)}: "
            f"{error}; COBRA_BACKEND=torch computes without Triton"
        ) from error


def architecture() -> int:
    """Of an NVIDIA GPU, 90 for compute capability 9.0; 0 for all others and for the interpreter."""
    if INTERPRETED:
        return 0
    arch = triton.runtime.driver.active.get_current_target().arch
    return arch if isinstance(arch, int) else 0


def _shown(arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    """Shapes, numbers and constants of a call."""
    parts = [
        f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}" if isinstance(x, Tensor) else str(x)
        for x in arguments
    ]
    return ", ".join([*parts, *(f"{name}={value}" for name, value in options.items())])
