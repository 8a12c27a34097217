"""Functions of numbers for the kernels, in fp32."""

import triton
import triton.language as tl

from cobra.kernels.triton import INTERPRETED

# it has no products of bf16
_INTERPRETED = tl.constexpr(INTERPRETED)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def silu(x):
    """x sigmoid(x)."""
    return x * sigmoid(x)


@triton.jit
def softplus(x):
    """log(1 + exp(x)), x itself above 20. The quotient is 1, but for what rounding 1 + exp(x) loses."""
    e = tl.exp(tl.where(x > 20.0, 0.0, x))
    u = 1.0 + e
    small = tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
    return tl.where(x > 20.0, x, small)


@triton.jit
def product(a, b, total):
    """a b + total, on tensor cores if both are of one half precision, else in fp32."""
    if _INTERPRETED or a.dtype.primitive_bitwidth != 16 or a.dtype != b.dtype:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")
