"""What a run learned, and when."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

Row = dict[str, float]


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


def draw_learning_curve(rows: list[Row], path: Path, stages: list[tuple[str, int]], chance: float) -> None:
    """Write a PNG: loss above, accuracy of each type of question below, stages marked.

    Args:
        rows: from `read_metrics`.
        path: where to write.
        stages: name and last step of each stage.
        chance: macro accuracy of guessing.
    """
    figure = Figure(figsize=(9, 7), layout="constrained")
    loss_axes, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    loss_axes.plot(*zip(*losses, strict=True), color="#57606a", linewidth=1)
    loss_axes.set_yscale("log")
    loss_axes.set_ylabel("training loss")
    kinds = sorted({name for row in rows for name in row if name.startswith("val/")} - {"val/macro"})
    for name in kinds:
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name.removeprefix("val/"))
    macro = [(row["step"], row["val/macro"]) for row in rows if "val/macro" in row]
    if macro:
        axes.plot(*zip(*macro, strict=True), color="black", linewidth=2.5, label="macro")
    axes.axhline(chance, color="#57606a", linestyle=":", label="guessing (macro)")
    axes.set(ylim=(0, 1.02), xlabel="optimizer step", ylabel="accuracy on held-out scenes")
    start = 0
    for name, end in stages:
        loss_axes.text(
            (start + end) / 2, 1.01, name, ha="center", va="bottom", transform=loss_axes.get_xaxis_transform()
        )
        for each in (loss_axes, axes):
            each.axvline(end, color="#d0d7de", zorder=0)
        start = end
    axes.legend(fontsize=8, ncols=2, loc="upper left")
    figure.savefig(path, dpi=110)
