"""Boxes that answers name in words, and how well they meet the true ones."""

import re
from collections.abc import Sequence

# Left, top, right, bottom.
Box = tuple[float, float, float, float]

# each digit can belong to one part alone: what a model repeats would else take hours
_NUMBER = r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*"
_BOX = re.compile(rf"\s*\[{','.join([_NUMBER] * 4)},?\s*\]\s*")
_PLAIN = r"\s*(-?\d+(?:\.\d+)?)"
_FIRST_BOX = re.compile(rf"\[{','.join([_PLAIN] * 4)}\s*\]")


def read_box(text: str) -> Box | None:
    """The box that is the whole answer, of sides of 1; None where it is none, as in vlm-evaluation.

    That is `[left, top, right, bottom]`, each from 0 to 1, left of the right and above the bottom.
    """
    match = _BOX.fullmatch(text)
    if not match:
        return None
    left, top, right, bottom = map(float, match.groups())
    is_box = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    return (left, top, right, bottom) if is_box else None


def find_box(text: str) -> Box:
    """The first four numbers in square brackets, whatever they are, or a box at 0, as in lmms-eval."""
    match = _FIRST_BOX.search(text)
    if not match:
        return (0, 0, 0, 0)
    left, top, right, bottom = map(float, match.groups())
    return (left, top, right, bottom)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    union = _area(one) + _area(other) - shared
    # a box that is drawn from right to left may have no area, or less
    return shared / union if union else 0.0


def in_picture(xywh: Sequence[float], width: float, height: float) -> Box:
    """COCO's box (left, top, width, height) in pixels as shares of the picture's sides."""
    left, top, wide, high = xywh
    return (left / width, top / height, (left + wide) / width, (top + high) / height)


def in_square(xywh: Sequence[float], width: float, height: float) -> Box:
    """COCO's box in pixels as shares of the square that the picture is padded to, itself in the middle."""
    side = max(width, height)
    # as `LetterboxTransform` and LLaVA's expand2square pad
    left, top = (side - width) // 2, (side - height) // 2
    return in_picture((xywh[0] + left, xywh[1] + top, *xywh[2:]), side, side)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
