"""Products with an activation."""

import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.precision import accumulator


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up in gate's dtype."""
    dtype = accumulator(gate)
    return (F.silu(gate.to(dtype)) * up.to(dtype)).to(gate.dtype)
