"""The contract of a vision encoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from PIL.Image import Image
from torch import Tensor

from cobra.models.component import Component

# One tensor an encoder: a fused encoder takes a tuple, each entry prepared as its own encoder expects.
Pixels = Tensor | tuple["Pixels", ...]


class VisionEncoder(Component, ABC):
    """Turns pixels into patch features.

    Attributes:
        embed_dim: width of a patch feature.
        num_patches: patches an image, N.
        transform: RGB picture to this encoder's pixels (one image, no batch dimension).
    """

    embed_dim: int
    num_patches: int
    transform: Callable[[Image], Pixels]

    @abstractmethod
    def forward(self, pixels: Pixels) -> Tensor:
        """Pixels of B images to patches (B, N, embed_dim)."""
