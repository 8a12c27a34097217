"""Embeddings of few bits: rows of the weight, unpacked."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.quantize import unpack_rows_w4, unpack_rows_w8


def _rows(ids: Tensor, count: int) -> Tensor:
    """ids (R,), refused on the CPU as torch refuses them where one is no row."""
    return F.embedding(ids.flatten(), torch.arange(count, device=ids.device)[:, None]).flatten()


def embedding_bf16(ids: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a weight."""
    return F.embedding(ids, weight).to(dtype)


def embedding_w8(ids: Tensor, packed: Tensor, scales: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Rows of the weight that `pack_w8` packed."""
    rows = unpack_rows_w8(packed, scales, _rows(ids, len(packed)))
    return rows[:, :columns].to(dtype).reshape(*ids.shape, columns)


def embedding_w4(
    ids: Tensor, packed: Tensor, scales: Tensor, group: int, columns: int, dtype: torch.dtype
) -> Tensor:
    """Rows of the weight that `pack_w4` packed."""
    rows = unpack_rows_w4(packed, scales, group, _rows(ids, len(packed)))
    return rows[:, :columns].to(dtype).reshape(*ids.shape, columns)
