"""Activations in Triton: a part of a row a program."""

import triton
import triton.language as tl
from torch import Tensor

from cobra.kernels.triton import OPERATORS
from cobra.kernels.triton.formulas import sigmoid, silu
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.tensors import as_rows, like_first

_BLOCK = 1024


@triton.jit
def silu_mul_kernel(gate, up, y, gate_stride, up_stride, width, BLOCK: tl.constexpr):
    """A part of a row a program."""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    g = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, silu(g) * u, mask=inside)


@triton.jit
def gelu_tanh_kernel(x, y, x_stride, width, BLOCK: tl.constexpr):
    """(1 + tanh(a)) / 2 is the sigmoid of 2 a."""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    # 2 sqrt(2 / pi)
    turned = 1.5957691216057308 * (value + 0.044715 * value * value * value)
    tl.store(y + row * width + column, value * sigmoid(turned), mask=inside)


@OPERATORS.register(like_first)
def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up in gate's dtype."""
    y, gates, ups, width = gate.new_empty(gate.shape), as_rows(gate), as_rows(up), gate.shape[-1]
    grid = (len(gates), -(-width // _BLOCK))
    launch(silu_mul_kernel, grid, gates, ups, y, gates.stride(0), ups.stride(0), width, BLOCK=_BLOCK)
    return y


@OPERATORS.register(like_first)
def gelu_tanh(x: Tensor) -> Tensor:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 in x's dtype."""
    y, rows, width = x.new_empty(x.shape), as_rows(x), x.shape[-1]
    launch(gelu_tanh_kernel, (len(rows), -(-width // _BLOCK)), rows, y, rows.stride(0), width, BLOCK=_BLOCK)
    return y
