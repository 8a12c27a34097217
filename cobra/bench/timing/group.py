"""What is measured together, and the numbers that it tells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cobra.bench.timing.sample import Measurement, Prepared


@dataclass(frozen=True)
class Outcome:
    """A prepared measurement and the seconds of one repeat of it."""

    prepared: Prepared
    seconds: float


Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True)
class Number:
    """A number with a target.

    Attributes:
        name: what it says.
        value: from the outcomes of one repeat, by label; the report takes the median over repeats.
        target: the value to reach.
        at_least: whether more is better.
        unit: × or %, printed behind the value; % shows a share as hundredths.
        note: what a reader must know.
    """

    name: str
    value: Callable[[Outcomes], float]
    target: float
    at_least: bool = True
    unit: str = "×"
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Measurements taken in turn, so that the machine's load falls on all alike.

    Attributes:
        title: for the progress bar.
        parts: measurements by label.
        numbers: what they tell.
        repeats: most repeats, where one takes long.
    """

    title: str
    parts: Mapping[str, Measurement]
    numbers: Sequence[Number] = ()
    repeats: int = 1000
