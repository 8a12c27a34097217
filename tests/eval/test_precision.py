"""Choosing a precision by the speed of products."""

import pytest

from cobra.eval import precision


@pytest.mark.parametrize(("speed", "expected"), [(2.0, "bf16-mixed"), (1.25, "32-true"), (0.3, "32-true")])
def test_bf16_is_taken_where_it_wins_clearly(
    monkeypatch: pytest.MonkeyPatch, speed: float, expected: str
) -> None:
    monkeypatch.setattr(precision, "bf16_speed", lambda: speed)
    assert precision.fastest_precision() == expected
