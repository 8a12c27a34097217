"""A ViT small enough to be trained from nothing on a CPU."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.pictures import Pixels
from cobra.models.vision.transform import SquashTransform


class SmallViT(VisionEncoder):
    """A convolutional stem (8-pixel patches) and a few pre-norm attention blocks.

    The stem replaces the patch embedding because a ViT learns much faster from little data with one
    (Xiao et al. 2021, "Early convolutions help transformers see better").

    Args:
        image_size: side of the square input, a multiple of 8.
        embed_dim: width of a patch feature, a multiple of 4 and of num_heads.
        depth: attention blocks after the stem.
        num_heads: attention heads.
    """

    def __init__(self, image_size: int = 64, embed_dim: int = 64, depth: int = 1, num_heads: int = 4) -> None:
        super().__init__()
        if image_size % 8:
            raise ValueError(f"image_size {image_size} must be a multiple of the patch size 8")
        if embed_dim % 4 or embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be a multiple of 4 and of num_heads {num_heads}")
        self.embed_dim = embed_dim
        self.num_patches = (image_size // 8) ** 2
        self.transform = SquashTransform(image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        widths = [3, embed_dim // 4, embed_dim // 2, embed_dim]
        self.stem = nn.Sequential(*[ConvDown(i, o) for i, o in pairwise(widths)])
        self.pos_embed = nn.Parameter(torch.empty(1, self.num_patches, embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(AttentionBlock(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, pixels: Pixels) -> Tensor:
        """Pixels (B, 3, image_size, image_size) to patches (B, N, embed_dim)."""
        assert isinstance(pixels, Tensor)
        x = self.stem(pixels).flatten(2).transpose(1, 2) + self.pos_embed  # (B, N, embed_dim)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def units(self) -> list[nn.Module]:
        """See `VisionEncoder.units`."""
        return list(self.blocks)


class ConvDown(nn.Module):
    """A 3×3 convolution that halves the resolution, normalized over channels."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, 3, stride=2, padding=1)
        # one group = LayerNorm over the map: no running statistics, so freezing and resuming need no care
        self.norm = nn.GroupNorm(1, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim, H, W) to (B, out_dim, H / 2, W / 2)."""
        return F.relu(self.norm(self.conv(x)))


class AttentionBlock(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) to (B, N, dim)."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, N, dim)
        x = x + self.proj(attended)
        return x + self.mlp(self.norm2(x))
