"""Differences between two models against cases worked by hand and the normal approximation."""

import time
from math import comb

import numpy as np
import pytest

from cobra.eval.paired import bootstrap_interval, compare_credits, mcnemar


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 5, 2 / 2**5),
        (5, 0, 2 / 2**5),
        (1, 9, 2 * (1 + 10) / 2**10),
        (4, 4, 1.0),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
        (3, 17, 2 * sum(comb(20, k) for k in range(4)) / 2**20),
    ],
)
def test_mcnemars_p_is_twice_the_binomials_tail(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("whole", [True, False])
def test_the_interval_is_the_normal_one_where_questions_are_many(whole: bool) -> None:
    random = np.random.default_rng(1)
    a, b = (random.random((2, 3000)) ** 2).round(1)
    if whole:
        a, b = (a < 0.5).astype(float), (b < 0.45).astype(float)
    low, high = bootstrap_interval(b - a)
    error = (b - a).std() / len(a) ** 0.5
    normal = (b - a).mean() - 1.96 * error, (b - a).mean() + 1.96 * error
    assert (low, high) == pytest.approx(normal, abs=0.05 * error)


def test_a_small_interval_is_that_of_resampled_questions() -> None:
    """The plain bootstrap, index by index: skewed, so that the normal one would not do."""
    differences = np.array([1.0, 0, 0, 0, 0, 0, 0, -0.3])
    picked = np.random.default_rng(5).integers(0, 8, (40_000, 8))
    expected = np.quantile(differences[picked].mean(axis=1), (0.025, 0.975))
    assert bootstrap_interval(differences, resamples=40_000) == pytest.approx(expected, abs=0.02)


def test_counts_accuracies_and_the_sign_are_of_b_against_a() -> None:
    a = np.array([1, 1, 1, 0, 0, 0, 0, 1.0])
    b = np.array([1, 0, 1, 1, 1, 1, 0, 1.0])
    paired = compare_credits(a, b)
    assert (paired.both, paired.only_a, paired.only_b, paired.neither) == (3, 1, 3, 1)
    assert (paired.a, paired.b, paired.difference) == (50, 75, 25)
    assert paired.low < 25 < paired.high
    assert paired.p == pytest.approx(2 * (1 + 4) / 2**4)
    back = compare_credits(b, a)
    assert (back.difference, back.p) == (-25, paired.p)
    assert (back.low, back.high) == pytest.approx((-paired.high, -paired.low), abs=12.5)


def test_credits_in_between_have_no_p_and_the_seed_decides_the_interval() -> None:
    a, b = np.array([0.3, 1, 0]), np.array([0.6, 1, 0.3])
    assert compare_credits(a, b).p is None
    assert compare_credits(a, b, seed=3) == compare_credits(a, b, seed=3)
    same = compare_credits(a, a)
    assert (same.low, same.high) == (0, 0)


def test_nine_thousand_fractional_questions_take_little_memory_and_time() -> None:
    start = time.process_time()
    bootstrap_interval(np.random.default_rng(0).choice(np.linspace(-1, 1, 61), 9000))
    assert time.process_time() - start < 1


def test_what_belongs_together_is_drawn_together() -> None:
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 2, 300).astype(float) for _ in range(2))
    once = compare_credits(a, b)
    # four rotations of each, all right or all wrong: no more is known than of one
    rotations = compare_credits(np.repeat(a, 4), np.repeat(b, 4), units=np.repeat(np.arange(300), 4).tolist())
    assert (rotations.low, rotations.high) == pytest.approx((once.low, once.high))
    assert (rotations.difference, rotations.questions) == (pytest.approx(once.difference), 1200)
    assert once.p is not None
    assert rotations.p is None
    # of units of different size a question counts as much as any other
    uneven = compare_credits(np.zeros(4), np.array([1.0, 1, 1, 0]), units=["x", "x", "x", "y"])
    assert (uneven.difference, uneven.low, uneven.high) == (75, 0, 100)
