"""Small layers that language models and projectors are made of."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cobra.kernels.ops import add_rms_norm, rms_norm
from cobra.models.linear import linear


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        return rms_norm(x, self.weight, self.eps)

    def scale(self) -> tuple[Tensor, float]:
        """Weight (dim,) and epsilon."""
        return self.weight, self.eps

    def add(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Norm of x + residual, and that sum, in fp32 whatever the dtype of x; residual None is 0."""
        return add_rms_norm(x, residual, self.weight, self.eps, residual_in_fp32=True)


class TiedEmbedding(nn.Embedding):
    """An embedding whose weight is the head's, too."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., rows of the embedding)."""
        return linear(hidden, self.weight)


class DepthwiseConv1d(nn.Conv1d):
    """A convolution with a filter for each channel."""

    def filters(self) -> tuple[Tensor, Tensor | None]:
        """Weights (C, K) and biases (C,)."""
        return self.weight.squeeze(1), self.bias


def method(module: nn.Module, name: str) -> Callable[..., Any]:
    """A method that computes with a module's weights, or gives them, past its forward.

    Raises:
        ValueError: where the module is wrapped, e.g. by LoRA, and the wrapper would not act.
    """
    found = getattr(module, name, None)
    if found is None:
        wrapper = f"{type(module).__module__}.{type(module).__name__}"
        raise ValueError(f"a {wrapper} has no `{name}` and so would not act here: wrap linears only")
    return found
