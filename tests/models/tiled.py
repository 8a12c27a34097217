"""An encoder that cuts pictures into tiles, for tests of the contract."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL.Image import Image

from cobra.models.vision.pictures import Layout, Picture
from cobra.models.vision.small_vit import SmallViT


class TiledViT(SmallViT):
    """Sees a picture in one to four tiles beside each other, by how wide it is."""

    def __init__(self, image_size: int = 32, embed_dim: int = 16) -> None:
        super().__init__(image_size, embed_dim)
        self.transform = TileTransform(self.transform)


@dataclass
class TileTransform:
    """Cut a picture into columns, each of which becomes a tile."""

    tile: Callable[[Image], Picture]

    def __call__(self, image: Image) -> Picture:
        """RGB picture to as many tiles as it is wider than high."""
        count = min(4, max(1, round(image.width / image.height)))
        edges = [image.width * number // count for number in range(count + 1)]
        parts = [image.crop((edges[i], 0, edges[i + 1], image.height)) for i in range(count)]
        tiles = [tile for part in parts for tile in self.tile(part).tiles]
        return Picture(tiles, Layout(count, (1, count)))
