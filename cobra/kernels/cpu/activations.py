"""Activations on the native kernels."""

from torch import Tensor

from cobra.kernels.cpu import OPERATORS
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.tensors import as_rows, like_first, native

_silu = Kernel("silu_mul", arrays=3, sizes=2)
_gelu = Kernel("gelu_tanh", arrays=2, sizes=2)


@OPERATORS.register(like_first)
def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up in gate's dtype."""
    y, rows = gate.new_empty(gate.shape), as_rows(gate)
    if y.numel():
        _silu((rows, as_rows(native(up)), as_rows(y)), rows.shape)
    return y


@OPERATORS.register(like_first)
def gelu_tanh(x: Tensor) -> Tensor:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 in x's dtype."""
    y, rows = x.new_empty(x.shape), as_rows(x)
    if y.numel():
        _gelu((rows, as_rows(y)), rows.shape)
    return y
