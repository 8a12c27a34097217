"""LLaVA-NeXT's tiles fit the contract: padding cut off, rows ended by a learned token, as in transformers."""

# before transformers
import cobra.torchvision_shim  # noqa: F401  isort: skip

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

from cobra.data.chat import Chat
from cobra.data.processor import Processor
from cobra.data.record import ImageSource, Record, assistant, user
from cobra.models.projectors.linear import LinearProjector
from cobra.models.vision.pictures import Layout, Picture, Pictures
from cobra.models.vision.small_vit import SmallViT
from cobra.models.vlm import IMAGE_ID, CobraVLM
from tests.models.builders import LMS

# side of a tile in pixels and in patches; heights and widths that a picture may be enlarged to
TILE, SIDE = 32, 4
SIZES = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]


@dataclass
class AnyResTransform:
    """The whole picture as one tile, then the tiles of its enlargement."""

    tile: Callable[[Image.Image], Picture]

    def __call__(self, image: Image.Image) -> Picture:
        size = (image.height, image.width)
        height, width = select_best_resolution(size, SIZES)
        enlarged = ImageOps.pad(image, (width, height))
        corners = [(x, y) for y in range(0, height, TILE) for x in range(0, width, TILE)]
        views = [image, *(enlarged.crop((x, y, x + TILE, y + TILE)) for x, y in corners)]
        tiles = [tile for view in views for tile in self.tile(view).tiles]
        return Picture(tiles, Layout(len(tiles), (height // TILE, width // TILE), size))


class AnyResViT(SmallViT):
    def __init__(self) -> None:
        super().__init__(TILE, 16)
        self.transform = AnyResTransform(self.transform)


def unpadded(layout: Layout) -> tuple[int, int]:
    """Rows and columns of patches that show the picture."""
    assert layout.size is not None
    (height, width), (rows, columns) = layout.size, (SIDE * n for n in layout.grid)
    if width / height > columns / rows:
        return rows - 2 * ((rows - int(round(height * columns / width, 7))) // 2), columns
    return rows, columns - 2 * ((columns - int(round(width * rows / height, 7))) // 2)


class AnyResProjector(LinearProjector):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.row_end = nn.Parameter(torch.randn(out_dim))

    def arrange(self, tokens: Tensor, layouts: Sequence[Layout] | None) -> Tensor:
        assert layouts is not None
        split = tokens.split([layout.tiles for layout in layouts])
        return torch.cat([self.picture(*pair) for pair in zip(split, layouts, strict=True)])

    def picture(self, tokens: Tensor, layout: Layout) -> Tensor:
        if layout.tiles == 1:
            return torch.cat([tokens[0], self.row_end[None]])
        tiles = tokens[1:].unflatten(1, (SIDE, SIDE)).unflatten(0, layout.grid)  # (R, C, SIDE, SIDE, D)
        grid = tiles.transpose(1, 2).flatten(2, 3).flatten(0, 1)  # (R × SIDE, C × SIDE, D)
        rows, columns = unpadded(layout)
        top, left = (grid.shape[0] - rows) // 2, (grid.shape[1] - columns) // 2
        shown = grid[top : top + rows, left : left + columns]
        ends = self.row_end.expand(rows, 1, -1)
        return torch.cat([tokens[0], torch.cat([shown, ends], 1).flatten(0, 1)])

    def counter(self, num_patches: int) -> Callable[[Layout], int]:
        return AnyResTokens(num_patches)


@dataclass
class AnyResTokens:
    overview: int

    def __call__(self, layout: Layout) -> int:
        rows, columns = unpadded(layout) if layout.tiles > 1 else (1, 0)
        return self.overview + rows * (columns + 1)


def theirs(model: CobraVLM, pictures: list[Picture]) -> list[Tensor]:
    """transformers' own arrangement of our tiles' tokens."""
    vision = SimpleNamespace(image_size=TILE, patch_size=TILE // SIDE)
    config = SimpleNamespace(image_grid_pinpoints=SIZES, vision_config=vision)
    features = [model.projector(model.vision(Pictures.stack([p]).pixels)) for p in pictures]
    sizes = torch.tensor([p.layout.size for p in pictures])
    pack = partial(LlavaNextModel.pack_image_features, SimpleNamespace(config=config))
    return pack(features, sizes, "full", image_newline=model.projector.row_end)[0]


@pytest.fixture(scope="module")
def model() -> CobraVLM:
    torch.manual_seed(0)
    return CobraVLM(AnyResViT, AnyResProjector, LMS["mamba2"])


def test_tokens_are_counted_and_arranged_as_in_llava_next(model: CobraVLM) -> None:
    processor = Processor.of(model, Chat("cobra:data/shapes/tokenizer"))
    rng = np.random.default_rng(0)
    shapes = [(50, 71), (71, 50), (20, 90), (90, 21), (33, 33)]
    images: list[ImageSource] = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    records = [
        Record(str(n), [user("what?", images=len(part)), assistant("it")], part)
        for n, part in enumerate((images[:2], images[2:]))
    ]
    examples = [processor.encode(record) for record in records]
    batch = processor.collate(examples)
    embeds = model.splice(batch.ids, batch.pictures)
    counts = set()
    for row, example in enumerate(examples):
        expected = theirs(model, example.pictures)
        assert [processor.num_image_tokens(p.layout) for p in example.pictures] == [len(e) for e in expected]
        torch.testing.assert_close(embeds[row][batch.ids[row] == IMAGE_ID], torch.cat(expected))
        counts |= {len(e) for e in expected}
    assert len(counts) > 2
    model.loss(model.lm.prefill(embeds), batch.labels).backward()
    assert (model.projector.row_end.grad != 0).all()  # type: ignore[union-attr]


def test_text_alone_gives_every_weight_of_the_projector_a_gradient(model: CobraVLM) -> None:
    model.zero_grad()
    model.train()(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in model.projector.parameters())
