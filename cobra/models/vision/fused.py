"""Several encoders as one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL.Image import Image
from torch import Tensor, nn

from cobra.models.vision.base import VisionEncoder
from cobra.models.vision.pictures import Layout, Picture, Pixels
from cobra.models.vision.square import Plane, pixels_of
from cobra.models.vision.transform import SquareTransform


class FusedEncoder(VisionEncoder):
    """Concatenate the channels of encoders that cut a picture into the same number of patches.

    Args:
        encoders: in channel order (Cobra: DINOv2 first, then SigLIP).
    """

    def __init__(self, encoders: list[Callable[[], VisionEncoder]]) -> None:
        super().__init__()
        built = [encoder() for encoder in encoders]
        counts = [encoder.num_patches for encoder in built]
        if not built or len(set(counts)) > 1:
            raise ValueError(f"fused encoders need one common number of patches, got {counts}")
        self.encoders = nn.ModuleList(built)
        self.embed_dim = sum(encoder.embed_dim for encoder in built)
        self.num_patches = counts[0]
        self.transform = FusedTransform([encoder.transform for encoder in built])

    def forward(self, pixels: Pixels) -> Tensor:
        """Tuple of pixels, each of B tiles, to patches (B, N, sum of widths)."""
        return torch.cat([encoder(p) for encoder, p in zip(self.encoders, pixels, strict=True)], dim=-1)

    def units(self) -> list[nn.Module]:
        """Those of all encoders."""
        return [unit for encoder in cast(Iterable[VisionEncoder], self.encoders) for unit in encoder.units()]

    def unused_parameters(self) -> dict[str, int]:
        """Those of all encoders."""
        return {
            f"encoders.{number}.{name}": size
            for number, encoder in enumerate(cast(Iterable[VisionEncoder], self.encoders))
            for name, size in encoder.unused_parameters().items()
        }

    def arguments(self) -> dict[str, Any]:
        """The encoders that were built."""
        return {"encoders": self.encoders}


@dataclass
class FusedTransform:
    """A picture to tiles of which each is a tuple: one entry an encoder, as its transform leaves it.

    Args:
        transforms: of the encoders, which cut a picture alike.
    """

    transforms: Sequence[Callable[[Image], Picture]]

    @property
    def layout(self) -> Layout | None:
        """Of every picture, where all encoders make the same of each; else None."""
        layouts = {getattr(transform, "layout", None) for transform in self.transforms}
        return layouts.pop() if len(layouts) == 1 else None

    def __call__(self, image: Image) -> Picture:
        """RGB picture to its tiles."""
        pictures = self._pictures(image)
        layouts = {picture.layout for picture in pictures}
        if len(layouts) > 1:
            raise ValueError(f"fused encoders need one common layout of a picture, got {[*layouts]}")
        return Picture(list(zip(*(picture.tiles for picture in pictures), strict=True)), layouts.pop())

    def _pictures(self, image: Image) -> list[Picture]:
        """What each transform makes of it."""
        planes = [transform.plane for transform in self.transforms if isinstance(transform, SquareTransform)]
        squares = iter(pixels_of(image, planes))
        return [
            Picture([torch.from_numpy(next(squares))])
            if isinstance(transform, SquareTransform)
            else transform(image)
            for transform in self.transforms
        ]


def planes_of(transform: Callable[[Image], Picture]) -> list[Plane]:
    """How a transform makes pixels, for each encoder in the order of a tile's tensors.

    Raises:
        ValueError: where it does more than to make squares.
    """
    if isinstance(transform, FusedTransform):
        return [plane for part in transform.transforms for plane in planes_of(part)]
    if isinstance(transform, SquareTransform):
        return [transform.plane]
    raise ValueError(f"a {type(transform).__name__} does more than to make a square of a picture")
