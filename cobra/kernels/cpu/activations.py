"""Activations on the native kernels; arguments as in `cobra.kernels.ops`."""

from torch import Tensor

from cobra.kernels.call import NO_GRADIENT, limited
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import register
from cobra.kernels.cpu.tensors import as_rows, native

_silu = Kernel("silu_mul", arrays=3, sizes=2)
_gelu = Kernel("gelu_tanh", arrays=2, sizes=2)


@limited(NO_GRADIENT)
def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up in gate's dtype."""
    return _silu_mul(gate, native(up))


@limited(NO_GRADIENT)
def gelu_tanh(x: Tensor) -> Tensor:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 in x's dtype."""
    return _gelu_tanh(x)


def _run_silu(gate: Tensor, up: Tensor) -> Tensor:
    y, rows = gate.new_empty(gate.shape), as_rows(gate)
    if y.numel():
        _silu((rows, as_rows(up), as_rows(y)), rows.shape)
    return y


def _run_gelu(x: Tensor) -> Tensor:
    y, rows = x.new_empty(x.shape), as_rows(x)
    if y.numel():
        _gelu((rows, as_rows(y)), rows.shape)
    return y


_silu_mul = register(
    "silu_mul(Tensor gate, Tensor up) -> Tensor", _run_silu, lambda gate, up: gate.new_empty(gate.shape)
)
_gelu_tanh = register("gelu_tanh(Tensor x) -> Tensor", _run_gelu, lambda x: x.new_empty(x.shape))
