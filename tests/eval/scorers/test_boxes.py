"""Boxes in answers, and what they share."""

import time

import numpy as np
import pytest
from PIL import Image

from cobra.eval.scorers.boxes import Box, find_box, in_picture, in_square, overlap, read_box
from cobra.models.vision.transform import LetterboxTransform, SquashTransform

NONE: Box = (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "read", "found"),
    [
        ("[0.1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4)),
        ("[0.10,0.20,0.30,0.40]", (0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4)),
        (" [0, 0, 1, 1]\n", (0, 0, 1, 1), (0, 0, 1, 1)),
        ("[ 0.1 , 0.2 , 0.3 , 0.4 ]", (0.1, 0.2, 0.3, 0.4), NONE),
        ("[.1, 0.2, .3, 0.4]", (0.1, 0.2, 0.3, 0.4), NONE),
        ("[0.1, 0.2, 1., 0.4]", (0.1, 0.2, 1, 0.4), NONE),
        ("[1e-1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4), NONE),
        ("[0.1, 0.2, 0.3, 0.4,]", (0.1, 0.2, 0.3, 0.4), NONE),
        # words around it
        ("The box is [0.1, 0.2, 0.3, 0.4].", None, (0.1, 0.2, 0.3, 0.4)),
        ("[0.1, 0.2, 0.3, 0.4] and [0, 0, 1, 1]", None, (0.1, 0.2, 0.3, 0.4)),
        # other brackets, other numbers
        ("(0.1, 0.2, 0.3, 0.4)", None, NONE),
        ("0.1, 0.2, 0.3, 0.4", None, NONE),
        ("[0.1 0.2 0.3 0.4]", None, NONE),
        ("[0.1, 0.2, 0.3]", None, NONE),
        ("[0.1, 0.2, 0.3, 0.4, 0.5]", None, NONE),
        ("[[0.1, 0.2, 0.3, 0.4]]", None, (0.1, 0.2, 0.3, 0.4)),
        ("[a, b, c, d]", None, NONE),
        ("", None, NONE),
        # no shares of a picture, or no area
        ("[10, 20, 30, 40]", None, (10, 20, 30, 40)),
        ("[-0.1, 0.2, 0.3, 0.4]", None, (-0.1, 0.2, 0.3, 0.4)),
        ("[0.1, 0.2, 1.01, 0.4]", None, (0.1, 0.2, 1.01, 0.4)),
        ("[0.3, 0.2, 0.1, 0.4]", None, (0.3, 0.2, 0.1, 0.4)),
        ("[0.1, 0.2, 0.1, 0.4]", None, (0.1, 0.2, 0.1, 0.4)),
        ("[nan, 0.2, 0.3, 0.4]", None, NONE),
    ],
)
def test_boxes_are_read_as_vlm_evaluation_and_as_lmms_eval_read_them(
    text: str, read: Box | None, found: Box
) -> None:
    assert (read_box(text), find_box(text)) == (read, found)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1),
        ((0, 0, 0.5, 1), (0.5, 0, 1, 1), 0),
        ((0, 0, 0.5, 0.5), (0.6, 0.6, 1, 1), 0),
        ((0, 0, 1, 1), (0, 0, 0.5, 1), 0.5),
        ((0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75), 1 / 7),
        ((0.2, 0.2, 0.4, 0.4), (0, 0, 1, 1), 0.04),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0),
        ((0, 0, 0, 0), (0, 0, 1, 1), 0),
    ],
)
def test_overlap(one: Box, other: Box, shared: float) -> None:
    assert overlap(one, other) == pytest.approx(shared)
    assert overlap(other, one) == pytest.approx(shared)


def test_overlap_is_that_of_counted_cells() -> None:
    draw = np.random.default_rng(0)
    for _ in range(30):
        boxes = np.sort(draw.integers(0, 20, (2, 2, 2)), axis=1) + np.array([[0, 0], [1, 1]])
        cells = np.zeros((2, 22, 22), bool)
        for grid, ((left, top), (right, bottom)) in zip(cells, boxes, strict=True):
            grid[top:bottom, left:right] = True
        one, other = (tuple(box.flatten().tolist()) for box in boxes)
        assert overlap(one, other) == pytest.approx((cells[0] & cells[1]).sum() / (cells[0] | cells[1]).sum())


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50), (61, 20)])
def test_both_conventions_are_where_the_transforms_put_the_box(size: tuple[int, int]) -> None:
    """The oracle is a red box, looked for in the square that the model sees."""
    left, top, wide, high = 10, 5, 20, 10
    image = Image.new("RGB", size)
    image.paste((255, 0, 0), (left, top, left + wide, top + high))
    side = 600
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    for transform, convention in (
        (SquashTransform(side, mean, std), in_picture),
        (LetterboxTransform(side, mean, std), in_square),
    ):
        rows, columns = np.nonzero(np.asarray(transform.plane.square(image))[:, :, 0] > 127)
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        box = convention((left, top, wide, high), *size)
        assert np.allclose(np.array(seen) / side, box, atol=2 / side)


@pytest.mark.parametrize("repeated", ["0", ".", "0.", " ", "[", "[0,", "-"])
def test_an_answer_that_repeats_itself_is_read_at_once(repeated: str) -> None:
    started = time.process_time()
    for text in (repeated * 2000, "[" + ", ".join([repeated * 500] * 4)):
        assert (read_box(text), find_box(text)) == (None, NONE)
    assert time.process_time() - started < 0.5
