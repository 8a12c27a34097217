"""Scenes to pixels."""

from functools import cache

import numpy as np

from cobra.data.shapes.scene import COLORS, GRID, SHAPES, Scene

SIDE = 64
_CELL = SIDE // GRID
_GLYPH = 14
_RADII = (5, 6, 7)
_NOISE = np.float32(6)
# how much training digits are turned (radians), scaled and moved (pixels)
_TURN, _STRETCH, _MOVE = 0.2, 0.1, 1.0
_WRITING = np.full(3, 250, np.float32)


@cache
def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Real handwritten digits: ink (1797, 14, 14) from 0 to 1, and their values (1797,)."""
    # a second of imports that is only needed when nothing is cached
    from sklearn import datasets

    digits = datasets.load_digits()
    return _enlarge(digits.images.astype(np.float32) / 16, _GLYPH), digits.target


def render(scenes: list[Scene], seed: list[int], varied: bool = False) -> np.ndarray:
    """Pictures (scenes, 64, 64, 3) uint8: shapes of random size, place and brightness on a noisy ground.

    With `varied`, digits are turned, scaled and moved a little: there are few writers to learn from.
    """
    rng = np.random.default_rng(seed)
    pictures = np.empty((len(scenes), SIDE, SIDE, 3), np.uint8)
    for picture, scene in zip(pictures, scenes, strict=True):
        picture[:] = _render(scene, rng, varied)
    return pictures


def _render(scene: Scene, rng: np.random.Generator, varied: bool) -> np.ndarray:
    # one draw a picture: each call costs more than its numbers
    u = rng.random((len(scene.objects) + 1, 4), np.float32)
    canvas = np.empty((SIDE, SIDE, 3), np.float32)
    canvas[:] = (10 + 60 * u[0, 0]) * (0.8 + 0.4 * u[0, 1:])
    for (color, shape, cell), (size, down, right, light) in zip(scene.objects, u[1:].tolist(), strict=True):
        radius = _RADII[int(size * len(_RADII))]
        top = _place(cell // GRID, radius, down)
        left = _place(cell % GRID, radius, right)
        _paint(canvas, top, left, _masks()[shape, radius], _inks()[color] * np.float32(0.85 + 0.2 * light))
    top, left = (_CELL * i for i in divmod(scene.digit_cell, GRID))
    _paint(canvas, top, left, _write(load_digits()[0][scene.glyph], *_hand(rng, varied)), _WRITING)
    canvas += _NOISE * rng.standard_normal(canvas.shape, np.float32)
    return np.clip(canvas, 0, 255, out=canvas)


def _hand(rng: np.random.Generator, varied: bool) -> tuple[float, float, float, float]:
    """Angle in radians, scale, and how far down and right the digit is moved in pixels."""
    if not varied:
        return 0.0, 1.0, 0.0, 0.0
    turn, size, down, right = (2 * rng.random(4) - 1).tolist()
    return _TURN * turn, 1 + _STRETCH * size, _MOVE * down, _MOVE * right


def _write(ink: np.ndarray, angle: float, scale: float, down: float, right: float) -> np.ndarray:
    """The ink (14, 14) of a digit turned, scaled and moved in its cell (16, 16), bilinear."""
    y, x = _cell_grid()
    y, x = (y - down) / scale, (x - right) / scale
    middle = (len(ink) - 1) / 2
    # one more row and column of nothing all around, into which all that lies outside falls
    padded = np.pad(ink, 2)
    limit = len(padded) - 2
    rows = np.clip(np.cos(angle) * y - np.sin(angle) * x + middle + 2, 0, limit)
    columns = np.clip(np.sin(angle) * y + np.cos(angle) * x + middle + 2, 0, limit)
    top, left = rows.astype(int), columns.astype(int)
    down_share, right_share = rows - top, columns - left
    upper = padded[top, left] * (1 - right_share) + padded[top, left + 1] * right_share
    lower = padded[top + 1, left] * (1 - right_share) + padded[top + 1, left + 1] * right_share
    return (upper * (1 - down_share) + lower * down_share).astype(np.float32)


@cache
def _cell_grid() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a cell's pixels, from its middle."""
    return np.meshgrid(*[np.arange(_CELL) - (_CELL - 1) / 2] * 2, indexing="ij")


def _place(index: int, radius: int, u: float) -> int:
    """First row or column of a shape: its cell's middle, jittered by what the radius leaves of the cell."""
    room = _CELL // 2 - radius
    first = index * _CELL + _CELL // 2 - radius + int(u * (2 * room + 1)) - room
    return min(first, SIDE - 2 * radius - 1)


def _paint(canvas: np.ndarray, top: int, left: int, mask: np.ndarray, ink: np.ndarray) -> None:
    """Blend `ink` (3,) into the canvas where the mask (h, w) is 1."""
    height, width = mask.shape
    patch = canvas[top : top + height, left : left + width]
    patch += mask[..., None] * (ink - patch)


@cache
def _inks() -> dict[str, np.ndarray]:
    return {color: np.array(rgb, np.float32) for color, rgb in COLORS.items()}


@cache
def _masks() -> dict[tuple[str, int], np.ndarray]:
    """Antialiased coverage (2r + 1, 2r + 1) of each shape at each radius."""
    return {(shape, r): mask for r in _RADII for shape, mask in zip(SHAPES, _coverages(r), strict=True)}


def _coverages(r: int) -> list[np.ndarray]:
    """Coverage of each of SHAPES from the signed distance to its border."""
    y, x = np.mgrid[-r : r + 1, -r : r + 1].astype(np.float32)
    ax, ay, distance = abs(x), abs(y), np.hypot(x, y)

    def inside(signed: np.ndarray) -> np.ndarray:
        return np.clip(signed + 0.5, 0, 1)

    bar = np.minimum(inside(r * 0.3 - ax), inside(r * 0.95 - ay))
    return [
        inside(r * 0.95 - distance),
        inside(r * 0.82 - np.maximum(ax, ay)),
        np.minimum(inside((y + r * 0.9) / 2 - ax), inside(r * 0.8 - y)),
        np.maximum(bar, bar.T),
        np.minimum(inside(r * 0.95 - distance), inside(distance - r * 0.5)),
        inside(r * 0.98 - ax - ay),
    ]


def _enlarge(images: np.ndarray, side: int) -> np.ndarray:
    """Bilinear resize of square images (n, h, h) to (n, side, side)."""
    at = np.linspace(0, images.shape[1] - 1, side, dtype=np.float32)
    low = np.minimum(at.astype(int), images.shape[1] - 2)
    high = at - low
    rows = images[:, low] * (1 - high)[:, None] + images[:, low + 1] * high[:, None]
    return rows[:, :, low] * (1 - high) + rows[:, :, low + 1] * high
