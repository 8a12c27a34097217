"""Linear layers with weights of few bits: the weight as fp32, then a matrix product."""

import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.quantize import unpack_w4, unpack_w8
from cobra.kernels.reference.precision import accumulator, without_autocast


@without_autocast
def linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype."""
    dtype = accumulator(x)
    return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)).to(x.dtype)


def linear_w8(x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype, of the weight that `pack_w8` packed."""
    weight = unpack_w8(packed, scales.to(accumulator(x)))
    # packing rounded the columns up
    return linear_bf16(x, weight[:, : x.shape[-1]], bias)


def linear_w4(x: Tensor, packed: Tensor, scales: Tensor, group: int, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in x's dtype, of the weight that `pack_w4` packed."""
    return linear_bf16(x, unpack_w4(packed, scales.to(accumulator(x)), group), bias)
