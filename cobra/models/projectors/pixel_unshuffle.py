"""Fewer, wider tokens: neighbouring patches are folded into one before the MLP."""

from torch import Tensor, nn

from cobra.models.projectors.base import Projector
from cobra.models.projectors.grid import square_side


class PixelUnshuffleProjector(Projector):
    """Fold factor × factor patches into one token, then linear, GELU, linear (as in nanoVLM and Idefics3).

    Args:
        factor: side of the fold; the number of tokens shrinks by its square.
    """

    def __init__(self, in_dim: int, out_dim: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        folded = in_dim * factor**2
        self.projector = nn.Sequential(nn.Linear(folded, out_dim), nn.GELU(), nn.Linear(out_dim, out_dim))

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, in_dim) to image tokens (B, N / factor², out_dim)."""
        return self.projector(pixel_unshuffle(patches, self.factor))

    def num_tokens(self, num_patches: int) -> int:
        """M = num_patches / factor²."""
        _grid_side(num_patches, self.factor)
        return num_patches // self.factor**2


def pixel_unshuffle(patches: Tensor, factor: int) -> Tensor:
    """Patches (B, N, D) on a square grid to (B, N / factor², D × factor²), rows first inside a fold."""
    side = _grid_side(patches.shape[1], factor)
    cells = side // factor
    grid = patches.unflatten(1, (cells, factor, cells, factor))  # (B, cells, factor, cells, factor, D)
    return grid.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, cells², D × factor²)


def _grid_side(num_patches: int, factor: int) -> int:
    side = square_side(num_patches)
    if side % factor:
        raise ValueError(
            f"{side} × {side} patches cannot be folded by {factor}: needs a side that is a multiple of "
            f"{factor}; change the image size or the factor"
        )
    return side
