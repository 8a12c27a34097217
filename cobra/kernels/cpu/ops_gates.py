"""Products with an activation on the native kernels; arguments as in `cobra.kernels.ops`."""

from torch import Tensor

from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import register
from cobra.kernels.cpu.tensors import as_rows, native

_silu = Kernel("silu_mul", arrays=3, sizes=2)


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up in gate's dtype."""
    return _silu_mul(gate, native(up))


def _run(gate: Tensor, up: Tensor) -> Tensor:
    y, rows = gate.new_empty(gate.shape), as_rows(gate)
    if y.numel():
        _silu((rows, as_rows(up), as_rows(y)), rows.shape)
    return y


_silu_mul = register(
    "silu_mul(Tensor gate, Tensor up) -> Tensor", _run, lambda gate, up: gate.new_empty(gate.shape)
)
