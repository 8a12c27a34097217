"""Products of matrices in fp32 by oneDNN, through the operator that torch's compiler calls."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear_by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias (..., N), as F.linear in fp32, without a gradient.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,).
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _operations(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


if HAS_ONEDNN:
    # else torch's FlopCounterMode takes it for free
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_operations)
