"""Pictures on their way to an encoder: one as a transform leaves it, and those of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import default_collate

# One tensor an encoder: a fused encoder takes a tuple, each entry prepared as its own encoder expects.
Pixels = Tensor | tuple["Pixels", ...]


class Layout(NamedTuple):
    """What a transform made of a picture: all that its number of image tokens depends on. Never on a device.

    Attributes:
        tiles: images that the encoder sees.
        grid: rows and columns of tiles that the picture was cut into, without an overview of the whole.
        size: height and width of the picture before, where what was padded is cut off again.
    """

    tiles: int = 1
    grid: tuple[int, int] = (1, 1)
    size: tuple[int, int] | None = None


ONE_TILE = Layout()


@dataclass
class Picture:
    """A picture as an encoder's transform leaves it.

    Attributes:
        tiles: pixels of each tile, all of one shape, without a batch dimension.
        layout: how they were cut; one tile by default.
    """

    tiles: Sequence[Pixels]
    layout: Layout = ONE_TILE

    def __post_init__(self) -> None:
        if len(self.tiles) != self.layout.tiles:
            raise ValueError(
                f"a picture of {len(self.tiles)} tiles has a layout of {self.layout.tiles}: the transform "
                "must say how many it made"
            )


@dataclass(frozen=True)
class Pictures:
    """All pictures of a batch, in reading order.

    Attributes:
        pixels: of all tiles, stacked (tiles, ...); None without pictures.
        layouts: of each picture; None where each tile is a picture.
    """

    pixels: Pixels | None
    layouts: tuple[Layout, ...] | None = None

    @classmethod
    def of(cls, pictures: "Pictures | Pixels | None") -> "Pictures":
        """As they are, or pixels (pictures, ...) of one tile each."""
        return pictures if isinstance(pictures, Pictures) else cls(pictures)

    @classmethod
    def stack(cls, pictures: Sequence[Picture]) -> "Pictures":
        """The tiles of all in one batch (in a worker process straight into memory that it shares)."""
        tiles = [tile for picture in pictures for tile in picture.tiles]
        return cls(default_collate(tiles) if tiles else None, tuple(picture.layout for picture in pictures))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Pictures":
        """The same pictures with changed pixels: of another device or dtype."""
        return self if self.pixels is None else replace(self, pixels=tree_map(change, self.pixels))
