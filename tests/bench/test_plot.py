"""Axes that do not exaggerate, pictures as tall as what they show."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from cobra.bench.plot import _widen, draw


@pytest.mark.parametrize(("low", "high", "shown"), [(49, 56, 4.0), (2, 20, 10.0), (5, 5.0001, 4.0)])
def test_an_axis_spans_a_factor_of_four_at_least_around_its_values(
    low: float, high: float, shown: float
) -> None:
    axes = Figure().subplots()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    _widen(axes)
    bottom, top = axes.get_ylim()
    assert top / bottom == pytest.approx(shown, rel=1e-3)
    assert bottom * top == pytest.approx(low * high)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_the_picture_of_operators_is_as_tall_as_they_are_many(tmp_path: Path, rows: int) -> None:
    def height(count: int) -> int:
        common = {"length": 1, "seconds": [{"cpu": 1.0, "wall": 1.0}], "peer": False}
        entries: list[dict[str, Any]] = [
            {**common, "op": f"op {row}", "runner": runner, "label": f"op {row}, {runner}"}
            for row in range(count)
            for runner in ("cpu", "reference")
        ]
        machine = {"cpu": "", "threads": 1, "isa": "base", "load_before": [0.0]}
        report = {"kind": "kernels", "machine": machine, "settings": {}, "basis": "cpu"}
        draw({**report, "measurements": entries}, tmp_path / "kernels.png")
        return int.from_bytes((tmp_path / "kernels.png").read_bytes()[20:24], "big")  # IHDR

    # 0.45 inches a row at 90 dots an inch
    assert 36 <= height(rows + 4) - height(rows + 3) <= 45
    assert height(rows) < 60 * (rows + 4)
