"""Pixels that the native library makes against those of Pillow."""

import ctypes
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cobra.data.image import load_rgb
from cobra.export.gguf.native_library import library
from cobra.models.vision.square import Crop, Letterbox, Plane, Squash, pixels_of
from tests.export.gguf.exported import NO_LLAMA

pytestmark = [pytest.mark.export, pytest.mark.skipif(bool(NO_LLAMA), reason=NO_LLAMA)]

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PHOTOS = Path(os.environ.get("COBRA_FIXTURES", "../shared/fixtures")) / "photos"


def native(plane: Plane, path: Path) -> NDArray[np.float32]:
    values = np.empty((3, plane.square.side, plane.square.side), np.float32)
    failed = library().cobra_pixels_read(
        json.dumps(plane.as_json()).encode(), str(path).encode(), ctypes.c_void_p(values.ctypes.data)
    )
    assert not failed, library().cobra_pictures_error()
    return values


def pillows(plane: Plane, path: Path) -> NDArray[np.float32]:
    return pixels_of(load_rgb(path), [plane])[0]


def noise(path: Path, width: int, height: int, channels: int = 3) -> Path:
    drawn = np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)
    Image.fromarray(drawn).save(path)
    return path


def test_every_way_makes_pillows_bytes_of_noise(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    sizes = [(1, 7), (7, 1), (64, 64), (500, 30), (30, 500), (318, 500), (3, 400)]
    sizes += [tuple(size) for size in draw.integers(1, 700, (40, 2)).tolist()]
    for number, (width, height) in enumerate(sizes):
        side, more = (int(size) for size in draw.integers((1, 0), (400, 30)))
        path = noise(tmp_path / "p.png", width, height)
        for square in (
            Squash(side), Crop(side, side + more, bool(number % 2)),
            Letterbox(side, side + more, colour=(1, 128, 255), equal_bars=bool(number % 2)),
        ):  # fmt: skip
            plane = Plane(square, ZERO, ONE)
            np.testing.assert_array_equal(
                native(plane, path), pillows(plane, path), str((width, height, square))
            )


def test_a_long_picture_is_reduced_before_it_is_padded(tmp_path: Path) -> None:
    plane = Plane(Letterbox(48, 48, colour=(9, 9, 9)), ZERO, ONE)
    path = noise(tmp_path / "p.png", 17_000, 31)
    assert np.abs(native(plane, path) - pillows(plane, path)).max() < 1.5 / 255


def test_normalized_values_are_the_same(tmp_path: Path) -> None:
    plane = Plane(Squash(32), (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    path = noise(tmp_path / "p.png", 50, 40)
    np.testing.assert_array_equal(native(plane, path), pillows(plane, path))


def held(path: Path, orientation: int) -> Path:
    image = Image.fromarray(np.zeros((40, 64, 3), np.uint8))
    image.paste("red", (0, 0, 30, 20))
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", orientation
    image.save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_the_camera_was_held(orientation: int, suffix: str, tmp_path: Path) -> None:
    path = held(tmp_path / f"p.{suffix}", orientation)
    plane = Plane(Squash(24), ZERO, ONE)
    assert np.abs(native(plane, path) - pillows(plane, path)).max() < 4.5 / 255


def test_bytes_that_fill_a_jpeg_up_hide_nothing(tmp_path: Path) -> None:
    path, plane = held(tmp_path / "p.jpg", 6), Plane(Squash(24), ZERO, ONE)
    expected, plain = native(plane, path), path.read_bytes()
    # before the first segment and before Exif's
    filled = plain[:2] + b"\xff\xff" + plain[2:].replace(b"\xff\xe1", b"\xff\xff\xff\xe1", 1)
    path.write_bytes(filled)
    np.testing.assert_array_equal(native(plane, path), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_other_kinds_of_png_become_what_pillow_makes_of_them(mode: str, tmp_path: Path) -> None:
    drawn = Image.open(noise(tmp_path / "noise.png", 40, 30, 4))
    if mode == "I;16":
        values = np.random.default_rng(0).integers(0, 65536, (30, 40)).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "p.png")
    else:
        drawn.convert(mode).save(tmp_path / "p.png")
    plane = Plane(Crop(30, 30), ZERO, ONE)
    assert np.abs(native(plane, tmp_path / "p.png") - pillows(plane, tmp_path / "p.png")).max() < 1.5 / 255


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="COBRA_FIXTURES has no photos")
def test_photos_are_pillows_but_for_the_rounding_of_jpegs_decoder() -> None:
    plane = Plane(Squash(224), ZERO, ONE)
    for path in sorted(PHOTOS.glob("*.[jp][pn]g")):
        difference = np.abs(native(plane, path) - pillows(plane, path)) * 255
        assert difference.max() < (0.5 if path.suffix == ".png" else 3.5), path
        assert (difference > 1.5).mean() < 1e-2, path


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = noise(tmp_path / "p.png", 40, 30).read_bytes()
    preview = io.BytesIO()
    Image.new("RGB", (8, 8)).save(preview, "JPEG")
    Image.open(tmp_path / "p.png").save(tmp_path / "p.jpg", comment=preview.getvalue())
    photo = (tmp_path / "p.jpg").read_bytes()
    Image.open(tmp_path / "p.png").convert("RGB").save(tmp_path / "p.bmp")
    bitmap = (tmp_path / "p.bmp").read_bytes()
    values, said = np.empty(3, np.float32), json.dumps(Plane(Squash(1), ZERO, ONE).as_json()).encode()
    for damaged, reason in (
        (whole[:500], "is damaged"),
        (photo[: -len(photo) // 8], "is cut short: fetch it again"),
        (bitmap[:-1], "is cut short: fetch it again"),
        (b"", "is empty"),
        (b"GIF89a", "is no JPEG, PNG or BMP"),
    ):
        (tmp_path / "d.png").write_bytes(damaged)
        address = ctypes.c_void_p(values.ctypes.data)
        assert library().cobra_pixels_read(said, str(tmp_path / "d.png").encode(), address)
        assert reason in library().cobra_pictures_error().decode()
    assert library().cobra_pixels_read(b'{"way": "tiles"}', b"p.png", ctypes.c_void_p(values.ctypes.data))
    assert "pixels are made by tiles" in library().cobra_pictures_error().decode()
