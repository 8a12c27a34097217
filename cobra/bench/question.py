"""The papers' question about a picture: its bytes, and tokens."""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cobra.data.image import load_rgb
from cobra.models.vision.pictures import Layout, Picture, Pictures
from cobra.models.vlm import IMAGE_ID

# "Describe the image specifically" with Cobra's chat markup; every model gets as many, of random ids, since
# speed needs no tokenizer
TEXT_TOKENS = 21
# of any vocabulary
_IDS = 256


class Question:
    """One picture and a question, then another question about the same picture.

    Args:
        transform: of the encoder.
        num_image_tokens: of a picture by its layout.
        device: where the model is.

    Attributes:
        image_tokens: that the picture becomes.
        ids: (1, image_tokens + TEXT_TOKENS), the picture first.
        more: (1, TEXT_TOKENS), the second question.
    """

    def __init__(
        self,
        transform: Callable[[Image.Image], Picture],
        num_image_tokens: Callable[[Layout], int],
        device: str,
    ) -> None:
        self.transform, self.device = transform, device
        self.picture = picture_bytes()
        self.image_tokens = num_image_tokens(transform(load_rgb(self.picture)).layout)
        generator = torch.Generator().manual_seed(0)
        text, self.more = (
            torch.randint(_IDS, (1, TEXT_TOKENS), generator=generator).to(device) for _ in range(2)
        )
        places = torch.full_like(text[:, :1], IMAGE_ID).expand(1, self.image_tokens)
        self.ids: Tensor = torch.cat([places, text], 1)

    def pictures(self, count: int = 1) -> Pictures:
        """From the bytes of the picture to the encoder's pixels, a batch of as many."""
        picture = self.transform(load_rgb(self.picture))
        # the ids were made for it
        return Pictures.stack([picture] * count, checked=True).map(lambda pixels: pixels.to(self.device))


def picture_bytes() -> bytes:
    """A JPEG of 640 × 480 pixels, smooth as a photograph."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()
