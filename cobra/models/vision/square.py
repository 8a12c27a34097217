"""Pixels of a picture, made by Pillow and numpy alone: an engine on a phone has no torch.

How they are made is data: three ways to make a square, and the normalization of an encoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BICUBIC = Image.Resampling.BICUBIC
# of a square, or of a picture that is padded to one
_MOST_SIDE = 8192

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Squash:
    """Resize both sides whatever the aspect ratio ("resize-naive" in prismatic and Cobra).

    Attributes:
        side: of the square in pixels.
    """

    side: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """The whole RGB picture, distorted to side × side pixels."""
        side = (self.side, self.side)
        return image if image.size == side else image.resize(side, _BICUBIC)


@dataclass(frozen=True)
class Crop:
    """Resize the shorter side and keep the centre ("resize-crop" in prismatic and Cobra).

    Attributes:
        side: of the square in pixels.
        shorter: what the shorter side is resized to before.
        floors: cut an odd difference as transformers' CLIP does, its smaller half before the square; False
            rounds half to even, as torchvision's CenterCrop.
    """

    side: int
    shorter: int
    floors: bool = False

    def __call__(self, image: Image.Image) -> Image.Image:
        """The centre of the RGB picture; its longer side is floored, as in torchvision and transformers."""
        # resized, a strip of 1 × 60 000 pixels would take gigabytes
        image = self._centre(image, *(min(side, 64 * min(image.size)) for side in image.size))
        resized = [self.shorter * side // min(image.size) for side in image.size]
        image = image.resize((resized[0], resized[1]), _BICUBIC)
        return self._centre(image, self.side, self.side)

    def _centre(self, image: Image.Image, width: int, height: int) -> Image.Image:
        halved = floor if self.floors else round
        left, top = halved((image.width - width) / 2), halved((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class Letterbox(Crop):
    """Pad with a colour to a square, then crop that ("letterbox" in prismatic and Cobra).

    Attributes:
        colour: of the bars, RGB from 0 to 255.
        equal_bars: bars of the same width on both sides, as in Cobra: the padded picture of an odd difference
            is then one pixel short of a square, and as much is cropped. False pads to an exact square.
    """

    colour: tuple[int, int, int] = (0, 0, 0)
    equal_bars: bool = False

    def __call__(self, image: Image.Image) -> Image.Image:
        """The whole RGB picture between bars."""
        # padded, a picture of 60 000 × 600 pixels would take gigabytes
        image = image.reduce(max(1, max(image.size) // _MOST_SIDE))
        longer = max(image.size)
        width, height = image.size
        left, top = (longer - width) // 2, (longer - height) // 2
        size = (width + 2 * left, height + 2 * top) if self.equal_bars else (longer, longer)
        padded = Image.new("RGB", size, self.colour)
        padded.paste(image, (left, top))
        return super().__call__(padded)


# by what files call them
_WAYS: Mapping[str, type[Squash | Crop]] = {"squash": Squash, "crop": Crop, "letterbox": Letterbox}


@dataclass(frozen=True)
class Plane:
    """How the pixels of one encoder are made of a picture.

    Attributes:
        square: makes the square.
        mean: mean of each RGB channel on a 0–1 scale.
        std: standard deviation of each channel on a 0–1 scale.
    """

    square: Squash | Crop
    mean: RGB
    std: RGB

    def normalize(self, square: Image.Image) -> NDArray[np.float32]:
        """The square as pixels (3, side, side)."""
        # bytes are turned in a third of the time that floats take
        pixels = np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1)).astype(np.float32)
        pixels /= 255
        pixels -= _channels(self.mean)
        pixels /= _channels(self.std)
        return pixels

    def as_json(self) -> dict[str, Any]:
        """The same as plain data: the way's name and arguments, mean and std."""
        way = next(name for name, kind in _WAYS.items() if type(self.square) is kind)
        return {"way": way, **asdict(self.square), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Plane":
        """What `as_json` described.

        Raises:
            ValueError: where it says something else.
        """
        try:
            rest: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in said.items()
            }
            kind, mean, std = _WAYS[rest.pop("way")], rest.pop("mean"), rest.pop("std")
            if not (len(mean) == len(std) == 3 and all(map(isfinite, (*mean, *std))) and min(std) > 0):
                raise TypeError("mean and std are three numbers each, those of std above 0")
            for side in (rest[name] for name in ("side", "shorter") if name in rest):
                if type(side) is not int or not 0 < side <= _MOST_SIDE:
                    raise TypeError(f"a side is {side!r}, not 1 to {_MOST_SIDE}")
            return cls(kind(**rest), mean, std)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{said!r} describes no pixels ({error!r})") from error


def pixels_of(image: Image.Image, planes: Sequence[Plane]) -> list[NDArray[np.float32]]:
    """Pixels (3, side, side) of an RGB picture for each encoder.

    A square that several want is resized once, most of their work.
    """
    squares = {square: square(image) for square in {plane.square for plane in planes}}
    return [plane.normalize(squares[plane.square]) for plane in planes]


def _channels(values: RGB) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(3, 1, 1)
