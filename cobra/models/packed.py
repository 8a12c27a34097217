"""Weights in bf16, 8 or 4 bits, and the modules that compute with them; gradients pass through to inputs."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.kernels import huge_pages
from cobra.kernels.call import needs_gradient
from cobra.kernels.ops import (
    embedding_bf16,
    embedding_w4,
    embedding_w8,
    linear_bf16,
    linear_w4,
    linear_w8,
    pack_w4,
    pack_w8,
    unpack_w4,
    unpack_w8,
)
from cobra.kernels.product_rates import bf16_speed
from cobra.kernels.quantize import BLOCK_ROWS

# Rows of activations in bf16 from which on torch's product is faster (measured on a CPU with AVX512-BF16).
_MANY_ROWS = 8
# Where fp32 is multiplied faster: rows from which on it pays to widen the weight, and how many of the
# weight's rows are widened together, so that they stay in cache.
_ROWS_TO_WIDEN, _WIDENED = 128, 512
# weights that are unpacked at a time for a gradient, in whole blocks of rows
_UNPACKED = 2**21


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
        """x (..., K) weight^T + bias (..., N) in x's dtype, without a gradient."""

    @abstractmethod
    def unpacked(self, rows: slice) -> Tensor:
        """Some rows (R, K) of the weight in fp32; a slice is of whole blocks of 16 rows, and the last."""

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (..., K) weight^T + bias (..., N) in x's dtype; x may ask for a gradient."""
        # without the function where it is not needed: a step calls this often
        return _Product.apply(x, self, bias) if needs_gradient(x) else self.product(x, bias)

    def transposed(self, dy: Tensor) -> Tensor:
        """dy (..., N) weight (..., K), the gradient of x, in dy's dtype; unpacked a few rows at a time."""
        rows = dy.reshape(-1, self.rows)
        dx = rows.new_zeros(len(rows), self.columns, dtype=torch.promote_types(dy.dtype, torch.float32))
        step = max(1, _UNPACKED // (BLOCK_ROWS * self.columns)) * BLOCK_ROWS
        for start in range(0, self.rows, step):
            part = slice(start, start + step)
            dx.addmm_(rows[:, part].to(dx.dtype), self.unpacked(part).to(dx.dtype))
        return dx.view(*dy.shape[:-1], self.columns).to(dy.dtype)

    @abstractmethod
    def embed(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows (..., K) of its weight."""


class _Product(torch.autograd.Function):
    """A product that keeps nothing for its gradient but the packed weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: PackedMatrix, bias: Tensor | None) -> Tensor:
        ctx.matrix = matrix
        return matrix.product(x, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return ctx.matrix.transposed(dy), None, None


class BF16Matrix(PackedMatrix):
    """A weight in bf16."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.rows, self.columns = weight.shape
        narrowed = huge_pages.zeros(tuple(weight.shape), torch.bfloat16, weight.device).copy_(weight.detach())
        self.register_buffer("weight", narrowed)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `PackedMatrix.product`."""
        if x.dtype != torch.bfloat16 or x.numel() < _MANY_ROWS * self.columns:
            return linear_bf16(x, self.weight, bias)
        many = x.device.type == "cpu" and x.numel() >= _ROWS_TO_WIDEN * self.columns
        if many and not torch.compiler.is_exporting() and _fp32_is_faster():
            return _linear_in_fp32(x, self.weight, bias)
        return F.linear(x, self.weight, None if bias is None else bias.to(x.dtype))

    def unpacked(self, rows: slice) -> Tensor:
        """See `PackedMatrix.unpacked`."""
        return self.weight[rows].float()

    def embed(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """See `PackedMatrix.embed`."""
        return embedding_bf16(ids, self.weight, dtype)


@torch.compiler.assume_constant_result
def _fp32_is_faster() -> bool:
    """Found out before a graph is compiled, not in it."""
    return bf16_speed() < 1


def _linear_in_fp32(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As F.linear of bf16, multiplied in fp32, a part of the weight at a time."""
    rows, y = x.float(), x.new_empty(*x.shape[:-1], len(weight))
    for start in range(0, len(weight), _WIDENED):
        part = slice(start, start + _WIDENED)
        y[..., part] = F.linear(rows, weight[part].float(), None if bias is None else bias[part].float())
    return y


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

    def unpacked(self, rows: slice) -> Tensor:
        """See `PackedMatrix.unpacked`."""
        return unpack_w8(self.packed[rows], self.scales[rows])[:, : self.columns]

    def embed(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """See `PackedMatrix.embed`."""
        return embedding_w8(ids, self.packed, self.scales, self.columns, dtype)


class Int4Matrix(PackedMatrix):
    """A weight in 4 bits, with a scale for each `group` columns of a row; zeros fill the last group up."""

    packed: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, group: int) -> None:
        super().__init__()
        self.rows, self.columns = weight.shape
        self.group, self.padding = group, -weight.shape[1] % group
        packed, scales = pack_w4(F.pad(weight, (0, self.padding)) if self.padding else weight, group)
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `PackedMatrix.product`."""
        x = F.pad(x, (0, self.padding)) if self.padding else x
        return linear_w4(x, self.packed, self.scales, self.group, bias)

    def unpacked(self, rows: slice) -> Tensor:
        """See `PackedMatrix.unpacked`."""
        return unpack_w4(self.packed[rows], self.scales[rows], self.group)[:, : self.columns]

    def embed(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """See `PackedMatrix.embed`."""
        return embedding_w4(ids, self.packed, self.scales, self.group, self.columns, dtype)


class PackedLinear(nn.Module):
    """As nn.Linear, in the dtype of its input."""

    bias: Tensor | None

    def __init__(self, matrix: PackedMatrix, bias: Tensor | None) -> None:
        super().__init__()
        self.in_features, self.out_features = matrix.columns, matrix.rows
        self.matrix = matrix
        self.register_buffer("bias", None if bias is None else bias.detach())

    @property
    def qweight(self) -> Tensor:
        """The packed weight, by the name under which peft looks for the device of an adapter."""
        return next(self.matrix.buffers())

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return self.matrix.linear(_as_autocast(x), self.bias)


class PackedEmbedding(nn.Module):
    """As nn.Embedding; `logits` is the head that shares its weight."""

    def __init__(self, matrix: PackedMatrix, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix = matrix
        # of no rows: it tells the dtype and the device of the embeddings
        self.weight = nn.Parameter(torch.empty(0, matrix.columns, dtype=dtype), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (...) to embeddings (..., K)."""
        return self.matrix.embed(ids, self.weight.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return self.matrix.linear(_as_autocast(hidden))


def _as_autocast(x: Tensor) -> Tensor:
    """As torch's linears, which compute in the dtype of autocast where it is on."""
    kind = x.device.type
    is_on = kind != "meta" and torch.is_autocast_enabled(kind)
    return x.to(torch.get_autocast_dtype(kind)) if is_on and x.dtype != torch.float64 else x
