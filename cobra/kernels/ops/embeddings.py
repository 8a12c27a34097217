"""Embeddings whose weights are those of the linears for decoding: bf16, 8 bits or 4 bits. Inference only."""

import torch
from torch import Tensor

from cobra.kernels.checks import FLOATS, INTEGERS, WORDS, check, check_matrix, refuse_gradient
from cobra.kernels.dispatch import op
from cobra.kernels.quantize import W4_COLUMNS, W8_COLUMNS, check_group


@op(dtype_of="dtype")
def embedding_bf16(ids: Tensor, weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows (..., K) of a weight, in `dtype`.

    Args:
        ids: (...) integers, 0 to N - 1.
        weight: (N, K) in bf16.
        dtype: of the result.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument, or a gradient is asked for.
        IndexError: on the CPU, if an id is no row of the weight.
    """
    check_matrix("weight", weight)
    refuse_gradient(weight)
    check("weight", weight, "N, K", tuple(weight.shape), ids, (torch.bfloat16,))
    _check_ids(ids, dtype)


@op(dtype_of="dtype")
def embedding_w8(
    ids: Tensor, packed: Tensor, scales: Tensor, columns: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Rows (..., K) of a weight in 8 bits, in `dtype`.

    Args:
        ids: (...) integers, 0 to N - 1.
        packed: (N, ceil(K / 4)) from `pack_w8`.
        scales: (N,) from `pack_w8`.
        columns: K.
        dtype: of the result.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument, or a gradient is asked for.
        IndexError: on the CPU, if an id is no row of the weight.
    """
    refuse_gradient(scales)
    check_matrix("packed", packed)
    check("packed", packed, "N, ceil(K / 4)", (len(packed), -(-columns // W8_COLUMNS)), ids, WORDS)
    check("scales", scales, "N", packed.shape[:1], ids)
    _check_ids(ids, dtype)


@op(dtype_of="dtype")
def embedding_w4(
    ids: Tensor,
    packed: Tensor,
    scales: Tensor,
    group: int,
    columns: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Rows (..., K) of a weight in 4 bits, in `dtype`.

    Args:
        ids: (...) integers, 0 to N - 1.
        packed: (N, W / 8) from `pack_w4`.
        scales: (N, W / group) from `pack_w4`.
        group: columns that share a scale, as `pack_w4` was told: 32, 64 or 128.
        columns: K, the first of W.
        dtype: of the result.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument, or a gradient is asked for.
        IndexError: on the CPU, if an id is no row of the weight.
    """
    refuse_gradient(scales)
    check_matrix("packed", packed)
    width = W4_COLUMNS * packed.shape[1]
    if not 0 <= columns <= width:
        raise ValueError(f"columns {columns} must be 0 to {width}, the width of packed: pack wider rows")
    check_group(group, width)
    check("packed", packed, "N, W / 8", tuple(packed.shape), ids, WORDS)
    check("scales", scales, "N, W / group", (len(packed), width // group), ids)
    _check_ids(ids, dtype)


def _check_ids(ids: Tensor, dtype: torch.dtype) -> None:
    if ids.dtype not in INTEGERS:
        raise ValueError(f"ids is {ids.dtype} but must be int32 or int64: cast it with .long()")
    if dtype not in FLOATS:
        raise ValueError(f"dtype is {dtype} but must be floating: name one of {', '.join(map(str, FLOATS))}")
