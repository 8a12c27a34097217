"""Confusion matrices: every answer is counted once, in its place."""

from pathlib import Path

import numpy as np
from PIL import Image

from cobra.eval.confusion import count_confusion, draw_confusion
from cobra.eval.predictions import Prediction

ANSWERS = [("two", "two"), ("two", "ten"), ("zero", "two"), ("ten", "zero"), ("blue", "mauve")]


def predictions(kind: str = "count") -> list[Prediction]:
    return [
        Prediction("test", str(number), kind, "?", said, [true])
        for number, (true, said) in enumerate(ANSWERS)
    ]


def test_rows_are_true_answers_and_columns_given_ones() -> None:
    true, given, counts = count_confusion(predictions())
    assert true == ["zero", "two", "blue", "ten"]
    assert given == [*true, "other"]
    expected = np.zeros((4, 5), dtype=int)
    for row, column in ((1, 1), (1, 3), (0, 1), (3, 0), (2, 4)):
        expected[row, column] = 1
    assert (counts == expected).all()


def test_a_matrix_is_drawn_for_every_type(tmp_path: Path) -> None:
    draw_confusion(predictions("count") + predictions("color"), tmp_path / "confusion.png", columns=2)
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.width > 1.8 * picture.height
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100
