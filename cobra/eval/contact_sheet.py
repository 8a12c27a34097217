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
    for kind in sorted({prediction.kind for _, prediction in answered}):
        alike = [pair for pair in answered if pair[1].kind == kind]
        chosen += alike[:: max(1, len(alike) // per_kind)][:per_kind]
    return chosen


def draw_contact_sheet(answered: Sequence[Answered], path: Path, columns: int = 6) -> None:
    """Write a PNG with one cell an answer; right answers are green, wrong ones red with the truth beside."""
    rows = -(-len(answered) // columns)
    figure = Figure(figsize=(columns * 2.3, rows * 2.9), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, (record, prediction) in zip(grid, answered, strict=False):
        if record.images:
            axes.imshow(load_rgb(record.images[0]), interpolation="nearest")
        axes.set_title("\n".join(textwrap.wrap(prediction.question, 26)), fontsize=9, loc="left")
        said = prediction.prediction or "(nothing)"
        color, text = ("#1a7f37", f"✓ {said}")
        if not prediction.is_right:
            color, text = ("#cf222e", f"✗ {said}   (true: {' / '.join(prediction.answers)})")
        axes.text(0, -0.04, text, color=color, fontsize=9, transform=axes.transAxes, va="top", wrap=True)
    figure.savefig(path, dpi=110)
