"""Embeddings of few bits: the weight as fp32, then its rows."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.quantise import unpack_rows_w4, unpack_rows_w8


def embedding_bf16(ids: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a weight."""
    return F.embedding(ids, weight).to(dtype)


def embedding_w8(ids: Tensor, packed: Tensor, scales: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """Rows of the weight that `pack_w8` packed."""
    rows = unpack_rows_w8(packed, scales, ids.flatten())
    return rows[:, :columns].to(dtype).reshape(*ids.shape, columns)


def embedding_w4(
    ids: Tensor, packed: Tensor, scales: Tensor, group: int, columns: int, dtype: torch.dtype
) -> Tensor:
    """Rows of the weight that `pack_w4` packed."""
    rows = unpack_rows_w4(packed, scales, group, ids.flatten())
    return rows[:, :columns].to(dtype).reshape(*ids.shape, columns)
