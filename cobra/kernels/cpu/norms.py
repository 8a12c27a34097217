"""The norms on the native kernels."""

from typing import Any

import torch
from torch import Tensor

from cobra.kernels.cpu import OPERATORS
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.tensors import as_rows, like_first, native, native_dtype
from cobra.kernels.reference.precision import residual_dtype

_norm = Kernel("rms_norm", arrays=7, sizes=3, reals=1)
_norm_backward = Kernel("rms_norm_backward", arrays=7, sizes=3, reals=1)
_gated = Kernel("rms_norm_gated", arrays=7, sizes=4, reals=1)
_gated_backward = Kernel("rms_norm_gated_backward", arrays=7, sizes=4, reals=1)
_layer = Kernel("add_layer_norm", arrays=7, sizes=2, reals=1)


def _rows(x: Tensor | None) -> Tensor | None:
    return None if x is None else as_rows(native(x))


def _block(rows: Tensor) -> int:
    """Rows that share a sum of the weight's gradient: set by the shape alone, whatever the threads."""
    return max(32, -(-rows.shape[0] // 64))


def _row_sums(rows: Tensor, weight: Tensor) -> Tensor:
    return weight.new_empty(-(-rows.shape[0] // _block(rows)), weight.shape[0], dtype=torch.float32)


def _run_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, y: Tensor, total: Tensor | None
) -> None:
    rows = as_rows(x)
    arrays = (rows, _rows(residual), native(weight), as_rows(y), _rows(total), None, None)
    if x.numel():
        _norm(arrays, (*rows.shape, _block(rows)), eps)


def _run_norm_backward(
    dy: Tensor | None, dtotal: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    total = native(total)
    rows, dx = as_rows(total), total.new_empty(total.shape)
    dy = torch.zeros_like(dx) if dy is None else dy
    sums = _row_sums(rows, weight)
    arrays = (rows, None, native(weight), as_rows(dy), _rows(dtotal), as_rows(dx), sums)
    if total.numel():
        _norm_backward(arrays, (*rows.shape, _block(rows)), eps)
    return dx, sums.sum(0)


@OPERATORS.register(like_first)
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
    kept = residual_dtype(x, residual, residual_in_fp32)
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=kept)


@OPERATORS.register(_sum_fake)
def add_rms_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, residual_in_fp32: bool
) -> tuple[Tensor, Tensor]:
    """The norm of x + residual in x's dtype, and that sum in the residual's."""
    kept = residual_dtype(x, residual, residual_in_fp32)
    y, total = x.new_empty(x.shape), x.new_empty(x.shape, dtype=native_dtype(kept))
    _run_norm(x, residual, weight, eps, y, total)
    return y, total.to(kept)


@OPERATORS.gradient(add_rms_norm, "y total", of={"x": "total", "residual": "total", "weight": "weight"})
def add_rms_norm_backward(
    dy: Tensor | None, dtotal: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of either term and the weight."""
    return _run_norm_backward(dy, dtotal, total, weight, eps)


@OPERATORS.register(like_first)
def rms_norm_gated(x: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int | None) -> Tensor:
    """RMSNorm(x silu(z)) weight, each group of channels by itself."""
    y, rows = x.new_empty(x.shape), as_rows(x)
    arrays = (rows, _rows(z), native(weight), as_rows(y), None, None, None)
    if x.numel():
        _gated(arrays, (*rows.shape, group_size or x.shape[-1], _block(rows)), eps)
    return y


@OPERATORS.gradient(rms_norm_gated, "y", of=("x", "z", "weight"))
def rms_norm_gated_backward(
    dy: Tensor, x: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, z and the weight."""
    z, rows, dx = native(z), as_rows(x), x.new_empty(x.shape)
    dz = z.new_empty(z.shape)
    sums = _row_sums(rows, weight)
    arrays = (rows, as_rows(z), native(weight), as_rows(dy), as_rows(dx), as_rows(dz), sums)
    if x.numel():
        _gated_backward(arrays, (*rows.shape, group_size or x.shape[-1], _block(rows)), eps)
    return dx, dz, sums.sum(0)


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
    kept, rows = residual_dtype(x, residual, residual_in_fp32), as_rows(x)
    y, total = x.new_empty(x.shape), x.new_empty(x.shape, dtype=native_dtype(kept))
    if x.numel():
        terms = (rows, _rows(parallel), _rows(residual), native(weight), native(bias))
        _layer((*terms, as_rows(y), as_rows(total)), rows.shape, eps)
    return y, total.to(kept)
