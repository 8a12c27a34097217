"""Linear layers whose products in fp32 are as fast as the CPU allows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.kernels.call import needs_gradient
from cobra.kernels.onednn import linear_by_onednn
from cobra.kernels.product_rates import onednn_speed

# rows of x and multiplications from which on oneDNN is ahead for every shape that was tried, for all that a
# call takes it 12 µs besides
_ROWS, _PRODUCTS = 16, 2**21
# so that a busy machine does not change the choice: it is 1 or 2.2
_FASTER = 1.3
# subclasses, e.g. of packed or distributed weights, multiply in their own way
_PLAIN = (Tensor, nn.Parameter)


class Linear(nn.Linear):
    """`nn.Linear`, but see `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias (..., N), as F.linear; without a gradient in fp32 by the faster library of the CPU.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,).
    """
    if not torch.compiler.is_compiling() and _onednn_takes(x, weight, bias) and onednn_speed() > _FASTER:
        return linear_by_onednn(x, weight, bias)
    return F.linear(x, weight, bias)


def adopt_linears(module: nn.Module) -> None:
    """Make a module's linears, such as those that timm built, `Linear` in place."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = Linear


def _onednn_takes(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        x.device.type == "cpu"
        and type(x) in _PLAIN
        and type(weight) in _PLAIN
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= _ROWS * weight.shape[1]
        and x.numel() * weight.shape[0] >= _PRODUCTS
        and not torch.is_autocast_enabled("cpu")
        and not needs_gradient(x, weight, bias)
    )
