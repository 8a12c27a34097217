"""Linear layers for decoding, bound by reading their weights: in bf16, 8 bits or 4 bits. Inference only."""

import torch
from torch import Tensor

from cobra.kernels.checks import WORDS, check, check_matrix, check_rows, refuse_gradient
from cobra.kernels.dispatch import op
from cobra.kernels.quantize import W4_COLUMNS, W8_COLUMNS, check_group


@op
def linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias (..., N) in x's dtype; products and sums in fp32.

    Args:
        x: (..., K); meant for 1 to 8 rows, any number works.
        weight: (N, K) in bf16.
        bias: (N,).

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument, or a gradient is asked for.
    """
    _check_input(x, weight, bias)
    check_matrix("weight", weight)
    check("weight", weight, "N, K", (len(weight), x.shape[-1]), x, (torch.bfloat16,))
    check("bias", bias, "N", weight.shape[:1], x)


@op
def linear_w8(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias (..., N) in x's dtype, of a weight in 8 bits.

    On the CPU x is rounded to 16 bits: by at most 1 / 65278 of the largest among each 128 of its values. A
    row of x with a NaN or infinity gives NaN.

    Args:
        x: (..., K); meant for 1 to 8 rows, any number works.
        packed: (N, ceil(K / 4)) from `pack_w8`.
        scales: (N,) from `pack_w8`.
        bias: (N,).

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument, or a gradient is asked for.
    """
    _check_input(x, scales, bias)
    check_matrix("packed", packed)
    words = -(-x.shape[-1] // W8_COLUMNS)
    check("packed", packed, "N, ceil(K / 4)", (len(packed), words), x, WORDS)
    check("scales", scales, "N", packed.shape[:1], x)
    check("bias", bias, "N", packed.shape[:1], x)


@op
def linear_w4(x: Tensor, packed: Tensor, scales: Tensor, group: int, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias (..., N) in x's dtype, of a weight in 4 bits.

    On the CPU x is rounded to 16 bits: by at most 1 / 65278 of the largest value of each group. A row of x
    with a NaN or infinity gives NaN.

    Args:
        x: (..., K); meant for 1 to 8 rows, any number works.
        packed: (N, K / 8) from `pack_w4`.
        scales: (N, K / group) from `pack_w4`.
        group: columns that share a scale, as `pack_w4` was told: 32, 64 or 128.
        bias: (N,).

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument, or a gradient is asked for.
    """
    _check_input(x, scales, bias)
    check_matrix("packed", packed)
    check_group(group, x.shape[-1])
    check("packed", packed, "N, K / 8", (len(packed), x.shape[-1] // W4_COLUMNS), x, WORDS)
    check("scales", scales, "N, K / group", (len(packed), x.shape[-1] // group), x)
    check("bias", bias, "N", packed.shape[:1], x)


def _check_input(x: Tensor, *others: Tensor | None) -> None:
    check_rows("x", x)
    refuse_gradient(x, *others)
