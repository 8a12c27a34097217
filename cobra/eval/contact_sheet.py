"""Pictures with what was asked, what is true and what the model said."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cobra.data.image import load_rgb
from cobra.data.record import Record
from cobra.eval.predictions import Prediction

Answered = tuple[Record, Prediction]


def pick(answered: Sequence[Answered], per_kind: int = 3) -> list[Answered]:
    """A few of each type of question, evenly spread over the data whatever the answers were."""
    chosen = []
    kinds = sorted({prediction.kind for _, prediction in answered})
    for number, kind in enumerate(kinds):
        alike = [pair for pair in answered if pair[1].kind == kind]
        stride = max(1, len(alike) // per_kind)
        # a scene is asked about in several ways: each type starts elsewhere, so that scenes seldom repeat
        chosen += alike[number * stride // len(kinds) :: stride][:per_kind]
    return chosen


def draw_contact_sheet(answered: Sequence[Answered], path: Path, columns: int = 6) -> None:
    """Write a PNG with one cell an answer; right answers are green, wrong ones red with the truth below."""
    rows = -(-len(answered) // columns)
    figure = Figure(figsize=(columns * 2.3, rows * 3), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[len(answered) :]:
        axes.set_axis_off()
    for axes, (record, prediction) in zip(grid, answered, strict=False):
        if record.images:
            axes.imshow(load_rgb(record.images[0]), interpolation="nearest")
        axes.set_title(_cut(prediction.question), fontsize=9, loc="left")
        said = _cut(prediction.prediction) or "(nothing)"
        color, text = ("#1a7f37", f"✓ {said}\n")
        if not prediction.is_right:
            color, text = ("#cf222e", f"✗ {said}\n    true: {_cut(' / '.join(prediction.answers))}")
        axes.set_xlabel(text, color=color, fontsize=10, loc="left")
        axes.set(xticks=[], yticks=[])
        # the frame tells right from wrong at a glance
        axes.spines[:].set(color=color, linewidth=3)
    figure.savefig(path, dpi=110)


def _cut(text: str) -> str:
    """A few short lines, as a cell has room for."""
    return "\n".join(textwrap.wrap(text, 26, max_lines=5, placeholder=" …"))
