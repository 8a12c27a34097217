"""Linear layers of few rows on the native kernels; arguments as in `cobra.kernels.ops`."""

from torch import Tensor

from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import register
from cobra.kernels.cpu.tensors import as_rows, native

_bf16 = Kernel("linear_bf16", arrays=5, sizes=4)
_w8 = Kernel("linear_w8", arrays=5, sizes=4)
_w4 = Kernel("linear_w4", arrays=5, sizes=4)


def linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype."""
    return _linear_bf16(x, weight, native(bias))


def linear_w8(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype, of the weight that `pack_w8` packed."""
    return _linear_w8(x, packed, native(scales), native(bias))


def linear_w4(x: Tensor, packed: Tensor, scales: Tensor, group: int, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype, of the weight that `pack_w4` packed."""
    return _linear_w4(x, packed, native(scales), group, native(bias))


def _fake(x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _run(
    kernel: Kernel, x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None, group: int
) -> Tensor:
    y, rows = _fake(x, weight), as_rows(x)
    if y.numel():
        kernel((rows, weight, scales, bias, as_rows(y)), (*rows.shape, len(weight), group))
    return y


def _run_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _run(_bf16, x, weight, None, bias, 0)


def _run_w8(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    return _run(_w8, x, packed.contiguous(), scales, bias, 0)


def _run_w4(x: Tensor, packed: Tensor, scales: Tensor, group: int, bias: Tensor | None) -> Tensor:
    return _run(_w4, x, packed.contiguous(), scales.contiguous(), bias, group)


_linear_bf16 = register("linear_bf16(Tensor x, Tensor weight, Tensor? bias) -> Tensor", _run_bf16, _fake)
_linear_w8 = register(
    "linear_w8(Tensor x, Tensor packed, Tensor scales, Tensor? bias) -> Tensor", _run_w8, _fake
)
_linear_w4 = register(
    "linear_w4(Tensor x, Tensor packed, Tensor scales, int group, Tensor? bias) -> Tensor", _run_w4, _fake
)
