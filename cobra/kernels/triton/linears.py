"""Linear layers of few rows in Triton, bound by reading their weights. Activations are not rounded."""

from typing import Any

import torch
import torch.nn.functional as F
import triton.language as tl
from torch import Tensor

from cobra.kernels.quantize import W4_COLUMNS, W8_COLUMNS
from cobra.kernels.reference.precision import without_autocast
from cobra.kernels.triton import INTERPRETED, OPERATORS
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.linear_kernels import (
    add_parts_kernel,
    bf16_row_kernel,
    bf16_rows_kernel,
    packed_row_kernel,
    packed_rows_kernel,
)
from cobra.kernels.triton.packed import parts, unpack
from cobra.kernels.triton.tensors import as_rows

# rows of x for which a weight is unpacked as it is read; for more it is unpacked first, and torch multiplies
_FEW_ROWS = 16
# programs at least, where there are so many: two for each multiprocessor of an H100, or four small ones
_PROGRAMS, _SMALL_PROGRAMS = 256, 512
# of products: the weight's rows a program, columns and words a step
_ROWS, _COLUMNS, _WORDS = 64, 128, 32
_ADDED = 1024


def _fake(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


@OPERATORS.register(_fake)
def linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype."""
    rows, weight, y = as_rows(x), as_rows(weight), _fake(x, weight)
    count, width = weight.shape
    if len(rows) > _FEW_ROWS:
        return _many(x, weight.to(x.dtype), bias)
    if not y.numel():
        return y
    if len(rows) == 1:
        # 2 KiB of each row at a time, or 1 KiB, by programs of 4 KiB or more
        columns = 1024 if width >= 4096 else 512
        launch(
            bf16_row_kernel, (-(-count // 4),), rows, weight, bias, y, count, width, weight.stride(0),
            ROWS=4, COLUMNS=columns, num_warps=columns // 256,
        )  # fmt: skip
    else:
        pieces, each = _pieces(count, width, _COLUMNS)
        out = _room(rows, count, pieces, y)
        launch(
            bf16_rows_kernel, (-(-count // _ROWS), pieces), rows, weight, None if pieces > 1 else bias, out,
            len(rows), count, width, rows.stride(0), weight.stride(0), count, each,
            **_products(x, torch.promote_types(x.dtype, torch.bfloat16)),
            ROWS=_ROWS, COLUMNS=_COLUMNS, num_warps=4, num_stages=3,
        )  # fmt: skip
        _add(out, bias, y, pieces)
    return y


@OPERATORS.register(_fake)
def linear_w8(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype, of the weight that `pack_w8` packed."""
    return _packed(x, packed, scales, bias, 0, 32 // W8_COLUMNS)


@OPERATORS.register(_fake)
def linear_w4(x: Tensor, packed: Tensor, scales: Tensor, group: int, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype, of the weight that `pack_w4` packed."""
    return _packed(x, packed, scales, bias, group, 32 // W4_COLUMNS)


def _packed(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None, group: int, bits: int) -> Tensor:
    packed, scales, rows, y = packed.contiguous(), scales.contiguous(), as_rows(x), _fake(x, packed)
    (count, words), width = packed.shape, x.shape[-1]
    if len(rows) > _FEW_ROWS:
        return _many(x, unpack(packed, scales, group, bits, width, x.dtype), bias)
    if not y.numel():
        return y
    pieces, each = _pieces(count, words, _WORDS) if len(rows) > 1 else (1, words)
    out, added = _room(rows, count, pieces, y), None if pieces > 1 else bias
    for part, height in parts(count):
        some = part.stop - part.start
        arguments = packed[part], scales[part], None if added is None else added[part], out[..., part]
        format = {"BITS": bits, "GROUP": group, "HEIGHT": height}
        groups = scales.shape[1] if group else 0
        if len(rows) == 1:
            # eight rows at least, whole sectors of memory; with 1024 words a thread has eight at a time
            some_rows = 16 if count >= 16 * _SMALL_PROGRAMS else 8
            launch(
                packed_row_kernel, (-(-some // some_rows),), rows, *arguments, some, width, words, groups,
                **format, ROWS=some_rows, WORDS=1024 // some_rows, STAGES=3, num_warps=4,
            )  # fmt: skip
        else:
            launch(
                packed_rows_kernel, (-(-some // _ROWS), pieces), rows, *arguments, len(rows), some, width,
                rows.stride(0), count, words, groups, each, **format,
                **_products(x, x.dtype), ROWS=_ROWS, WORDS=_WORDS, num_warps=4, num_stages=3,
            )  # fmt: skip
    _add(out, bias, y, pieces)
    return y


def _pieces(count: int, width: int, step: int) -> tuple[int, int]:
    """Parts of so many columns or words, and how many a part has: where the weight has few rows, several."""
    wanted = -(-_PROGRAMS // -(-count // _ROWS))
    each = -(-width // (step * wanted)) * step
    return (-(-width // each), each) if each else (1, 0)


def _room(rows: Tensor, count: int, pieces: int, y: Tensor) -> Tensor:
    """Where kernels write: sums of parts in fp32, or y."""
    return rows.new_empty(pieces, len(rows), count, dtype=torch.float32) if pieces > 1 else y.view(-1, count)


def _add(out: Tensor, bias: Tensor | None, y: Tensor, pieces: int) -> None:
    if pieces > 1:
        size = y.numel()
        grid = (-(-size // _ADDED),)
        launch(add_parts_kernel, grid, out, bias, y, size, y.shape[-1], pieces, BLOCK=_ADDED, num_warps=4)


@without_autocast
def _many(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


def _products(x: Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """Of a kernel: the dtype that tensor cores multiply, which holds both factors, and how if it is fp32."""
    # TF32 holds bf16 and fp16 as they are; of fp32 torch.set_float32_matmul_precision says what is left
    precisions = {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}
    precision = precisions[torch.get_float32_matmul_precision()] if x.dtype == torch.float32 else "tf32"
    # the interpreter multiplies no bf16
    kinds = {torch.float16: tl.float16, torch.bfloat16: tl.float32 if INTERPRETED else tl.bfloat16}
    return {"TYPE": kinds.get(dtype, tl.float32), "PRECISION": precision}
