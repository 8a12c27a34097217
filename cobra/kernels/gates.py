"""Products with an activation."""

from torch import Tensor

from cobra.kernels.call import needs_gradient
from cobra.kernels.checks import check, check_rows
from cobra.kernels.dispatch import resolve


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up (..., D) in gate's dtype, computed in fp32 or fp64: SwiGLU (arXiv 2002.05202).

    Args:
        gate: (..., D).
        up: (..., D).

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_rows("gate", gate)
    check("up", up, "gate's shape", gate.shape, gate)
    gradient = needs_gradient(gate, up)
    return resolve("silu_mul", gate.device.type, gate.dtype, gradient=gradient)(gate, up)
