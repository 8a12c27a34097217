"""Transforms of a picture to an encoder's pixels: three ways to make it a square."""

from math import floor

import torch
from PIL import Image

from cobra.models.vision.pictures import ONE_TILE, Layout, Picture
from cobra.models.vision.square import RGB, Crop, Letterbox, Plane, Squash, pixels_of


class SquareTransform:
    """Make a picture a square, then normalize it.

    Args:
        plane: how.

    Attributes:
        layout: of every picture.
    """

    layout: Layout | None = ONE_TILE

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    def __call__(self, image: Image.Image) -> Picture:
        """RGB picture to one tile (3, side, side), fp32."""
        (pixels,) = pixels_of(image, [self.plane])
        return Picture([torch.from_numpy(pixels)])


class SquashTransform(SquareTransform):
    """Resize both sides whatever the aspect ratio; see `Squash`.

    Args:
        image_size: side of the square in pixels.
        mean: mean of each RGB channel on a 0–1 scale.
        std: standard deviation of each channel on a 0–1 scale.
    """

    def __init__(self, image_size: int, mean: RGB, std: RGB) -> None:
        super().__init__(Plane(Squash(image_size), mean, std))


class CropTransform(SquareTransform):
    """Resize the shorter side and keep the centre; see `Crop`.

    Args:
        image_size: side of the square in pixels.
        mean: mean of each RGB channel on a 0–1 scale.
        std: standard deviation of each channel on a 0–1 scale.
        crop_pct: the square's side as a share of the resized shorter side.
        floors: cut an odd difference as transformers' CLIP does.
    """

    def __init__(
        self, image_size: int, mean: RGB, std: RGB, crop_pct: float = 1.0, floors: bool = False
    ) -> None:
        super().__init__(Plane(Crop(image_size, floor(image_size / crop_pct), floors), mean, std))


class LetterboxTransform(SquareTransform):
    """Pad with the mean colour to a square, then resize; see `Letterbox`.

    Args:
        image_size: side of the square in pixels.
        mean: mean of each RGB channel on a 0–1 scale; the padding's colour.
        std: standard deviation of each channel on a 0–1 scale.
        crop_pct: the square's side as a share of the resized padded picture.
        equal_bars: bars of the same width on both sides, as in Cobra.
    """

    def __init__(
        self, image_size: int, mean: RGB, std: RGB, crop_pct: float = 1.0, equal_bars: bool = False
    ) -> None:
        red, green, blue = (int(channel * 255) for channel in mean)
        shorter = floor(image_size / crop_pct)
        square = Letterbox(image_size, shorter, colour=(red, green, blue), equal_bars=equal_bars)
        super().__init__(Plane(square, mean, std))
