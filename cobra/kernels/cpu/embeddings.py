"""Embeddings of few bits on the native kernels."""

import torch
from torch import Tensor

from cobra.kernels.cpu import OPERATORS
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.tensors import as_rows, native

_bf16 = Kernel("embedding_bf16", arrays=4, sizes=5)
_w8 = Kernel("embedding_w8", arrays=4, sizes=5)
_w4 = Kernel("embedding_w4", arrays=4, sizes=5)


def _room(ids: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    return ids.new_empty((*ids.shape, columns), dtype=dtype)


def _run(
    kernel: Kernel, ids: Tensor, weight: Tensor, scales: Tensor | None, y: Tensor, words: int, group: int
) -> Tensor:
    rows = as_rows(y)
    if y.numel():
        kernel((ids.long().flatten(), weight, scales, rows), (*rows.shape, weight.shape[0], words, group))
    return y


@OPERATORS.register(lambda ids, weight, dtype: _room(ids, weight.shape[1], dtype))
def embedding_bf16(ids: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a weight."""
    return _run(_bf16, ids, weight, None, _room(ids, weight.shape[1], dtype), 0, 0)


@OPERATORS.register(lambda ids, packed, scales, columns, dtype: _room(ids, columns, dtype))
def embedding_w8(ids: Tensor, packed: Tensor, scales: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Rows of the weight that `pack_w8` packed."""
    y = _room(ids, columns, dtype)
    return _run(_w8, ids, packed.contiguous(), native(scales), y, packed.shape[1], 0)


@OPERATORS.register(lambda ids, packed, scales, group, columns, dtype: _room(ids, columns, dtype))
def embedding_w4(
    ids: Tensor, packed: Tensor, scales: Tensor, group: int, columns: int, dtype: torch.dtype
) -> Tensor:
    """Rows of the weight that `pack_w4` packed."""
    y = _room(ids, columns, dtype)
    return _run(_w4, ids, packed.contiguous(), native(scales).contiguous(), y, packed.shape[1], group)
