"""Pictures to pixels, against timm's and torchvision's transforms."""

# declares operators that timm's import of torchvision needs
import cobra.torchvision_shim  # noqa: F401  isort: skip

from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as tv
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from cobra.models.vision.fused import FusedTransform
from cobra.models.vision.pictures import Picture
from cobra.models.vision.square import Crop, Letterbox, Squash
from cobra.models.vision.transform import CropTransform, LetterboxTransform, SquareTransform, SquashTransform

MEAN, STD, SIDE = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), 32
SIZES = [(50, 71), (71, 50), (33, 200), (20, 21), (32, 32)]


def picture(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def timms(image: Image.Image, crop_pct: float, crop_mode: str = "center") -> Tensor:
    transform = timm.data.create_transform(
        (3, SIDE, SIDE), interpolation="bicubic", mean=MEAN, std=STD, crop_mode=crop_mode, crop_pct=crop_pct
    )
    return transform(image)


def padded(image: Image.Image, equal_bars: bool) -> Image.Image:
    gaps = [max(image.size) - side for side in image.size]
    before = [gap // 2 for gap in gaps]
    after = before if equal_bars else [gap - half for gap, half in zip(gaps, before, strict=True)]
    return tv.pad(image, before + after, fill=tuple(int(channel * 255) for channel in MEAN))


@pytest.mark.parametrize("size", SIZES)
def test_a_squashed_picture_equals_timms(size: tuple[int, int]) -> None:
    (ours,) = SquashTransform(SIDE, MEAN, STD)(picture(size)).tiles
    torch.testing.assert_close(ours, timms(picture(size), 1.0, "squash"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("crop_pct", [1.0, 0.9])
@pytest.mark.parametrize("size", SIZES)
def test_a_cropped_picture_equals_timms(size: tuple[int, int], crop_pct: float) -> None:
    (ours,) = CropTransform(SIDE, MEAN, STD, crop_pct)(picture(size)).tiles
    torch.testing.assert_close(ours, timms(picture(size), crop_pct), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [*SIZES, (640, 427), (427, 640), (39, 32), (37, 32), (32, 35)])
def test_clips_crop_is_transformers(size: tuple[int, int]) -> None:
    sides = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    theirs = CLIPImageProcessorPil(**sides, image_mean=MEAN, image_std=STD)(
        picture(size), return_tensors="pt"
    )
    (ours,) = CropTransform(SIDE, MEAN, STD, floors=True)(picture(size)).tiles
    torch.testing.assert_close(ours, theirs["pixel_values"][0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("equal_bars", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_letterboxed_picture_equals_a_padded_one(size: tuple[int, int], equal_bars: bool) -> None:
    square = padded(picture(size), equal_bars)
    assert (square.size[0] == square.size[1]) == (not equal_bars or (size[0] - size[1]) % 2 == 0)
    (ours,) = LetterboxTransform(SIDE, MEAN, STD, equal_bars=equal_bars)(picture(size)).tiles
    torch.testing.assert_close(ours, timms(square, 1.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [SquashTransform, CropTransform, LetterboxTransform])
def test_a_long_strip_needs_no_gigabytes(kind: Callable[..., SquareTransform]) -> None:
    transform = kind(384, MEAN, STD)
    (tile,) = transform(Image.new("RGB", (10, 33_000), "red")).tiles
    assert isinstance(tile, Tensor)
    assert tile.shape == (3, 384, 384)


def test_encoders_that_want_the_same_square_share_it_and_each_has_its_own_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = (0.5,) * 3
    squash, crop, letterbox = SquashTransform, CropTransform, LetterboxTransform
    alike = [kind(SIDE, mean, STD) for kind in (squash, crop) for mean in (MEAN, half)]
    # the colour of bars is the mean, and every argument of a crop moves it
    unlike: list[SquareTransform] = [letterbox(SIDE, MEAN, STD), letterbox(SIDE, half, STD)]
    unlike += [letterbox(SIDE, half, STD, 1.0, True), crop(SIDE, MEAN, STD, 0.9)]
    unlike += [crop(SIDE, MEAN, STD, floors=True)]
    transforms: list[SquareTransform] = [*alike, *unlike]
    expected = [pixels(transform(picture((50, 71)))) for transform in transforms]
    resized: list[Squash | Crop] = []

    def told(plain: Callable[..., Image.Image]) -> Callable[..., Image.Image]:
        def square(self: Squash | Crop, image: Image.Image) -> Image.Image:
            resized.append(self)
            return plain(self, image)

        return square

    for way in (Squash, Crop, Letterbox):
        monkeypatch.setattr(way, "__call__", told(way.__call__))
    (tile,) = FusedTransform(transforms)(picture((50, 71))).tiles
    assert all(torch.equal(ours, alone) for ours, alone in zip(tile, expected, strict=True))
    assert all(alone.is_contiguous() for alone in expected), "else a batch is stacked slowly"
    # a letterbox crops what it has padded, and is there twice then
    wanted = [transform.plane.square for transform in (alike[0], alike[2], *unlike)]
    assert sorted(map(repr, resized)) == sorted(
        repr(square) for square in wanted for _ in range(1 + isinstance(square, Letterbox))
    )


def pixels(made: Picture) -> Tensor:
    (tile,) = made.tiles
    assert isinstance(tile, Tensor)
    return tile
