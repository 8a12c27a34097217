"""Pictures on their way to an encoder: one as a transform leaves it, and those of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
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
        checked: the token ids that they belong to were found to have room for them, row by row, on the host.
            The model then counts no ids on a device, which would have to be waited for.
    """

    pixels: Pixels | None
    layouts: tuple[Layout, ...] | None = None
    checked: bool = False

    @classmethod
    def of(cls, pictures: "Pictures | Pixels | None") -> "Pictures":
        """As they are, or pixels (pictures, ...) of one tile each."""
        return pictures if isinstance(pictures, Pictures) else cls(pictures)

    @classmethod
    def stack(cls, pictures: Sequence[Picture], checked: bool = False) -> "Pictures":
        """The tiles of all in one batch (in a worker process straight into memory that it shares)."""
        tiles = [tile for picture in pictures for tile in picture.tiles]
        return cls(
            default_collate(tiles) if tiles else None, tuple(picture.layout for picture in pictures), checked
        )

    def each(self) -> tuple[Layout, ...]:
        """The layout of each picture."""
        if self.layouts is not None:
            return self.layouts
        return () if self.pixels is None else (ONE_TILE,) * len(tree_leaves(self.pixels)[0])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Pictures":
        """The same pictures with changed pixels: of another device or dtype."""
        return self if self.pixels is None else replace(self, pixels=tree_map(change, self.pixels))


def check_room(room: Sequence[int], tokens: Sequence[int]) -> None:
    """Refuse token ids that have no place for exactly the image tokens of their pictures.

    Pictures follow each other over the rows, so each row must end where a picture ends: too many places in
    one row do not make up for too few in another.

    Args:
        room: placeholders in each row of the token ids.
        tokens: image tokens of each picture.
    """
    if sum(room) != sum(tokens):
        raise ValueError(
            f"the token ids hold {sum(room)} placeholders, but the pictures ({len(tokens)}) make "
            f"{sum(tokens)} image tokens: give those that the ids were made for, as `Processor.collate` does"
        )
    ends = {0, *accumulate(tokens)}
    for row, end in enumerate(accumulate(room)):
        if end not in ends:
            raise ValueError(
                f"row {row} of the token ids holds {room[row]} placeholders, which are no whole pictures: "
                f"those make {', '.join(map(str, tokens))} image tokens, in reading order; let each row hold "
                "its own"
            )
