"""A law of state: what is asked of an engine, how far off it may be, and what was found."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cobra.export.engine import Engine, Floats, Ids
from cobra.export.oracle import Oracle

GREEN, RED, NONE = "green", "red", "n/a"


@dataclass(frozen=True)
class Probe:
    """What laws are tried with.

    Attributes:
        ids: of the text (T,); never an end of text.
        pictures: files.
        oracle: what exact arithmetic makes of the engine's weights, where that is known.
        dequantised: the engine on unpacked weights, for a law that needs it.
    """

    ids: Ids
    pictures: Sequence[Path] = ()
    oracle: Oracle | None = None
    dequantised: Engine | None = None


@dataclass(frozen=True)
class Difference:
    """One comparison of logits.

    Attributes:
        error: relative RMS; infinite where something is no number.
        position: tokens of the text before the place where two ways part.
        what: was compared, in a few words.
    """

    error: float
    position: int
    what: str


@dataclass(frozen=True)
class Law:
    """What every engine of a model with a state keeps.

    Attributes:
        name: on the command line.
        title: the law itself, in a sentence.
        check: compares what an engine makes of a probe in two ways, which are one by the law.
        needs: abilities without which it says nothing of an engine.
        slack: its tolerance as a multiple of the engine's `rounding`; 0 where the same is computed twice, so
            that it has to be the same bit for bit.
        lengths: of the texts that it is tried with, from short to long: the first that breaks it is shown.
    """

    name: str
    title: str
    check: Callable[[Engine, Probe], Iterator[Difference]]
    needs: tuple[str, ...] = ()
    slack: float = 1.0
    lengths: tuple[int, ...] = (2, 3, 5, 9, 17)


@dataclass(frozen=True)
class Finding:
    """What a law found in an engine.

    Attributes:
        law: its name.
        status: GREEN, RED or NONE.
        error: the largest that was measured; None where nothing was.
        tolerance: of the law for this engine.
        reason: why there is nothing to say, or what the engine raised.
        reproduction: of a red one, the shortest text that shows it: ids, position, what, error.
    """

    law: str
    status: str
    error: float | None = None
    tolerance: float | None = None
    reason: str = ""
    reproduction: dict[str, Any] = field(default_factory=dict)


def difference(got: Floats, expected: Floats, position: int, what: str) -> Difference:
    """Relative RMS of what an engine gave for what it should have given."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape or not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return Difference(float("inf"), position, what)
    size = float(np.sqrt((expected**2).mean()))
    error = float(np.sqrt(((got - expected) ** 2).mean()))
    return Difference(error / size if size else error, position, what)
