"""Patches as the square they were cut from, rows first."""

import math

from torch import Tensor


def square_side(num_patches: int) -> int:
    """Side of the square grid of patches.

    Raises:
        ValueError: where the patches are no square.
    """
    side = math.isqrt(num_patches)
    if side**2 != num_patches:
        raise ValueError(
            f"{num_patches} patches are no square grid, which this projector needs: change the image size so "
            f"that the encoder gives n × n patches, or choose a projector that works on any number"
        )
    return side


def to_map(patches: Tensor) -> Tensor:
    """Patches (B, N, D) to a feature map (B, D, side, side)."""
    side = square_side(patches.shape[1])
    return patches.transpose(1, 2).unflatten(2, (side, side))


def to_patches(feature_map: Tensor) -> Tensor:
    """Feature map (B, D, H, W) to patches (B, H × W, D)."""
    return feature_map.flatten(2).transpose(1, 2)
