"""Linear layers of few rows on the native kernels."""

from torch import Tensor

from cobra.kernels.cpu import OPERATORS
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.tensors import as_rows, native

_bf16 = Kernel("linear_bf16", arrays=5, sizes=4)
_w8 = Kernel("linear_w8", arrays=5, sizes=4)
_w4 = Kernel("linear_w4", arrays=5, sizes=4)


def _fake(x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _run(
    kernel: Kernel, x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None, group: int
) -> Tensor:
    y, rows = _fake(x, weight), as_rows(x)
    if y.numel():
        kernel((rows, weight, scales, native(bias), as_rows(y)), (*rows.shape, weight.shape[0], group))
    return y


@OPERATORS.register(_fake)
def linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype."""
    return _run(_bf16, x, weight, None, bias, 0)


@OPERATORS.register(_fake)
def linear_w8(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype, of the weight that `pack_w8` packed."""
    return _run(_w8, x, packed.contiguous(), native(scales), bias, 0)


@OPERATORS.register(_fake)
def linear_w4(x: Tensor, packed: Tensor, scales: Tensor, group: int, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype, of the weight that `pack_w4` packed."""
    return _run(_w4, x, packed.contiguous(), native(scales).contiguous(), bias, group)
