"""From a picture to an encoder's pixels."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class SquashTransform:
    """Resize to a square whatever the aspect ratio, then normalise ("resize-naive" in prismatic and Cobra).

    Args:
        image_size: side of the square in pixels.
        mean: mean of each RGB channel on a 0–1 scale.
        std: standard deviation of each channel on a 0–1 scale.
    """

    def __init__(self, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.image_size = image_size
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """RGB picture to (3, image_size, image_size), fp32."""
        side = (self.image_size, self.image_size)
        if image.size != side:
            image = image.resize(side, Image.Resampling.BICUBIC)
        array = torch.from_numpy(np.array(image, dtype=np.float32))  # (H, W, 3)
        return (array.permute(2, 0, 1) / 255 - self.mean) / self.std
