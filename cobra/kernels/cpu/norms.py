"""The norms on the native kernels; arguments as in `cobra.kernels.ops`."""

from typing import Any

import torch
from torch import Tensor

from cobra.kernels.call import NO_GRADIENT, limited
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import differentiate, refuse_second_derivative, register
from cobra.kernels.cpu.tensors import as_rows, native, native_dtype
from cobra.kernels.reference.precision import residual_dtype

_norm = Kernel("rms_norm", arrays=7, sizes=3, reals=1)
_norm_backward = Kernel("rms_norm_backward", arrays=7, sizes=3, reals=1)
_layer = Kernel("add_layer_norm", arrays=7, sizes=2, reals=1)
_gated = Kernel("rms_norm_gated", arrays=7, sizes=4, reals=1)
_gated_backward = Kernel("rms_norm_gated_backward", arrays=7, sizes=4, reals=1)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in x's dtype."""
    return _rms_norm(x, native(weight), eps)


def add_rms_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, residual_in_fp32: bool
) -> tuple[Tensor, Tensor]:
    """The norm of x + residual in x's dtype, and that sum in the residual's."""
    kept = residual_dtype(x, residual, residual_in_fp32)
    normed, total = _add_rms_norm(x, native(residual), native(weight), eps, native_dtype(kept))
    return normed, total.to(kept)


def rms_norm_gated(
    x: Tensor,
    z: Tensor,
    weight: Tensor,
    eps: float,
    group_size: int | None,
) -> Tensor:
    """RMSNorm(x silu(z)) weight, each group of channels by itself."""
    return _rms_norm_gated(x, native(z), native(weight), eps, group_size or x.shape[-1])


@limited(NO_GRADIENT)
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
    kept = residual_dtype(x, residual, residual_in_fp32)
    terms = native(residual), native(weight), native(bias), native(parallel)
    normed, total = _add_layer_norm(x, *terms, eps, native_dtype(kept))
    return normed, total.to(kept)


def _block(rows: int) -> int:
    """Rows that share a sum of the weight's gradient: set by the shape alone, whatever the threads."""
    return max(32, -(-rows // 64))


def _row_sums(rows: int, weight: Tensor) -> Tensor:
    return weight.new_empty(-(-rows // _block(rows)), weight.shape[0], dtype=torch.float32)


def _run_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, y: Tensor, total: Tensor | None
) -> None:
    rows = as_rows(x)
    residual_rows, total_rows = (None if m is None else as_rows(m) for m in (residual, total))
    arrays = (rows, residual_rows, weight, as_rows(y), total_rows, None, None)
    if x.numel():
        _norm(arrays, (*rows.shape, _block(len(rows))), eps)


def _run_norm_backward(
    dy: Tensor, dtotal: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    rows, dx = as_rows(total), torch.empty_like(total, memory_format=torch.contiguous_format)
    sums = _row_sums(len(rows), weight)
    dtotal_rows = None if dtotal is None else as_rows(dtotal)
    arrays = (rows, None, weight, as_rows(dy), dtotal_rows, as_rows(dx), sums)
    if total.numel():
        _norm_backward(arrays, (*rows.shape, _block(len(rows))), eps)
    return dx, sums.sum(0).to(weight.dtype)


# ---- rms_norm


def _rms_norm_run(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    y = _rms_norm_fake(x, weight, eps)
    _run_norm(x, None, weight, eps, y, None)
    return y


def _rms_norm_fake(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


def _rms_norm_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


def _rms_norm_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    return *_rms_norm_backward(dy, None, x, weight, ctx.eps), None


_rms_norm = register("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor", _rms_norm_run, _rms_norm_fake)
_rms_norm_backward = register(
    "rms_norm_backward(Tensor dy, Tensor? dtotal, Tensor total, Tensor weight, float eps)"
    " -> (Tensor, Tensor)",
    _run_norm_backward,
    lambda dy, dtotal, total, weight, eps: (total.new_empty(total.shape), torch.empty_like(weight)),
)
refuse_second_derivative(_rms_norm_backward)
differentiate(_rms_norm, _rms_norm_gradients, _rms_norm_setup)


# ---- add_rms_norm


def _add_rms_norm_run(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, kept: torch.dtype
) -> tuple[Tensor, Tensor]:
    y, total = _add_rms_norm_fake(x, residual, weight, eps, kept)
    _run_norm(x, residual, weight, eps, y, total)
    return y, total


def _add_rms_norm_fake(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, kept: torch.dtype
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=kept)


def _add_rms_norm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, residual, weight, ctx.eps, _ = inputs
    ctx.dtypes = x.dtype, None if residual is None else residual.dtype
    ctx.save_for_backward(output[1], weight)


def _add_rms_norm_gradients(ctx: Any, dy: Tensor, dtotal: Tensor | None) -> tuple[Tensor | None, ...]:
    total, weight = ctx.saved_tensors
    dx, dweight = _rms_norm_backward(dy, dtotal, total, weight, ctx.eps)
    x_dtype, residual_dtype = ctx.dtypes
    return dx.to(x_dtype), None if residual_dtype is None else dx.to(residual_dtype), dweight, None, None


_add_rms_norm = register(
    "add_rms_norm(Tensor x, Tensor? residual, Tensor weight, float eps, ScalarType kept) -> (Tensor, Tensor)",
    _add_rms_norm_run,
    _add_rms_norm_fake,
)
differentiate(_add_rms_norm, _add_rms_norm_gradients, _add_rms_norm_setup)


# ---- rms_norm_gated


def _gated_run(x: Tensor, z: Tensor, weight: Tensor, eps: float, group: int) -> Tensor:
    y, rows = x.new_empty(x.shape), as_rows(x)
    arrays = (rows, as_rows(z), weight, as_rows(y), None, None, None)
    if x.numel():
        _gated(arrays, (*rows.shape, group, _block(len(rows))), eps)
    return y


def _gated_backward_run(
    dy: Tensor, x: Tensor, z: Tensor, weight: Tensor, eps: float, group: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows, dx, dz = as_rows(x), x.new_empty(x.shape), z.new_empty(z.shape)
    sums = _row_sums(len(rows), weight)
    arrays = (rows, as_rows(z), weight, as_rows(dy), as_rows(dx), as_rows(dz), sums)
    if x.numel():
        _gated_backward(arrays, (*rows.shape, group, _block(len(rows))), eps)
    return dx, dz, sums.sum(0).to(weight.dtype)


def _gated_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, z, weight, *ctx.options = inputs
    ctx.save_for_backward(x, z, weight)


def _gated_gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return *_rms_norm_gated_backward(dy, *ctx.saved_tensors, *ctx.options), None, None


_rms_norm_gated = register(
    "rms_norm_gated(Tensor x, Tensor z, Tensor weight, float eps, int group) -> Tensor",
    _gated_run,
    lambda x, z, weight, eps, group: x.new_empty(x.shape),
)
_rms_norm_gated_backward = register(
    "rms_norm_gated_backward(Tensor dy, Tensor x, Tensor z, Tensor weight, float eps, int group)"
    " -> (Tensor, Tensor, Tensor)",
    _gated_backward_run,
    lambda dy, x, z, weight, *_: (x.new_empty(x.shape), z.new_empty(z.shape), torch.empty_like(weight)),
)
refuse_second_derivative(_rms_norm_gated_backward)
differentiate(_rms_norm_gated, _gated_gradients, _gated_setup)


# ---- add_layer_norm


def _layer_norm_run(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    parallel: Tensor | None,
    eps: float,
    kept: torch.dtype,
) -> tuple[Tensor, Tensor]:
    y, total, rows = x.new_empty(x.shape), x.new_empty(x.shape, dtype=kept), as_rows(x)
    parallel_rows, residual_rows = (None if m is None else as_rows(m) for m in (parallel, residual))
    if x.numel():
        arrays = (rows, parallel_rows, residual_rows, weight, bias, as_rows(y), as_rows(total))
        _layer(arrays, rows.shape, eps)
    return y, total


_add_layer_norm = register(
    "add_layer_norm(Tensor x, Tensor? residual, Tensor weight, Tensor bias, Tensor? parallel, float eps,"
    " ScalarType kept) -> (Tensor, Tensor)",
    _layer_norm_run,
    lambda x, residual, weight, bias, parallel, eps, kept: (
        x.new_empty(x.shape),
        x.new_empty(x.shape, dtype=kept),
    ),
)
