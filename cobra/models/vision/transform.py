"""Transforms of a picture to an encoder's pixels: three ways to make it a square."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from math import floor
from typing import final

import numpy as np
import torch
from PIL import Image

from cobra.models.vision.pictures import ONE_TILE, Layout, Picture

_BICUBIC = Image.Resampling.BICUBIC


class SquareTransform(ABC):
    """Make a picture a square, then normalize it.

    Args:
        image_size: side of the square in pixels.
        mean: mean of each RGB channel on a 0–1 scale.
        std: standard deviation of each channel on a 0–1 scale.

    Attributes:
        layout: of every picture.
    """

    layout: Layout | None = ONE_TILE

    def __init__(self, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.image_size = image_size
        # pictures are prepared on the CPU, even if the encoder is only described on the meta device
        self.mean = torch.tensor(mean, device="cpu").view(3, 1, 1)
        self.std = torch.tensor(std, device="cpu").view(3, 1, 1)

    @abstractmethod
    def square(self, image: Image.Image) -> Image.Image:
        """RGB picture to one of image_size × image_size pixels."""

    def shape(self) -> tuple[Hashable, ...]:
        """All that the square depends on: transforms of one shape make the same square of a picture."""
        settings = (
            (name, value) for name, value in sorted(vars(self).items()) if name not in ("mean", "std")
        )
        return type(self), *settings

    def normalize(self, square: Image.Image) -> Picture:
        """The square as one tile (3, image_size, image_size), fp32."""
        # bytes are turned in a third of the time that floats take
        planes = np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))  # (3, H, W)
        return Picture([torch.from_numpy(planes).float().div_(255).sub_(self.mean).div_(self.std)])

    @final
    def __call__(self, image: Image.Image) -> Picture:
        """RGB picture to one tile (3, image_size, image_size), fp32."""
        return self.normalize(self.square(image))


class SquashTransform(SquareTransform):
    """Resize both sides whatever the aspect ratio ("resize-naive" in prismatic and Cobra)."""

    def square(self, image: Image.Image) -> Image.Image:
        """The whole picture, distorted."""
        side = (self.image_size, self.image_size)
        return image if image.size == side else image.resize(side, _BICUBIC)


class CropTransform(SquareTransform):
    """Resize the shorter side and keep the centre ("resize-crop" in prismatic and Cobra).

    Args:
        image_size: side of the square in pixels.
        mean: mean of each RGB channel on a 0–1 scale.
        std: standard deviation of each channel on a 0–1 scale.
        crop_pct: the square's side as a share of the resized shorter side.
        floors: cut an odd difference as transformers' CLIP does, its smaller half before the square; False
            rounds half to even, as torchvision's CenterCrop.
    """

    def __init__(
        self,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        crop_pct: float = 1.0,
        floors: bool = False,
    ) -> None:
        super().__init__(image_size, mean, std)
        self.shorter = floor(image_size / crop_pct)
        self.halved = floor if floors else round

    def square(self, image: Image.Image) -> Image.Image:
        """The centre of the picture; its longer side is floored, as in torchvision and transformers."""
        # resized, a strip of 1 × 60 000 pixels would take gigabytes
        image = self._centre(image, *(min(side, 64 * min(image.size)) for side in image.size))
        resized = [self.shorter * side // min(image.size) for side in image.size]
        image = image.resize((resized[0], resized[1]), _BICUBIC)
        return self._centre(image, self.image_size, self.image_size)

    def _centre(self, image: Image.Image, width: int, height: int) -> Image.Image:
        left, top = self.halved((image.width - width) / 2), self.halved((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


class LetterboxTransform(CropTransform):
    """Pad with the mean colour to a square, then resize ("letterbox" in prismatic and Cobra).

    Args:
        image_size: side of the square in pixels.
        mean: mean of each RGB channel on a 0–1 scale; the padding's colour.
        std: standard deviation of each channel on a 0–1 scale.
        crop_pct: the square's side as a share of the resized padded picture.
        equal_bars: bars of the same width on both sides, as in Cobra: the padded picture of an odd difference
            is then one pixel short of a square, and as much is cropped. False pads to an exact square.
    """

    def __init__(
        self,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        crop_pct: float = 1.0,
        equal_bars: bool = False,
    ) -> None:
        super().__init__(image_size, mean, std, crop_pct)
        self.colour = tuple(int(channel * 255) for channel in mean)
        self.equal_bars = equal_bars

    def square(self, image: Image.Image) -> Image.Image:
        """The whole picture between bars."""
        # padded, a picture of 60 000 × 600 pixels would take gigabytes
        image = image.reduce(max(1, max(image.size) // 8192))
        longer = max(image.size)
        width, height = image.size
        left, top = (longer - width) // 2, (longer - height) // 2
        size = (width + 2 * left, height + 2 * top) if self.equal_bars else (longer, longer)
        padded = Image.new("RGB", size, self.colour)
        padded.paste(image, (left, top))
        return super().square(padded)
