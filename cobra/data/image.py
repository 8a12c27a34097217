"""Anything that is a picture to upright 8-bit RGB: the one place where image files are opened."""

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cobra.config.limits import MAX_PIXELS, MAX_SIDE
from cobra.data.record import ImageSource

# Rows that are laid on white at once.
_BAND = 256


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
        raise FileNotFoundError(f"{name} does not exist: check its path, or drop its record") from None
    except UnidentifiedImageError:
        empty = not (len(image) if isinstance(image, bytes) else Path(image).stat().st_size)
        reason = "it is empty" if empty else "no known picture format, or a damaged file"
        raise ValueError(f"{name} cannot be opened ({reason}): fetch it again or drop its record") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large ({error}): scale it down or drop its record") from error
    except MemoryError:
        raise
    # as when it is decoded: some formats fail in ways of their own
    except Exception as error:
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
        return _to_rgb(_upright(image), image.format)
    except MemoryError:
        raise
    # each decoder fails in its own way on broken bytes: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise ValueError(f"{name} cannot be decoded ({error}): fetch it again or drop its record") from error


def _upright(image: Image.Image) -> Image.Image:
    # without a turn, it would be copied
    return ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation, 1) != 1 else image


def _to_rgb(image: Image.Image, form: str | None) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floats have no fixed range; save it with 8 bits")
    if image.mode.startswith("I"):
        return _eight_bits(image, sixteen=image.mode != "I" or form == "PNG").convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    # a turned picture is a copy already
    return image if type(image) is Image.Image and image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image, sixteen: bool) -> Image.Image:
    """Gray of 16 bits, or of 32 that hold 8 or 16; Pillow would clip them at 255, nearly all to white."""
    values = np.asarray(image)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(f"its values reach from {lowest} to {highest}, no fixed range; save it with 8 bits")
    return Image.fromarray((values // 257 if sixteen or highest > 255 else values).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """The picture on white, band by band, so that it is in memory twice and not four times."""
    white = Image.new("RGB", image.size, "white")
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height))).convert("RGBA")
        white.paste(band, (0, top), band)
    return white
