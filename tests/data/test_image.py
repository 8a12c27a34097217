import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cobra.data import image as image_module
from cobra.data.image import load_rgb


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    return tuple(np.asarray(image)[y, x].tolist())


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "array", "pil"])
def test_every_kind_of_source_opens(kind: str, tmp_path: Path) -> None:
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    sources: dict[str, Any] = {"str": str(path), "path": path, "bytes": path.read_bytes(), "array": pixels}
    loaded = load_rgb(sources.get(kind, Image.open(path)))
    assert loaded.mode == "RGB"
    assert np.array_equal(np.asarray(loaded), pixels)


@pytest.mark.parametrize("form", ["GIF", "PNG"])
def test_palette_becomes_its_colours(form: str) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixel(load_rgb(encoded(image, form))) == (10, 200, 30)


def test_transparency_is_laid_on_white() -> None:
    clear, half = Image.new("RGBA", (2, 2), (255, 0, 0, 0)), Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert pixel(load_rgb(encoded(clear, "PNG"))) == (255, 255, 255)
    assert pixel(load_rgb(encoded(half, "PNG"))) == (127, 127, 127)
    assert pixel(load_rgb(encoded(Image.new("LA", (2, 2), (0, 0)), "PNG"))) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert pixel(load_rgb(encoded(palette, "PNG", transparency=1))) == (255, 255, 255)


def test_what_a_format_says_of_broken_bytes_is_told_as_of_any() -> None:
    # AVIF's decoder raises RuntimeError, and DDS without a pixel format NotImplementedError
    broken = bytearray(encoded(Image.new("RGB", (8, 8)), "DDS"))
    broken[80:84] = bytes(4)
    with pytest.raises(ValueError, match=r"image of .* bytes cannot be opened"):
        load_rgb(bytes(broken))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    image = Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16))
    loaded = load_rgb(encoded(image, form))
    assert [pixel(loaded, x)[0] for x in range(4)] == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 77, 255, 200], [0, 77, 255, 200]), ([0, 257, 32896, 65535], [0, 1, 128, 255])],
)
def test_integers_of_32_bits_are_what_they_hold(values: list[int], expected: list[int]) -> None:
    """Of 0 to 255 as they are: as 16 bits they would be black."""
    loaded = load_rgb(encoded(Image.fromarray(np.array([values], np.int32)), "TIFF"))
    assert [pixel(loaded, x)[0] for x in range(4)] == expected


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_of_no_fixed_range_are_refused(value: int) -> None:
    data = encoded(Image.fromarray(np.array([[0, value]], np.int32)), "TIFF")
    with pytest.raises(ValueError, match=rf"reach from .*{value}.*save it with 8 bits"):
        load_rgb(data)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_a_picture_is_decoded_in_eight_bytes_a_pixel(mode: str, tmp_path: Path) -> None:
    """Once as it is stored and once as it comes out, so that `MAX_PIXELS` bounds the memory, too."""
    Image.new(mode, (3000, 3000)).save(tmp_path / "a.png", compress_level=1)
    peak = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024"
    code = (
        f"from cobra.data.image import load_rgb; before = {peak}; load_rgb('{tmp_path}/a.png'); "
        f"print(({peak} - before) / 3000**2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 10


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [("L", 77, (77, 77, 77)), ("1", 1, (255, 255, 255)), ("CMYK", (0, 255, 255, 0), (255, 0, 0))],
)
def test_other_modes_become_rgb(mode: str, color: object, expected: tuple[int, ...]) -> None:
    loaded = load_rgb(encoded(Image.new(mode, (8, 8), color), "TIFF"))  # type: ignore[arg-type]
    assert pixel(loaded) == expected


def test_cmyk_jpeg_is_not_inverted() -> None:
    red = pixel(load_rgb(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)))
    assert red[0] > 240
    assert max(red[1:]) < 15


def test_exif_turns_the_picture_upright() -> None:
    image = Image.new("RGB", (6, 4), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    assert load_rgb(encoded(image, "JPEG", exif=exif)).size == (4, 6)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_file_is_named(form: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form)
    path = tmp_path / "broken.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"broken\.img.*fetch it again"):
        load_rgb(path)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=rf"image of {len(data)} bytes cannot be"):
        load_rgb(data)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path):
        with pytest.raises(ValueError, match=rf"{path.name}' cannot be opened \(it is no file\)"):
            load_rgb(path)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"a\.jpg' cannot be opened \(it is empty\): fetch it again"):
        load_rgb(tmp_path / "a.jpg")


def test_postscript_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args: pytest.fail("run"))
    data = encoded(Image.new("RGB", (8, 8)), "EPS")
    with pytest.raises(ValueError, match=r"PostScript, a program .* save it as PNG"):
        load_rgb(data)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_its_first_picture(form: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    data = encoded(red, form, save_all=True, append_images=[blue], lossless=True)
    assert pixel(load_rgb(data)) == (255, 0, 0)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png.*check its path"):
        load_rgb(tmp_path / "gone.png")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_array_that_is_no_picture_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        load_rgb(array)


def test_too_large_picture_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("1", (65_600, 1)), "PNG")
    with pytest.raises(ValueError, match="65600 × 1"):
        load_rgb(data)
    monkeypatch.setattr(image_module, "MAX_PIXELS", 99)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="10 × 10"):
        load_rgb(Image.new("RGB", (10, 10)))


def test_a_picture_50000_pixels_wide_is_read_or_refused_with_a_remedy() -> None:
    assert load_rgb(encoded(Image.new("1", (50_000, 3)), "PNG")).size == (50_000, 3)
    with pytest.raises(ValueError, match=r"too large .*2500000000 pixels.*: scale it down"):
        load_rgb(claiming(50_000, 50_000))


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header (ISO 15948, 11.2.2) promises more than there is."""
    data = encoded(Image.new("1", (1, 1)), "PNG")
    header = data[12:16] + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="8 bits"):
        load_rgb(encoded(Image.new("F", (4, 4), 0.5), "TIFF"))
