"""The norms by mamba_ssm's Triton kernels."""

import torch
from torch import Tensor

from cobra.kernels.call import Call, Function, Limit, limited

# a group of channels is a program's
_BYTES = 65536


def _narrow(call: Call) -> bool:
    shape = call.shape("x")
    return shape is not None and shape[-1] * call.dtype.itemsize <= _BYTES


NARROW = Limit(_narrow, "takes rows of at most 64 KiB")


@limited(NARROW)
def rms_norm(rms_norm_fn: Function, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, in x's dtype."""
    return rms_norm_fn(x, weight, None, eps=eps)


@limited(NARROW)
def add_rms_norm(
    rms_norm_fn: Function,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    eps: float,
    residual_in_fp32: bool,
) -> tuple[Tensor, Tensor]:
    """The norm of x + residual in x's dtype, and that sum in the residual's."""
    if residual is not None and residual_in_fp32:
        # there the sum has the dtype of the residual
        residual = residual.to(torch.promote_types(residual.dtype, torch.float32))
    return rms_norm_fn(
        x, weight, None, residual=residual, eps=eps, prenorm=True, residual_in_fp32=residual_in_fp32
    )


@limited(NARROW)
def rms_norm_gated(
    rmsnorm_fn: Function, x: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int | None
) -> Tensor:
    """RMSNorm(x silu(z)) weight, each group of channels by itself."""
    return rmsnorm_fn(x, weight, None, z=z, eps=eps, group_size=group_size, norm_before_gate=False)
