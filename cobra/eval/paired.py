"""Two models on the same questions: the difference, and how sure it is."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

Credits = NDArray[np.float64]
RESAMPLES = 10_000
# of resamples that are drawn at once, times distinct differences: 64 MB
_DRAWN = 1 << 23


@dataclass(frozen=True)
class Paired:
    """B against A, question by question; accuracies and differences in points.

    Attributes:
        questions: that both answered.
        a: mean credit of A.
        b: mean credit of B.
        low: lower end of the 95 % interval of `b - a`.
        high: upper end.
        both: questions with credit for both.
        only_a: with more credit for A.
        only_b: with more credit for B.
        neither: without credit for either.
        p: McNemar's exact test that a difference is as likely either way; None where credits are in between,
            or questions belong together.
    """

    questions: int
    a: float
    b: float
    low: float
    high: float
    both: int
    only_a: int
    only_b: int
    neither: int
    p: float | None

    @property
    def difference(self) -> float:
        """B less A."""
        return self.b - self.a


def compare_credits(a: Credits, b: Credits, seed: int = 0, units: Sequence[Hashable] = ()) -> Paired:
    """What two models earned for the same questions (N,), in the same order, 0 to 1 each.

    Args:
        a: of A.
        b: of B.
        seed: of the resamples.
        units: of each question what it belongs to, such as the question that it is a rotation of: these are
            drawn, and not their parts, which are right together. Empty: each is alone.
    """
    sums, sizes = _of_units(b - a, units)
    low, high = bootstrap_interval(sums, seed, sizes=sizes)
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    whole = len(sums) == len(a) and bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
    return Paired(
        questions=len(a),
        a=100 * float(a.mean()),
        b=100 * float(b.mean()),
        low=100 * low,
        high=100 * high,
        both=int(((a == b) & (a > 0)).sum()),
        only_a=only_a,
        only_b=only_b,
        neither=int(((a == b) & (a == 0)).sum()),
        p=mcnemar(only_a, only_b) if whole else None,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Chance of a split at least as uneven, if every such question were a coin (two-sided, exact)."""
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def bootstrap_interval(
    differences: Credits, seed: int = 0, resamples: int = RESAMPLES, sizes: Credits | None = None
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of differences (N,), or of sums of so many of them (N,).

    A resample is known by how often it has each distinct difference, which is multinomial; there are few of
    these, whatever N is.
    """
    pairs = np.stack([differences, np.ones_like(differences) if sizes is None else sizes])
    (values, weights), counts = np.unique(pairs, axis=1, return_counts=True)
    random = np.random.default_rng(seed)
    at_once = max(1, _DRAWN // len(values))
    means = []
    for size in _pieces(resamples, at_once):
        drawn = random.multinomial(len(differences), counts / len(differences), size)
        means.append((drawn @ values) / (drawn @ weights))
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def _of_units(differences: Credits, units: Sequence[Hashable]) -> tuple[Credits, Credits]:
    """Of each unit the sum of its differences, and how many there are (U,)."""
    if not units:
        return differences, np.ones_like(differences)
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    places = [numbers[unit] for unit in units]
    sums, sizes = np.bincount(places, differences), np.bincount(places)
    return sums.astype(np.float64), sizes.astype(np.float64)


def _pieces(total: int, size: int) -> list[int]:
    whole, rest = divmod(total, size)
    return [size] * whole + [rest] * bool(rest)
