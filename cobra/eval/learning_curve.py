"""Learning curves: accuracy of each type by steps, and the loss."""

import csv
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Row = dict[str, float]

_COLUMNS = 4


def read_metrics(logs: Path) -> list[Row]:
    """The metrics of all launches of a run, as one: what a resumed launch repeats replaces what was there."""
    rows: list[Row] = []
    for version in sorted(logs.glob("version_*"), key=lambda p: int(p.name.rpartition("_")[2])):
        path = version / "metrics.csv"
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            new = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        if new:
            rows = [row for row in rows if row["step"] < new[0]["step"]] + new
    return rows


def write_metrics(rows: list[Row], path: Path) -> None:
    """Write metrics as one CSV."""
    columns = sorted({name for row in rows for name in row}, key=lambda name: (name != "step", name))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def draw_learning_curve(
    rows: list[Row], path: Path, stages: list[tuple[str, int]], chances: Mapping[str, float]
) -> None:
    """Write a PNG: loss and macro accuracy above, a panel for each type of question below, stages marked.

    Args:
        rows: from `read_metrics`.
        path: where to write.
        stages: name and last step of each stage.
        chances: accuracy of guessing, for each type and `macro`.
    """
    kinds = sorted({name for row in rows for name in row if name.startswith("val/")} - {"val/macro"})
    panels = [*kinds, *["."] * (-len(kinds) % _COLUMNS)]
    below = [panels[i : i + _COLUMNS] for i in range(0, len(panels), _COLUMNS)]
    half = _COLUMNS // 2
    figure = Figure(figsize=(12, 3.2 + 2.3 * len(below)), layout="constrained")
    every: dict[str, Axes] = figure.subplot_mosaic(
        [["loss"] * half + ["val/macro"] * half, *below], height_ratios=[1.4, *[1] * len(below)], sharex=True
    )
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    # points: where a stage mixes its data, batches of one kind lie far from those of another
    every["loss"].plot(*zip(*losses, strict=True), ".", color="#57606a", markersize=4)
    every["loss"].set(yscale="log", title="training loss")
    for name in [*kinds, "val/macro"]:
        _draw_accuracy(every[name], name, rows, chances.get(name.removeprefix("val/")))
    for panel in every.values():
        panel.tick_params(labelbottom=True, labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        for _, end in stages:
            panel.axvline(end, color="#d0d7de", zorder=0)
    _name(every["loss"], stages)
    _name(every["val/macro"], stages)
    figure.supxlabel("optimizer step", fontsize=10)
    figure.savefig(path, dpi=110)


def _draw_accuracy(axes: Axes, name: str, rows: list[Row], chance: float | None) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    axes.set(ylim=(0, 1.1), yticks=[0, 0.25, 0.5, 0.75, 1])
    if not points:
        return
    color = "black" if name == "val/macro" else "#0969da"
    axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=color)
    title = "macro: mean of the types" if name == "val/macro" else name.removeprefix("val/")
    axes.set_title(f"{title}, {100 * points[-1][1]:.0f} % at step {points[-1][0]:.0f}")
    if chance is not None:
        axes.axhline(chance, color="#cf222e", linestyle=":", linewidth=1.2)
        axes.text(0, chance + 0.02, "guessing", color="#cf222e", fontsize=8, va="bottom")


def _name(axes: Axes, stages: list[tuple[str, int]]) -> None:
    """Write the name of each stage into it, near the top."""
    start = 0
    for name, end in stages:
        middle = (start + end) / 2
        axes.text(middle, 1, name, ha="center", va="top", fontsize=9, transform=axes.get_xaxis_transform())
        start = end
