"""MobileVLM V2's projector (LDPv2), and Cobra's form of it."""

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from cobra.models.projectors.base import Projector
from cobra.models.projectors.grid import square_side, to_map, to_patches


class LDPv2Projector(Projector):
    """An MLP, an average pool to a fixed grid, and a convolution that tells the tokens where they are.

    MobileVLM V2 (arXiv 2402.03766) has 12 × 12 tokens. Cobra's "fused-ldpnet" is side 14 and fused; its
    "ldpnet", which no configuration of theirs can name, is side 14.

    Args:
        side: image tokens a row; M is its square. Pooling windows overlap where it does not divide the grid.
        fused: widen the MLP to 4 × in_dim instead of out_dim.
    """

    def __init__(self, in_dim: int, out_dim: int, side: int = 12, fused: bool = False) -> None:
        super().__init__()
        if side < 1:
            raise ValueError(f"side {side} must be at least 1: MobileVLM V2 has 12, Cobra 14")
        self.side = side
        hidden = 4 * in_dim if fused else out_dim
        self.projector = nn.Sequential(
            nn.Linear(in_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, out_dim),
            GridPool(side),
            PositionalConv(out_dim),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, in_dim) to image tokens (B, side², out_dim)."""
        return self.projector(patches)

    def num_tokens(self, num_patches: int) -> int:
        """M = side²."""
        grid = square_side(num_patches)
        if grid < self.side:
            raise ValueError(
                f"{grid} × {grid} patches cannot be pooled to {self.side} × {self.side} tokens: "
                f"lower the projector's side or enlarge the image"
            )
        return self.side**2


class GridPool(nn.Module):
    """Average over windows of a grid: cell i covers rows floor(i × n / side) to ceil((i + 1) × n / side)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, D) to (B, side², D)."""
        return to_patches(adaptive_avg_pool2d(to_map(patches), self.side))


class PositionalConv(nn.Module):
    """Add a depthwise 3 × 3 convolution of the grid (PEG, Chu et al. 2021, arXiv 2102.10882)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # inside a Sequential: published weights are named peg.0
        self.peg = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim))

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, dim) to the same shape."""
        feature_map = to_map(patches)
        return to_patches(self.peg(feature_map) + feature_map)
