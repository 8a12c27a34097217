"""Activations, alone and as the gate of a product."""

from torch import Tensor

from cobra.kernels.checks import check, check_rows
from cobra.kernels.dispatch import op


@op
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


@op
def gelu_tanh(x: Tensor) -> Tensor:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 (..., D) in x's dtype, computed in fp32 or fp64.

    Source: arXiv 1606.08415, section 2.

    Args:
        x: (..., D).

    Raises:
        ValueError: if x is not floating or has no dimensions.
    """
    check_rows("x", x)
