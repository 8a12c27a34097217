"""Embeddings of few bits in Triton: a row is a program's. What is no row of the weight gives NaN."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cobra.kernels.quantize import W4_COLUMNS, W8_COLUMNS
from cobra.kernels.triton import OPERATORS
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.packed import column, lifted
from cobra.kernels.triton.tensors import as_rows


@triton.jit
def bf16_embedding_kernel(ids, weight, y, count, width, stride, COLUMNS: tl.constexpr):
    """COLUMNS columns of a row a program."""
    row, k = tl.load(ids + tl.program_id(0)).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    known = (row >= 0) & (row < count)
    value = tl.load(weight + row * stride + k, mask=known & (k < width), other=float("nan"))
    tl.store(y + tl.program_id(0).to(tl.int64) * width + k, value, mask=k < width)


@triton.jit
def packed_embedding_kernel(ids, packed, scales, y, count, width, words, groups,
                            BITS: tl.constexpr, GROUP: tl.constexpr, WORDS: tl.constexpr):  # fmt: skip
    """WORDS words of a row a program."""
    EACH: tl.constexpr = 32 // BITS
    row, word = tl.load(ids + tl.program_id(0)).to(tl.int64), tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    known, first = (row >= 0) & (row < count), row // 16 * 16
    # rows that lie side by side
    height = tl.minimum(count - first, 16)
    inside = known & (word < words)
    values = tl.load(packed + first * words + word * height + row - first, mask=inside, other=0)
    at = first * groups + word * EACH // GROUP * height + row - first if GROUP else row + 0 * word
    scale = tl.load(scales + at, mask=inside, other=float("nan")).to(tl.float32)
    for c in tl.static_range(EACH):
        k = word * EACH + c
        at_y = y + tl.program_id(0).to(tl.int64) * width + k
        tl.store(at_y, column(values, c, BITS) / lifted(c, BITS) * scale, mask=k < width)


_BLOCK = 1024


def _room(ids: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    return ids.new_empty((*ids.shape, columns), dtype=dtype)


@OPERATORS.register(lambda ids, weight, dtype: _room(ids, weight.shape[1], dtype))
def embedding_bf16(ids: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a weight."""
    y, weight = _room(ids, weight.shape[1], dtype), as_rows(weight)
    count, width = weight.shape
    grid = (ids.numel(), -(-width // _BLOCK))
    sizes = (count, width, weight.stride(0))
    launch(bf16_embedding_kernel, grid, ids.contiguous(), weight, y, *sizes, COLUMNS=_BLOCK, num_warps=4)
    return y


@OPERATORS.register(lambda ids, packed, scales, columns, dtype: _room(ids, columns, dtype))
def embedding_w8(ids: Tensor, packed: Tensor, scales: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Rows of the weight that `pack_w8` packed."""
    return _packed(ids, packed, scales, 0, columns, 32 // W8_COLUMNS, dtype)


@OPERATORS.register(lambda ids, packed, scales, group, columns, dtype: _room(ids, columns, dtype))
def embedding_w4(
    ids: Tensor, packed: Tensor, scales: Tensor, group: int, columns: int, dtype: torch.dtype
) -> Tensor:
    """Rows of the weight that `pack_w4` packed."""
    return _packed(ids, packed, scales, group, columns, 32 // W4_COLUMNS, dtype)


def _packed(
    ids: Tensor, packed: Tensor, scales: Tensor, group: int, columns: int, bits: int, dtype: torch.dtype
) -> Tensor:
    y = _room(ids, columns, dtype)
    tensors = (ids.contiguous(), packed.contiguous(), scales.contiguous(), y)
    sizes = (len(packed), columns, packed.shape[1], scales.shape[1] if group else 0)
    words = _BLOCK * bits // 32
    grid = (ids.numel(), -(-columns // _BLOCK))
    launch(packed_embedding_kernel, grid, *tensors, *sizes, BITS=bits, GROUP=group, WORDS=words, num_warps=4)
    return y
