"""Activations, alone and as the gate of a product."""

import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.precision import accumulator


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up in gate's dtype."""
    dtype = accumulator(gate)
    return (F.silu(gate.to(dtype)) * up.to(dtype)).to(gate.dtype)


def gelu_tanh(x: Tensor) -> Tensor:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 in x's dtype."""
    return F.gelu(x.to(accumulator(x)), approximate="tanh").to(x.dtype)
