"""Anything that is a picture to upright 8-bit RGB: the one place where image files are opened."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cobra.data.record import ImageSource

# Half a gigabyte of RGB: twice the size that Pillow warns of, and where it suspects a decompression bomb.
MAX_PIXELS = 178_000_000
# What JPEG can hold, and more than any camera or screenshot has.
MAX_SIDE = 65_500

_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def load_rgb(image: ImageSource | Image.Image) -> Image.Image:
    """The picture in RGB, upright by its EXIF, transparency on white, 16 bits scaled to 8.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated, no picture, too large or has no one reading as RGB; names the file.
    """
    if isinstance(image, np.ndarray):
        return Image.fromarray(_check_array(image))
    if isinstance(image, Image.Image):
        return _decode(image, "picture")
    name = f"image of {len(image)} bytes" if isinstance(image, bytes) else f"image {str(image)!r}"
    try:
        opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else _regular(Path(image)))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{name} does not exist: check the image folder, or drop its record"
        ) from None
    except UnidentifiedImageError:
        empty = not (len(image) if isinstance(image, bytes) else Path(image).stat().st_size)
        reason = "it is empty" if empty else "no known picture format, or a damaged file"
        raise ValueError(f"{name} cannot be opened ({reason}): fetch it again or drop its record") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large ({error}): scale it down or drop its record") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{name} cannot be opened ({error}): fetch it again or drop its record") from error
    with opened:
        return _decode(opened, name)


def _regular(path: Path) -> Path:
    # a pipe or a device would be waited for, or never end
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    return path


def _check_array(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(
            f"array of {pixels.dtype} {pixels.shape} is no picture: give uint8 (H, W, 3), 0 to 255, not empty"
        )
    return np.ascontiguousarray(pixels)


def _decode(image: Image.Image, name: str) -> Image.Image:
    if image.format == "EPS":
        raise ValueError(f"{name} is PostScript, a program that would be run: save it as PNG")
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(
            f"{name} is {width} × {height}: sides must be 1 to {MAX_SIDE} and pixels at most {MAX_PIXELS}; "
            "scale it down or drop its record"
        )
    try:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except MemoryError:
        raise
    # each decoder fails in its own way on broken bytes: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise ValueError(f"{name} cannot be decoded ({error}): fetch it again or drop its record") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floats have no fixed range; save it with 8 bits")
    if image.mode in _SIXTEEN_BIT:
        # Pillow clips these at 255, which turns nearly everything white
        sixteen = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray((sixteen // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
