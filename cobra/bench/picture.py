"""The picture that every model is asked about."""

import io

import numpy as np
from PIL import Image


def picture_bytes() -> bytes:
    """A JPEG of 640 × 480 pixels, smooth as a photograph."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()
