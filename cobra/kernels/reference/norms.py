"""Root mean square norms: plain, after a residual sum, and with Mamba-2's gate; layer norm after a sum."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.precision import accumulator, residual_dtype


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in x's dtype."""
    dtype = accumulator(x)
    return (_normalize(x.to(dtype), eps) * weight.to(dtype)).to(x.dtype)


def add_rms_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, residual_in_fp32: bool
) -> tuple[Tensor, Tensor]:
    """The norm of x + residual in x's dtype, and that sum in the residual's."""
    dtype = accumulator(x)
    total = x.to(dtype) if residual is None else x.to(dtype) + residual.to(dtype)
    normed = _normalize(total, eps) * weight.to(dtype)
    return normed.to(x.dtype), total.to(residual_dtype(x, residual, residual_in_fp32))


def rms_norm_gated(
    x: Tensor,
    z: Tensor,
    weight: Tensor,
    eps: float,
    group_size: int | None,
) -> Tensor:
    """RMSNorm(x silu(z)) weight, each group of channels by itself."""
    dtype = accumulator(x)
    gated = x.to(dtype) * F.silu(z.to(dtype))
    groups = gated.unflatten(-1, (-1, group_size or x.shape[-1]))
    return (_normalize(groups, eps).flatten(-2) * weight.to(dtype)).to(x.dtype)


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
    dtype = accumulator(x)
    total = sum((term.to(dtype) for term in (parallel, residual) if term is not None), x.to(dtype))
    normed = F.layer_norm(total, weight.shape, weight.to(dtype), bias.to(dtype), eps)
    return normed.to(x.dtype), total.to(residual_dtype(x, residual, residual_in_fp32))


def _normalize(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
