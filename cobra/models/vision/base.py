"""The contract of a vision encoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from PIL.Image import Image
from torch import Tensor, nn

from cobra.models.component import Component
from cobra.models.vision.pictures import Picture, Pixels


class VisionEncoder(Component, ABC):
    """Turns pixels into patch features.

    Attributes:
        embed_dim: width of a patch feature.
        num_patches: patches a tile, N.
        transform: RGB picture to this encoder's tiles, one unless it cuts pictures. It travels to worker
            processes: an object of its own, without weights. Where it makes the same layout of every picture
            it says which in an attribute `layout`: tokens are then counted without reading pictures.
    """

    embed_dim: int
    num_patches: int
    transform: Callable[[Image], Picture]

    @abstractmethod
    def forward(self, pixels: Pixels) -> Tensor:
        """Pixels of B tiles to patches (B, N, embed_dim)."""

    def units(self) -> Sequence[nn.Module]:
        """The blocks that it applies one after the other, by which it is recomputed in training."""
        return []

    def unused_parameters(self) -> dict[str, int]:
        """Name and size of each parameter of the published tower that its features do not depend on.

        On the meta device an encoder has them and counts as published; elsewhere they are left out.
        """
        return {}

    def count_parameters(self) -> tuple[int, int]:
        """Parameters of the published towers, and of the part that the features use; on any device."""
        unused = self.unused_parameters()
        used = sum(p.numel() for name, p in self.named_parameters() if name not in unused)
        return used + sum(unused.values()), used
