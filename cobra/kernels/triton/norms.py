"""The norms in Triton: a row is a program's, and the weight's gradient is summed over blocks of rows."""

from typing import Any

import torch
import triton
from torch import Tensor

from cobra.kernels.reference.precision import residual_dtype
from cobra.kernels.triton import OPERATORS
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.norm_kernels import (
    add_layer_norm_kernel,
    rms_norm_backward_kernel,
    rms_norm_kernel,
    row_sums_kernel,
)
from cobra.kernels.triton.tensors import as_rows, like_first, row_strides

# programs of a backward pass at most, each with a row of sums: a few for each multiprocessor
_PROGRAMS = 512
# channels that a program holds in the backward pass; of wider groups it takes parts
_WIDEST = 8192
_PART = 2048


def _run_norm(
    x: Tensor,
    other: Tensor | None,
    weight: Tensor,
    eps: float,
    y: Tensor,
    total: Tensor | None = None,
    *,
    gate_size: int | None = None,
) -> None:
    """Norm of x plus `other`, or, where groups have `gate_size` channels, of x under the gate `other`."""
    rows, width, gates = as_rows(x), x.shape[-1], gate_size is not None
    size, beside = gate_size or width, as_rows(other)
    block, grid = triton.next_power_of_2(max(size, 1)), (len(rows), width // size if size else 0)
    launch(
        rms_norm_kernel, grid, rows, beside, weight.contiguous(), y, total,
        *row_strides(rows, beside), width, size, eps,
        ADDS=beside is not None and not gates, GATES=gates, KEEPS=total is not None, BLOCK=block,
        num_warps=_warps(block, 16),
    )  # fmt: skip


def _run_norm_backward(
    dy: Tensor,
    dtotal: Tensor | None,
    x: Tensor,
    z: Tensor | None,
    weight: Tensor,
    eps: float,
    group_size: int | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of what is normed, x or x under the gate z, of z and of the weight."""
    width, weight = x.shape[-1], weight.contiguous()
    dx, dz = x.new_empty(x.shape), None if z is None else z.new_empty(z.shape)
    of_y, of_total, rows, gate = as_rows(dy), as_rows(dtotal), as_rows(x), as_rows(z)
    size = group_size or width
    groups = width // size if size else 0
    whole = size <= _WIDEST
    block, sums = triton.next_power_of_2(max(size, 1)) if whole else _PART, None
    if not whole:
        sums = x.new_empty(len(rows), groups, 2, dtype=torch.float32)
        launch(
            row_sums_kernel, (len(rows), groups), of_y, rows, gate, weight, sums,
            *row_strides(of_y, rows, gate), size, eps,
            GATES=z is not None, BLOCK=block, num_warps=_warps(block, 8),
        )  # fmt: skip
    per_program = max(1, -(-len(rows) // _PROGRAMS))
    programs = -(-len(rows) // per_program)
    dweight = weight.new_empty(programs, width, dtype=torch.float32)
    launch(
        rms_norm_backward_kernel, (programs, groups * -(-size // block)), of_y, of_total, rows, gate, weight,
        sums, dx, dz, dweight, *row_strides(of_y, of_total, rows, gate), len(rows), width, size, eps,
        per_program, KEPT=dtotal is not None, GATES=z is not None, WHOLE=whole, BLOCK=block,
        num_warps=_warps(block, 8),
    )  # fmt: skip
    return dx, dz, dweight.sum(0)


def _warps(block: int, per_thread: int) -> int:
    """Warps for so many channels, so many a thread; 16 at most, so that a thread may have 128 registers."""
    return min(max(block // (32 * per_thread), 1), 16)


@OPERATORS.register(like_first)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in x's dtype."""
    y = x.new_empty(x.shape)
    _run_norm(x, None, weight, eps, y)
    return y


@OPERATORS.gradient(rms_norm, "y", of=("x", "weight"))
def rms_norm_backward(dy: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Gradients of x and the weight."""
    dx, _, dweight = _run_norm_backward(dy, None, x, None, weight, eps)
    return dx, dweight


def _sum_fake(x: Tensor, residual: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    *_, residual_in_fp32 = rest
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=residual_dtype(x, residual, residual_in_fp32))


@OPERATORS.register(_sum_fake)
def add_rms_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, residual_in_fp32: bool
) -> tuple[Tensor, Tensor]:
    """The norm of x + residual in x's dtype, and that sum in the residual's."""
    y, total = _sum_fake(x, residual, residual_in_fp32)
    _run_norm(x, residual, weight, eps, y, total)
    return y, total


@OPERATORS.gradient(add_rms_norm, "y total", of={"x": "total", "residual": "total", "weight": "weight"})
def add_rms_norm_backward(
    dy: Tensor | None, dtotal: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of either term and the weight."""
    if dy is None:
        dx = total.new_zeros(total.shape) if dtotal is None else total.new_empty(total.shape).copy_(dtotal)
        return dx, torch.zeros_like(weight)
    dx, _, dweight = _run_norm_backward(dy, dtotal, total, None, weight, eps)
    return dx, dweight


@OPERATORS.register(like_first)
def rms_norm_gated(x: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int | None) -> Tensor:
    """RMSNorm(x silu(z)) weight, each group of channels by itself."""
    y = x.new_empty(x.shape)
    _run_norm(x, z, weight, eps, y, gate_size=group_size or x.shape[-1])
    return y


@OPERATORS.gradient(rms_norm_gated, "y", of=("x", "z", "weight"))
def rms_norm_gated_backward(
    dy: Tensor, x: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, z and the weight."""
    dx, dz, dweight = _run_norm_backward(dy, None, x, z, weight, eps, group_size)
    assert dz is not None
    return dx, dz, dweight


@OPERATORS.register(_sum_fake)
def add_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    parallel: Tensor | None,
    residual_in_fp32: bool,
) -> tuple[Tensor, Tensor]:
    """LayerNorm(x + parallel + residual) in x's dtype, and that sum in the residual's."""
    y, total = _sum_fake(x, residual, residual_in_fp32)
    rows, beside, before = as_rows(x), as_rows(parallel), as_rows(residual)
    block = triton.next_power_of_2(max(x.shape[-1], 1))
    launch(
        add_layer_norm_kernel, (len(rows),), rows, beside, before, weight.contiguous(), bias.contiguous(),
        y, total, *row_strides(rows, beside, before), x.shape[-1], eps,
        PARALLEL=parallel is not None, ADDS=residual is not None, BLOCK=block, num_warps=_warps(block, 16),
    )  # fmt: skip
    return y, total
