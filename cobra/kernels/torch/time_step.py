"""Gradients of what stands before and behind the recurrences: the time step, the skip and the gate."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.masks import blank


def time_step_backward(
    ddt: Tensor, raw: Tensor, bias: Tensor | None, softplus: bool, mask: Tensor | None
) -> Tensor:
    """The gradient of `raw`, and before its sum over tokens of the bias, from that of dt; as `time_step`."""
    if mask is not None:
        ddt = blank(ddt, mask)
    if not softplus:
        return ddt
    before = raw.to(ddt.dtype) if bias is None else raw.to(ddt.dtype) + bias.to(ddt.dtype)
    # softplus is the identity above 20
    return torch.ops.aten.softplus_backward(ddt, before, 1.0, 20.0)


def gate_backward(dy: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of y and z from that of y silu(z)."""
    z = z.to(y.dtype)
    return dy * F.silu(z), torch.ops.aten.silu_backward(dy * y, z)
