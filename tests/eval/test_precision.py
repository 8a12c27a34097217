"""Choosing a precision by timing it."""

import pytest

from cobra.eval import precision


@pytest.mark.parametrize(("bf16", "expected"), [(0.5, "bf16-mixed"), (0.8, "32-true"), (3.0, "32-true")])
def test_bf16_is_taken_where_it_wins_clearly(
    monkeypatch: pytest.MonkeyPatch, bf16: float, expected: str
) -> None:
    times = iter([1.0, bf16])
    monkeypatch.setattr(precision, "_best_time", lambda work: next(times))
    assert precision.fastest_precision() == expected


def test_the_timing_itself_runs() -> None:
    assert precision.fastest_precision() in ("bf16-mixed", "32-true")
