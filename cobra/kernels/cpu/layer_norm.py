"""The layer norm on the native kernels; arguments as in `cobra.kernels.ops`."""

import torch
from torch import Tensor

from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import register
from cobra.kernels.cpu.tensors import as_rows, native, native_dtype
from cobra.kernels.reference.precision import residual_dtype

_norm = Kernel("add_layer_norm", arrays=7, sizes=2, reals=1)


def add_layer_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    parallel: Tensor | None = None,
    residual_in_fp32: bool = False,
) -> tuple[Tensor, Tensor]:
    """LayerNorm(x + parallel + residual) in x's dtype, and that sum in the residual's."""
    kept = residual_dtype(x, residual, residual_in_fp32)
    terms = native(residual), native(weight), native(bias), native(parallel)
    normed, total = _add_layer_norm(x, *terms, eps, native_dtype(kept))
    return normed, total.to(kept)


def _run(
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
        _norm(arrays, rows.shape, eps)
    return y, total


_add_layer_norm = register(
    "add_layer_norm(Tensor x, Tensor? residual, Tensor weight, Tensor bias, Tensor? parallel, float eps,"
    " ScalarType kept) -> (Tensor, Tensor)",
    _run,
    lambda x, residual, weight, bias, parallel, eps, kept: (
        x.new_empty(x.shape),
        x.new_empty(x.shape, dtype=kept),
    ),
)
