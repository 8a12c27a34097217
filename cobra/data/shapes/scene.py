"""Scenes: coloured shapes and one digit on a 4 × 4 grid, as text-free facts."""

from collections import Counter
from random import Random
from typing import Literal, NamedTuple

import numpy as np

# Part of every seed and cache key: raise it with any change to what is generated.
VERSION = 4

Split = Literal["train", "test", "composition"]
SPLITS: tuple[Split, ...] = ("train", "test", "composition")

GRID = 4
# Names of the cells in reading order. Letters alone: "a1" would be two tokens, and a model that has to put a
# key together before it can look it up learns captions several times slower.
CELL_NAMES = "abcdefghijklmnop"
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 220, 50),
    "purple": (160, 60, 200),
    "cyan": (60, 210, 220),
    "orange": (245, 140, 30),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_PAIRS = [(color, shape) for color in COLORS for shape in SHAPES]
# Never drawn in training, though each colour of theirs and each shape is, as in CLEVR-CoGenT.
HELD_OUT = tuple(
    (color, shape) for c, color in enumerate(COLORS) for s, shape in enumerate(SHAPES) if (c + 2 * s) % 8 == 0
)
ALLOWED = tuple(pair for pair in _PAIRS if pair not in HELD_OUT)

# The first 1400 of scikit-learn's 1797 digits are for training; file order separates most writers.
TRAIN_DIGITS = range(1400)
TEST_DIGITS = range(1400, 1797)

# Without favourites nearly no scene has four of anything.
_FAVOUR = 0.7
_COLOR_NAMES = tuple(COLORS)
_POOLS = {"train": ALLOWED, "test": ALLOWED, "composition": ALLOWED + 3 * HELD_OUT}


class Object(NamedTuple):
    """A coloured shape in a cell, counted in reading order from the top left."""

    color: str
    shape: str
    cell: int

    @property
    def pair(self) -> tuple[str, str]:
        """What must not be seen together when it is held out."""
        return self.color, self.shape


class Scene(NamedTuple):
    """The content of a picture.

    Attributes:
        objects: two to six, each alone in its cell; the digit is not one of them.
        digit: its value.
        digit_cell: where it is written.
        glyph: which of scikit-learn's digits is drawn.
    """

    objects: list[Object]
    digit: int
    digit_cell: int
    glyph: int


def draw_scene(rng: Random, split: Split, digits: np.ndarray) -> Scene:
    """A random scene of the split; `digits` (1797,) are the values of scikit-learn's digits.

    One scene in three favours a colour and one in three a shape, so that counts up to four are all frequent.
    """
    favour = rng.randrange(3)
    count = rng.randrange(4 if favour else 2, 7)
    cells = rng.sample(range(GRID**2), count + 1)
    color = rng.choice(_COLOR_NAMES) if favour == 1 else None
    shape = rng.choice(SHAPES) if favour == 2 else None
    objects = [Object(*_draw_pair(rng, split, color, shape), cell) for cell in cells[:count]]
    glyph = rng.choice(TRAIN_DIGITS if split == "train" else TEST_DIGITS)
    return Scene(objects, int(digits[glyph]), cells[count], glyph)


def _draw_pair(rng: Random, split: Split, color: str | None, shape: str | None) -> tuple[str, str]:
    pool = _POOLS[split]
    # a favoured colour may leave only held-out pairs, so tries are capped
    for _ in range(20):
        pair = rng.choice(pool)
        if color and rng.random() < _FAVOUR:
            pair = (color, pair[1])
        if shape and rng.random() < _FAVOUR:
            pair = (pair[0], shape)
        if split == "composition" or pair not in HELD_OUT:
            return pair
    return rng.choice(ALLOWED)


def cell_labels(scene: Scene) -> np.ndarray:
    """Classes of each cell (16, 3) int8: colour 1–8, shape 1–6 or 7 (digit), digit + 1; 0 is nothing."""
    labels = np.zeros((GRID**2, 3), np.int8)
    for color, shape, cell in scene.objects:
        labels[cell, :2] = 1 + _COLOR_NAMES.index(color), 1 + SHAPES.index(shape)
    labels[scene.digit_cell, 1:] = 1 + len(SHAPES), 1 + scene.digit
    return labels


def caption(labels: np.ndarray) -> str:
    """What the cells (16, 3) hold, in reading order: "a red circle, k seven digit".

    A number stands where a color does, so that one look-up by the cell's name finds either.
    """
    phrases = []
    for cell, (color, shape, digit) in enumerate(labels.tolist()):
        if shape:
            what = f"{NUMBERS[digit - 1]} digit" if digit else _pair_name(color, shape)
            phrases.append(f"{CELL_NAMES[cell]} {what}")
    return ", ".join(phrases)


def name_places(labels: np.ndarray, rng: Random) -> list[tuple[str, str]]:
    """What the cells (16, 3) hold and which holds it, in random order: [("red circle", "a"), ("digit", "k")].

    Each is called by its color, its shape or both, whatever tells it from the others.
    """
    cells = [
        (CELL_NAMES[cell], ("digit",) if digit else _names(color, shape))
        for cell, (color, shape, digit) in enumerate(labels.tolist())
        if shape
    ]
    often = Counter(name for _, names in cells for name in names)
    single = [(cell, [name for name in names if often[name] == 1]) for cell, names in cells]
    places = [(rng.choice(names), cell) for cell, names in single if names]
    rng.shuffle(places)
    return places


def _names(color: int, shape: int) -> tuple[str, ...]:
    return f"{_COLOR_NAMES[color - 1]} object", SHAPES[shape - 1], _pair_name(color, shape)


def _pair_name(color: int, shape: int) -> str:
    return f"{_COLOR_NAMES[color - 1]} {SHAPES[shape - 1]}"
