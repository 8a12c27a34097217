"""MobileVLM's lightweight downsample projector (LDP)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.models.projectors.base import Projector
from cobra.models.projectors.grid import square_side, to_map, to_patches


class LDPProjector(Projector):
    """An MLP and two depthwise-separable blocks, the second of which halves the grid (576 to 144 tokens).

    As MobileVLM's code and weights have it (arXiv 2312.16886), with hard-swish and squeeze-and-excitation;
    the paper's equation 3 shows neither.

    Args:
        fused: widen the MLP to 4 × in_dim, as Cobra does for the features of fused encoders; MobileVLM has
            out_dim.
    """

    def __init__(self, in_dim: int, out_dim: int, fused: bool = False) -> None:
        super().__init__()
        hidden = 4 * in_dim if fused else out_dim
        self.mlp = nn.Sequential(nn.Linear(in_dim, hidden), nn.GELU(), nn.Linear(hidden, out_dim))
        self.blocks = nn.Sequential(InvertedResidual(out_dim, stride=1), InvertedResidual(out_dim, stride=2))

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, in_dim) to image tokens (B, N / 4, out_dim); an odd grid is rounded up."""
        return to_patches(self.blocks(to_map(self.mlp(patches))))

    def num_tokens(self, num_patches: int) -> int:
        """M = ceil(side / 2)²."""
        return ((square_side(num_patches) + 1) // 2) ** 2


class InvertedResidual(nn.Module):
    """MobileNetV3's block without expansion, and its names: depthwise, squeeze-and-excitation, pointwise."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        depthwise = nn.Conv2d(dim, dim, 3, stride, padding=1, groups=dim, bias=False)
        self.block = nn.Sequential(
            nn.Sequential(depthwise, ChannelNorm(dim), nn.Hardswish()),
            SqueezeExcitation(dim),
            nn.Sequential(nn.Conv2d(dim, dim, 1, bias=False), ChannelNorm(dim)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, dim, ceil(H / stride), ceil(W / stride)); the input is added at stride 1."""
        return self.block(x) + x if self.stride == 1 else self.block(x)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcitation(nn.Module):
    """Scale each channel by what the whole map shows (Hu et al. 2018), a quarter of the channels wide."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        squeezed = max(8, (dim // 4 + 4) // 8 * 8)  # the nearest multiple of 8
        self.fc1 = nn.Conv2d(dim, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        pooled = x.mean((2, 3), keepdim=True)  # (B, dim, 1, 1)
        return x * F.hardsigmoid(self.fc2(torch.relu(self.fc1(pooled))))
