"""Axes that do not exaggerate."""

import pytest
from matplotlib.figure import Figure

from cobra.bench.plot import _widen


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
