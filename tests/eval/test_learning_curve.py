"""Metrics of several launches, and the plot."""

import csv
from pathlib import Path

from PIL import Image

from cobra.eval.learning_curve import draw_learning_curve, read_metrics, write_metrics


def log(folder: Path, version: int, rows: list[dict[str, float | str]]) -> None:
    path = folder / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "loss", "val/a", "val/macro"], restval="")
        writer.writeheader()
        writer.writerows(rows)


def test_a_resumed_launch_replaces_what_it_repeats(tmp_path: Path) -> None:
    log(tmp_path, 0, [{"step": s, "loss": 3.0 - s} for s in range(3)])
    log(tmp_path, 10, [{"step": 4, "loss": 0.5}])
    log(tmp_path, 9, [{"step": 1, "loss": 0.9}, {"step": 2, "val/a": 0.5, "val/macro": 0.5}])
    rows = read_metrics(tmp_path)
    assert [(row["step"], row.get("loss")) for row in rows] == [(0, 3.0), (1, 0.9), (2, None), (4, 0.5)]
    write_metrics(rows, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0.0", "1.0", "2.0", "4.0"]
    draw_learning_curve(rows, tmp_path / "curve.png", [("only", 4)], {"a": 0.5, "macro": 0.5})
    with Image.open(tmp_path / "curve.png") as picture:
        assert min(picture.size) > 400
