"""Small layers that language models and projectors are made of."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.kernels.ops import add_rms_norm, rms_norm


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        return rms_norm(x, self.weight, self.eps)

    def add(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Norm of x + residual, and that sum, in fp32 whatever the dtype of x; residual None is 0."""
        return add_rms_norm(x, residual, self.weight, self.eps, residual_in_fp32=True)


class TiedEmbedding(nn.Embedding):
    """An embedding whose weight is the head's, too."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., rows of the embedding)."""
        return F.linear(hidden, self.weight)


def bare(module: nn.Module, *kinds: type) -> Any:
    """The module, one of `kinds`, whose weights are used past its forward.

    Raises:
        ValueError: where it is wrapped, e.g. by LoRA: the wrapper would not act.
    """
    if not isinstance(module, kinds):
        wrapper, kind = type(module), kinds[0].__name__
        raise ValueError(
            f"a {wrapper.__module__}.{wrapper.__name__} around a {kind} would not act, since the weights are "
            "used past it: wrap linears only"
        )
    return module


def filters(conv1d: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight (C, K) and bias (C,) of a depthwise convolution, for kernels; errors as for `bare`."""
    conv = bare(conv1d, nn.Conv1d)
    return conv.weight.squeeze(1), conv.bias
