"""Tables of results."""

from typing import Any

from cobra.eval.summary import table


def summary(seed: int, shape: float) -> dict[str, Any]:
    scores = {"test": {"shape": shape, "macro": shape}, "composition": {"macro": 0.5}}
    return {
        "seconds": 100 + seed,
        "seconds_blind": 90,
        "steps": 7,
        "load": {"before": 0.1, "after": 2.0},
        "machine": {"threads": 2, "processor": "a processor"},
        "seed": seed,
        "precision": "32-true",
        "chance": 0.25,
        "model": scores,
        "blind": scores,
    }


def test_one_seed_is_shown_as_it_is() -> None:
    text = table([summary(3, 0.9)])
    assert "| shape | 90.0 % | 90.0 % | – |" in text
    assert "seed 3; guessing gives 25.0 %" in text
    assert "±" not in text


def test_several_seeds_are_shown_as_mean_and_deviation() -> None:
    text = table([summary(0, 0.8), summary(1, 0.9), summary(2, 1.0)])
    assert "| shape | 90.0 ± 10.0 % |" in text
    assert "over seeds 0, 1, 2" in text
    assert "7 steps in 100, 101, 102 s" in text
