"""Forest plot: differences between two models with their intervals, a row a benchmark or kind of question."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from cobra.eval.paired import Paired

_BETTER, _WORSE, _UNSURE = "#1a7f37", "#cf222e", "#6e7781"


def draw_forest(results: Mapping[str, Mapping[str, Paired]], a: str, b: str, path: Path) -> None:
    """Write a PNG: B less A in points, coloured where the interval leaves out zero."""
    rows = [(name, kind, paired) for name, kinds in results.items() for kind, paired in kinds.items()]
    figure = Figure(figsize=(9, 1.5 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#24292f", linewidth=0.8)
    for place, (_, kind, paired) in enumerate(rows):
        color = _BETTER if paired.low > 0 else _WORSE if paired.high < 0 else _UNSURE
        whole = kind == "all"
        axes.plot([paired.low, paired.high], [place, place], color=color, linewidth=2.2 if whole else 1.2)
        axes.plot(paired.difference, place, "s" if whole else "o", color=color, markersize=7 if whole else 4)
        text = f"{paired.difference:+.2f}  ({paired.a:.1f} → {paired.b:.1f}, n = {paired.questions:,})"
        axes.annotate(
            text, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color="#24292f"
        )
    labels = [name if kind == "all" else f"{kind}  " for name, kind, _ in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=9)
    for label, (_, kind, _paired) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if kind == "all" else "normal")
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="points, B less A, with 95 % intervals")
    axes.set_title(f"A: {a}\nB: {b}", fontsize=9, loc="left")
    axes.grid(axis="x", color="#d0d7de", linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=110)
