"""The one door to a Triton kernel: on the tensors' own device, and a failure to compile says how to go on."""

from subprocess import CalledProcessError
from typing import Any

import torch
import triton
from torch import Tensor
from triton.compiler.errors import CompilationError

from cobra.kernels.call import NoKernelError
from cobra.kernels.triton import INTERPRETED

# of what is shown of Triton's own message, in characters
_LONGEST = 500


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Run a kernel on the device of its first tensor; on the meta device it is compiled and not run.

    Args:
        kernel: under `triton.jit`, or `triton.autotune` over that.
        grid: programs in each of up to three dimensions; with none at all nothing runs.
        arguments: the kernel's, in order, the first of them a tensor.
        options: its constants by name, num_warps, num_stages.

    Raises:
        NoKernelError: if Triton cannot compile or start it, with the reason and the way back.
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
    # Triton fails in its own ways, and in those of the compilers and the driver that it calls
    except Exception as error:
        raise _failure(f"run {kernel.__name__} for {_shown(arguments, options)}", error) from error


def architecture() -> int:
    """Of an NVIDIA GPU, 90 for compute capability 9.0; 0 for all others and for the interpreter.

    Raises:
        NoKernelError: if Triton cannot reach the GPU, with the reason and the way back.
    """
    if INTERPRETED:
        return 0
    try:
        arch = triton.runtime.driver.active.get_current_target().arch
    except Exception as error:
        raise _failure("reach the GPU", error) from error
    return arch if isinstance(arch, int) else 0


def _failure(what: str, error: Exception) -> NoKernelError:
    """What is raised where Triton cannot do `what`: one line, and how to go on."""
    # an error in a kernel comes behind lines of its source
    text = error.error_message if isinstance(error, CompilationError) else None
    reason = " ".join((text or str(error)).split())[:_LONGEST]
    remedy = "COBRA_BACKEND=torch computes without Triton"
    if isinstance(error, CalledProcessError):
        remedy = f"install what its compiler misses (above; often python3-dev), or {remedy}"
    return NoKernelError(
        f"Triton {triton.__version__} cannot {what}: {type(error).__name__}: {reason}; {remedy}"
    )


def _shown(arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    """Shapes, numbers and constants of a call."""
    parts = [_argument(x) for x in arguments]
    return ", ".join([*parts, *(f"{name}={value}" for name, value in options.items())])


def _argument(x: Any) -> str:
    """A tensor's dtype and shape, not its data; of a tuple, all of its parts."""
    if isinstance(x, tuple):
        return f"({', '.join(map(_argument, x))})"
    return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}" if isinstance(x, Tensor) else str(x)
