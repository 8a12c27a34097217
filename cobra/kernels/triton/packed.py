"""Weights of 8 and 4 bits as Triton kernels read them: `cobra.kernels.quantize` says how they are packed."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cobra.kernels.quantize import BLOCK_ROWS
from cobra.kernels.triton.launch import launch

# columns that a program unpacks, of 16 rows
_UNPACKED = 256


@triton.jit
def column(words, C: tl.constexpr, BITS: tl.constexpr):
    """Column C of the 32 / BITS of each word, fp32, times `lifted(C, BITS)`: it stays at its bits.

    There it is made the fraction of 2^23, from which that is subtracted: one instruction besides those that
    all columns of half a word share, and none that converts an integer, of which a GPU starts a quarter or
    half as many.
    """
    UNIT: tl.constexpr = lifted(C, BITS)
    SIGN: tl.constexpr = UNIT << (BITS - 1)
    half = words >> 16 if C % 2 else words
    fractions = (half & 0xFFFF) ^ (0x4B008888 if BITS == 4 else 0x4B008080)
    return (fractions & (0x4B000000 + 2 * SIGN - UNIT)).to(tl.float32, bitcast=True) - (8388608.0 + SIGN)


@triton.constexpr_function
def lifted(C: int, BITS: int) -> int:
    """The power of two by which `column` is too large."""
    return 1 << (BITS * (C // 2))


@triton.jit
def places(row, entry, entries, HEIGHT: tl.constexpr):
    """Where an entry (a word, a scale) of a row lies, of so many a row; HEIGHT rows lie side by side."""
    return (row // 16).to(tl.int64) * entries * 16 + entry * HEIGHT + row % 16


@triton.jit
def unpack_kernel(packed, scales, y, width, words, groups, BITS: tl.constexpr, GROUP: tl.constexpr,
                  HEIGHT: tl.constexpr, WORDS: tl.constexpr):  # fmt: skip
    """16 rows a program, some of their words: the weight in y's dtype."""
    row, word = tl.program_id(0) * 16 + tl.arange(0, 16)[:, None], tl.arange(0, WORDS)[None]
    word += tl.program_id(1) * WORDS
    inside = (row % 16 < HEIGHT) & (word < words)
    values = tl.load(packed + places(row, word, words, HEIGHT), mask=inside, other=0)
    at = places(row, word * (32 // BITS) // GROUP, groups, HEIGHT) if GROUP else row + 0 * word
    scale = tl.load(scales + at, mask=inside, other=0.0).to(tl.float32)
    # the last dimension that is joined is the innermost: columns 0 and 1 of a word, 0 and 2, 0 and 4
    even, odd = column(values, 0, BITS), column(values, 1, BITS)
    even_2, odd_2 = column(values, 2, BITS), column(values, 3, BITS)
    even_2, odd_2 = even_2 / lifted(2, BITS), odd_2 / lifted(2, BITS)
    if BITS == 4:
        even = tl.join(even, column(values, 4, BITS) / lifted(4, BITS))
        even_2 = tl.join(even_2, column(values, 6, BITS) / lifted(6, BITS))
        odd = tl.join(odd, column(values, 5, BITS) / lifted(5, BITS))
        odd_2 = tl.join(odd_2, column(values, 7, BITS) / lifted(7, BITS))
        scale = tl.join(scale, scale)
    even, odd, scale = tl.join(even, even_2), tl.join(odd, odd_2), tl.join(scale, scale)
    weight = tl.join(even * scale, odd * scale).reshape(16, WORDS * (32 // BITS))
    k = tl.program_id(1) * WORDS * (32 // BITS) + tl.arange(0, WORDS * (32 // BITS))[None]
    tl.store(y + row.to(tl.int64) * width + k, weight, mask=(row % 16 < HEIGHT) & (k < width))


def parts(count: int) -> list[tuple[slice, int]]:
    """Rows of a packed weight that lie alike, and how many of them side by side: 16, and those left over."""
    whole = count // BLOCK_ROWS * BLOCK_ROWS
    found = [(slice(0, whole), BLOCK_ROWS), (slice(whole, count), count - whole)]
    return [(rows, height) for rows, height in found if rows.stop > rows.start]


def unpack(packed: Tensor, scales: Tensor, group: int, bits: int, width: int, dtype: torch.dtype) -> Tensor:
    """The weight (N, width) that a packed one stands for."""
    y, columns = packed.new_empty(len(packed), width, dtype=dtype), 32 // bits
    groups = width // group if group else 0
    for rows, height in parts(len(packed)):
        grid = (-(-(rows.stop - rows.start) // BLOCK_ROWS), -(-width // _UNPACKED))
        launch(
            unpack_kernel, grid, packed[rows], scales[rows], y[rows], width, packed.shape[1], groups,
            BITS=bits, GROUP=group, HEIGHT=height, WORDS=_UNPACKED // columns, num_warps=4,
        )  # fmt: skip
    return y
