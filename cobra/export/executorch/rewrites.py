"""Rewrites of small layers into operators that ExecuTorch's backends take: products, sums, exp, rsqrt.

A norm's mean is a linear with a constant weight, since a mean, a softplus or a layer norm would end the part
of a program that a backend runs in one go.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before timm)

import timm.layers  # isort: skip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.models.lm.layers import RMSNorm

# of the series of log(1 + e) behind its first: what the next would add is below fp32's precision
_TERMS = 7
# timm's computes the same
_LAYER_NORMS = (nn.LayerNorm, timm.layers.LayerNorm)


class MeanSquareNorm(nn.Module):
    """RMSNorm over the last dimension; see `kernels.reference.norms.rms_norm`.

    Args:
        weight: (D,) or, of groups that are normalized one by one, (G, D / G).
        eps: epsilon.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Buffer(weight.detach().float())
        self.mean = nn.Buffer(_mean(weight.shape[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """(..., *weight.shape) to the same."""
        return x * torch.rsqrt(F.linear(x * x, self.mean) + self.eps) * self.weight


class MeanLayerNorm(nn.Module):
    """Layer norm over the last dimension.

    Args:
        norm: the one whose weights it computes with.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        (dim,) = norm.normalized_shape
        self.eps = norm.eps
        self.weight = nn.Buffer(torch.ones(dim) if norm.weight is None else norm.weight.detach().float())
        self.bias = nn.Buffer(torch.zeros(dim) if norm.bias is None else norm.bias.detach().float())
        self.mean = nn.Buffer(_mean(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        centred = x - F.linear(x, self.mean)
        scale = torch.rsqrt(F.linear(centred * centred, self.mean) + self.eps)
        return centred * scale * self.weight + self.bias


class MeanGroupNorm(nn.Module):
    """Group norm of maps.

    Args:
        norm: the one whose weights it computes with.
        size: numbers in a group of a map, all pixels of its channels.
    """

    def __init__(self, norm: nn.GroupNorm, size: int) -> None:
        super().__init__()
        self.size = size
        ones = torch.ones(norm.num_channels)
        self.weight = nn.Buffer((ones if norm.weight is None else norm.weight.detach())[:, None, None])
        self.bias = nn.Buffer((0 * ones if norm.bias is None else norm.bias.detach())[:, None, None])
        plain = nn.LayerNorm(size, norm.eps, elementwise_affine=False)
        self.normalize = MeanLayerNorm(plain)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return self.normalize(x.reshape(-1, self.size)).reshape(x.shape) * self.weight + self.bias


def norm_form(norm: nn.Module) -> nn.Module:
    """A norm of a language model, rewritten; RMSNorm's of transformers have their weight and epsilon, too.

    Raises:
        ValueError: for another layer.
    """
    if isinstance(norm, nn.LayerNorm):
        return MeanLayerNorm(norm)
    if isinstance(norm, RMSNorm):
        return MeanSquareNorm(*norm.scale())
    weight, eps = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if weight is None or eps is None:
        raise ValueError(f"a {type(norm).__name__} is no norm that ExecuTorch's programs can hold")
    return MeanSquareNorm(weight, eps)


def with_rewritten_norms(module: nn.Module, *inputs: Tensor) -> nn.Module:
    """The same module, whose layer norms of one dimension and group norms are rewritten, in place.

    Args:
        module: what it computes stays the same.
        inputs: what it will be called with; a group norm has to know how large its groups are.
    """
    sizes: dict[nn.Module, int] = {}
    norms = [m for m in module.modules() if type(m) is nn.GroupNorm]
    watched = [norm.register_forward_pre_hook(_measured(sizes)) for norm in norms]
    if norms:
        with torch.no_grad():
            module(*inputs)
    for hook in watched:
        hook.remove()
    child: Any
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) in _LAYER_NORMS and len(child.normalized_shape) == 1:
                setattr(parent, name, MeanLayerNorm(child))
            elif child in sizes:
                setattr(parent, name, MeanGroupNorm(child, sizes[child]))
    return module


def _measured(sizes: dict[nn.Module, int]) -> Callable[..., None]:
    def measure(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        sizes[norm] = inputs[0][0].numel() // norm.num_groups

    return measure


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **options: Any
) -> Tensor:
    """`scaled_dot_product_attention` of encoders, over all keys and without what guards empty rows."""
    scale = options.get("scale") or query.shape[-1] ** -0.5
    if attn_mask is not None or any(args) or any(v for name, v in options.items() if name != "scale"):
        raise ValueError("ExecuTorch's programs have no attention of encoders with a mask, dropout or groups")
    q, k, v = (x.reshape(-1, *x.shape[-2:]) for x in (query, key, value))
    weights = F.softmax(torch.bmm(q * scale, k.permute(0, 2, 1)), dim=-1)
    return torch.bmm(weights, v).reshape(*query.shape[:-1], value.shape[-1])


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), to fp32's precision even where it is small, without a logarithm.

    With s = e / (2 + e) and e = exp(-|x|) <= 1, log(1 + e) = 2 (s + s^3 / 3 + s^5 / 5 + ...), s <= 1 / 3.
    """
    e = torch.exp(-torch.abs(x))
    s = e / (e + 2.0)
    square = s * s
    series = square * (1.0 / (2 * _TERMS + 1))
    for term in range(_TERMS - 1, 0, -1):
        series = (series + 1.0 / (2 * term + 1)) * square
    return torch.relu(x) + (series + 1.0) * s * 2.0


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x)."""
    return x * torch.sigmoid(x)


def parts(x: Tensor, sizes: Sequence[int], dim: int = -1) -> list[Tensor]:
    """x cut into slices of these sizes: `split` would give one value of many."""
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [x.narrow(dim, end - size, size) for size, end in zip(sizes, ends, strict=True)]


def split_with_sizes(x: Tensor, sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    """torch's operator of that name."""
    return parts(x, sizes, dim)


def _mean(dim: int) -> Tensor:
    return torch.full((1, dim), 1 / dim)
