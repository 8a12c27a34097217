"""The norms in Triton: a row is a program's, and the weight's gradient is summed over blocks of rows."""

from typing import Any

import torch
from torch import Tensor

import triton
import triton.language as tl
from cobra.kernels.reference.precision import residual_dtype
from cobra.kernels.triton import OPERATORS
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.tensors import as_rows


@triton.jit
def rms_norm_kernel(x, residual, weight, y, total, x_stride, residual_stride, width, eps,
                    ADDS: tl.constexpr, KEEPS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """A row a program: y, and the sum that is normed."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        value += tl.load(residual + row * residual_stride + column, mask=inside, other=0.0).to(tl.float32)
    if KEEPS:
        tl.store(total + row * width + column, value, mask=inside)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / width + eps)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, value * scale * w, mask=inside)


@triton.jit
def rms_norm_backward_kernel(dy, dtotal, total, weight, dx, dweight, dy_stride, dtotal_stride, total_stride,
                             rows, width, eps, per_program, NORMED: tl.constexpr, KEPT: tl.constexpr,
                             BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program: dx of each, and a row of the weight's gradient."""
    program, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside = column < width
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    sums = tl.zeros((BLOCK,), tl.float32)
    for row in range(program * per_program, tl.minimum((program + 1) * per_program, rows)):
        at = tl.cast(row, tl.int64)
        gradient = tl.zeros((BLOCK,), tl.float32)
        if NORMED:
            value = tl.load(total + at * total_stride + column, mask=inside, other=0.0).to(tl.float32)
            scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / width + eps)
            g = tl.load(dy + at * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
            normed = value * scale
            sums += g * normed
            gradient = scale * (g * w - normed * (tl.sum(g * w * normed, 0) / width))
        if KEPT:
            gradient += tl.load(dtotal + at * dtotal_stride + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + at * width + column, gradient, mask=inside)
    tl.store(dweight + program.to(tl.int64) * width + column, sums, mask=inside)


# programs of a backward pass at most, each with a row of sums: a few for each multiprocessor
_PROGRAMS = 512


def _run_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, y: Tensor, total: Tensor | None
) -> None:
    rows, width = as_rows(x), x.shape[-1]
    added = None if residual is None else as_rows(residual)
    strides = rows.stride(0), 0 if added is None else added.stride(0)
    block = triton.next_power_of_2(width)
    launch(
        rms_norm_kernel, (len(rows),), rows, added, weight.contiguous(), y, total, *strides, width, eps,
        ADDS=added is not None, KEEPS=total is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip


def _run_norm_backward(
    dy: Tensor | None, dtotal: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    rows, width, dx = as_rows(total), total.shape[-1], total.new_empty(total.shape)
    of_y, of_total = (None if d is None else as_rows(d) for d in (dy, dtotal))
    per_program = max(1, -(-len(rows) // _PROGRAMS))
    programs = -(-len(rows) // per_program)
    sums = weight.new_empty(programs, width, dtype=torch.float32)
    strides = [0 if d is None else d.stride(0) for d in (of_y, of_total, rows)]
    block = triton.next_power_of_2(width)
    launch(
        rms_norm_backward_kernel, (programs,), of_y, of_total, rows, weight.contiguous(), dx, sums, *strides,
        len(rows), width, eps, per_program,
        NORMED=dy is not None, KEPT=dtotal is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return dx, sums.sum(0)


def _warps(block: int) -> int:
    """Warps for a row of so many elements: 8 to 16 elements a thread."""
    return min(max(block // 512, 1), 16)


def _like_first(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@OPERATORS.register(_like_first)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in x's dtype."""
    y = x.new_empty(x.shape)
    _run_norm(x, None, weight, eps, y, None)
    return y


@OPERATORS.gradient(rms_norm, "y", of=("x", "weight"))
def rms_norm_backward(dy: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Gradients of x and the weight."""
    return _run_norm_backward(dy, None, x, weight, eps)


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
    return _run_norm_backward(dy, dtotal, total, weight, eps)
