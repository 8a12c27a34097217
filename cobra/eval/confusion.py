"""Confusion matrices, one a type of question."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cobra.eval.predictions import Prediction

# Answers that no question has, gathered in one column.
_OTHER = "other"


def draw_confusion(predictions: Sequence[Prediction], path: Path, columns: int = 4) -> None:
    """Write a PNG with a matrix for each type of question: true answers down, given answers across."""
    kinds = sorted({prediction.kind for prediction in predictions})
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(columns * 3.6, rows * 3.8), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[len(kinds) :]:
        axes.set_axis_off()
    for axes, kind in zip(grid, kinds, strict=False):
        alike = [prediction for prediction in predictions if prediction.kind == kind]
        _draw_matrix(axes, kind, *count_confusion(alike))
    figure.savefig(path, dpi=110)


def count_confusion(predictions: Sequence[Prediction]) -> tuple[list[str], list[str], np.ndarray]:
    """True answers, given answers and how often each met the other, (true, given)."""
    true = sorted({prediction.answers[0] for prediction in predictions}, key=_in_order)
    strange = any(prediction.prediction not in true for prediction in predictions)
    given = [*true, *([_OTHER] if strange else [])]
    counts = np.zeros((len(true), len(given)), dtype=int)
    for prediction in predictions:
        column = prediction.prediction if prediction.prediction in true else _OTHER
        counts[true.index(prediction.answers[0]), given.index(column)] += 1
    return true, given, counts


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _in_order(answer: str) -> tuple[int, str]:
    return (_NUMBERS.index(answer) if answer in _NUMBERS else len(_NUMBERS), answer)


def _draw_matrix(axes: Axes, kind: str, true: list[str], given: list[str], counts: np.ndarray) -> None:
    shares = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    right = np.trace(counts) / counts.sum()
    axes.set_title(f"{kind}: {100 * right:.1f} % right", fontsize=10)
    axes.set_xticks(range(len(given)), given, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(true)), true, fontsize=8)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color=color)
    # right answers lie on the diagonal
    axes.set_ylabel("true answer", fontsize=8)
    axes.set_xlabel("given answer", fontsize=8)
