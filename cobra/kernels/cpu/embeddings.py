"""Embeddings of few bits on the native kernels; arguments as in `cobra.kernels.ops`."""

import torch
from torch import Tensor

from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import register
from cobra.kernels.cpu.tensors import as_rows, native

_bf16 = Kernel("embedding_bf16", arrays=4, sizes=5)
_w8 = Kernel("embedding_w8", arrays=4, sizes=5)
_w4 = Kernel("embedding_w4", arrays=4, sizes=5)


def embedding_bf16(ids: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a weight."""
    return _embedding_bf16(ids.long(), weight, dtype)


def embedding_w8(ids: Tensor, packed: Tensor, scales: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Rows of the weight that `pack_w8` packed."""
    return _embedding_w8(ids.long(), packed, native(scales), columns, dtype)


def embedding_w4(
    ids: Tensor, packed: Tensor, scales: Tensor, group: int, columns: int, dtype: torch.dtype
) -> Tensor:
    """Rows of the weight that `pack_w4` packed."""
    return _embedding_w4(ids.long(), packed, native(scales), group, columns, dtype)


def _room(ids: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    return ids.new_empty((*ids.shape, columns), dtype=dtype)


def _run(
    kernel: Kernel, ids: Tensor, weight: Tensor, scales: Tensor | None, y: Tensor, words: int, group: int
) -> Tensor:
    rows = as_rows(y)
    if y.numel():
        kernel((ids.flatten(), weight, scales, rows), (*rows.shape, len(weight), words, group))
    return y


def _run_bf16(ids: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    return _run(_bf16, ids, weight, None, _room(ids, weight.shape[1], dtype), 0, 0)


def _run_w8(ids: Tensor, packed: Tensor, scales: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    return _run(_w8, ids, packed.contiguous(), scales, _room(ids, columns, dtype), packed.shape[1], 0)


def _run_w4(
    ids: Tensor, packed: Tensor, scales: Tensor, group: int, columns: int, dtype: torch.dtype
) -> Tensor:
    y = _room(ids, columns, dtype)
    return _run(_w4, ids, packed.contiguous(), scales.contiguous(), y, packed.shape[1], group)


_embedding_bf16 = register(
    "embedding_bf16(Tensor ids, Tensor weight, ScalarType dtype) -> Tensor",
    _run_bf16,
    lambda ids, weight, dtype: _room(ids, weight.shape[1], dtype),
)
_embedding_w8 = register(
    "embedding_w8(Tensor ids, Tensor packed, Tensor scales, int columns, ScalarType dtype) -> Tensor",
    _run_w8,
    lambda ids, packed, scales, columns, dtype: _room(ids, columns, dtype),
)
_embedding_w4 = register(
    "embedding_w4(Tensor ids, Tensor packed, Tensor scales, int group, int columns, ScalarType dtype) -> "
    "Tensor",
    _run_w4,
    lambda ids, packed, scales, group, columns, dtype: _room(ids, columns, dtype),
)
