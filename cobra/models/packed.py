"""Weights in bf16, 8 or 4 bits, and the modules that compute with them. Inference only."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.kernels.ops import linear_bf16, linear_w4, linear_w8, pack_w4, pack_w8, unpack_w4, unpack_w8
from cobra.kernels.quantise import BLOCK_ROWS, unpack_rows_w4, unpack_rows_w8

# For more rows of activations, unpacking the weight and one product cost less than the packed kernels.
FEW_ROWS = 32
# Elements of a weight that are unpacked at a time.
_BLOCK_ELEMENTS = 2**22


class PackedMatrix(nn.Module, ABC):
    """A weight (N, K) in few bits.

    Attributes:
        rows: N.
        columns: K.
    """

    rows: int
    columns: int

    @abstractmethod
    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x (..., K) weight^T + bias (..., N), for few rows of x."""

    @abstractmethod
    def dense(self, first: int, last: int, dtype: torch.dtype) -> Tensor:
        """The rows from `first`, a multiple of 16, to `last`, unpacked: (last - first, K)."""

    @abstractmethod
    def select(self, rows: Tensor) -> Tensor:
        """Single rows (R,), unpacked: (R, K)."""

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (..., K) weight^T + bias (..., N) in x's dtype."""
        if x.numel() <= FEW_ROWS * self.columns:
            return self.product(x, bias)
        y = x.new_empty(*x.shape[:-1], self.rows)
        block = max(1, _BLOCK_ELEMENTS // (BLOCK_ROWS * self.columns)) * BLOCK_ROWS
        for first in range(0, self.rows, block):
            last = min(first + block, self.rows)
            part = None if bias is None else bias[first:last].to(x.dtype)
            y[..., first:last] = F.linear(x, self.dense(first, last, x.dtype), part)
        return y


class BF16Matrix(PackedMatrix):
    """A weight in bf16."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.rows, self.columns = weight.shape
        self.register_buffer("weight", weight.detach().to(torch.bfloat16))

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `PackedMatrix.product`."""
        return linear_bf16(x, self.weight, bias)

    def dense(self, first: int, last: int, dtype: torch.dtype) -> Tensor:
        """See `PackedMatrix.dense`."""
        return self.weight[first:last].to(dtype)

    def select(self, rows: Tensor) -> Tensor:
        """See `PackedMatrix.select`."""
        return self.weight[rows]


class Int8Matrix(PackedMatrix):
    """A weight in 8 bits, with a scale for each row."""

    packed: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.rows, self.columns = weight.shape
        packed, scales = pack_w8(weight)
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `PackedMatrix.product`."""
        return linear_w8(x, self.packed, self.scales, bias)

    def dense(self, first: int, last: int, dtype: torch.dtype) -> Tensor:
        """See `PackedMatrix.dense`."""
        unpacked = unpack_w8(self.packed[first:last], self.scales[first:last])
        return unpacked[:, : self.columns].to(dtype)

    def select(self, rows: Tensor) -> Tensor:
        """See `PackedMatrix.select`."""
        return unpack_rows_w8(self.packed, self.scales, rows)[:, : self.columns]


class Int4Matrix(PackedMatrix):
    """A weight in 4 bits, with a scale for each `group` columns of a row; zeros fill the last group up."""

    packed: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, group: int) -> None:
        super().__init__()
        self.rows, self.columns = weight.shape
        self.group, self.padding = group, -weight.shape[1] % group
        packed, scales = pack_w4(F.pad(weight, (0, self.padding)), group)
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `PackedMatrix.product`."""
        x = F.pad(x, (0, self.padding)) if self.padding else x
        return linear_w4(x, self.packed, self.scales, self.group, bias)

    def dense(self, first: int, last: int, dtype: torch.dtype) -> Tensor:
        """See `PackedMatrix.dense`."""
        unpacked = unpack_w4(self.packed[first:last], self.scales[first:last], self.group)
        return unpacked[:, : self.columns].to(dtype)

    def select(self, rows: Tensor) -> Tensor:
        """See `PackedMatrix.select`."""
        return unpack_rows_w4(self.packed, self.scales, self.group, rows)[:, : self.columns]


class PackedLinear(nn.Module):
    """As nn.Linear, in the dtype of its input."""

    bias: Tensor | None

    def __init__(self, matrix: PackedMatrix, bias: Tensor | None) -> None:
        super().__init__()
        self.matrix = matrix
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return self.matrix.linear(x, self.bias)


class PackedEmbedding(nn.Module):
    """As nn.Embedding; `logits` is the head that shares its weight."""

    def __init__(self, matrix: PackedMatrix, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix = matrix
        # of no rows: it tells the dtype and the device of the embeddings
        self.weight = nn.Parameter(torch.empty(0, matrix.columns, dtype=dtype), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (...) to embeddings (..., K)."""
        return self.matrix.select(ids.flatten()).to(self.weight.dtype).view(*ids.shape, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return self.matrix.linear(hidden)
