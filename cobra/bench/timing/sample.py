"""What is measured, and what one measurement gave. No torch here: a bench itself runs nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Runner:
    """A process of its own that runs cases.

    Attributes:
        name: what the reports call it.
        cases: the module that defines its cases.
        backend: `COBRA_BACKEND` of the process; empty leaves the choice to the dispatch.
        isa: `COBRA_ISA` of the process; empty takes the fastest level.
        keeps_memory: whether freed memory stays in the process, so that large results bring no page faults.
    """

    name: str
    cases: str
    backend: str = ""
    isa: str = ""
    keeps_memory: bool = False


@dataclass(frozen=True)
class Measurement:
    """One case on one runner.

    Attributes:
        runner: where it runs.
        case: name of a function in the runner's module.
        arguments: its arguments, plain JSON.
    """

    runner: Runner
    case: str
    arguments: Arguments = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for equal measurements."""
        return json.dumps([self.runner.name, self.case, dict(self.arguments)], sort_keys=True)


@dataclass(frozen=True)
class Sample:
    """Seconds of one call.

    Attributes:
        cpu: seconds that the process spent on all its threads; NaN where another program ran.
        wall: seconds on the clock.
        stages: the same two of each part of the call, in order.
    """

    cpu: float
    wall: float
    stages: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """What is known of a case before it is timed.

    Attributes:
        bytes: what a call must read and write at least; 0 where nobody asks.
        flops: what a call computes; 0 where nobody asks.
        peak_bytes: how far memory grew over what it was before the call.
        resident_bytes: how much the process then had in all.
        about: what else the case tells.
    """

    bytes: float
    flops: float
    peak_bytes: float
    resident_bytes: float = float("nan")
    about: Mapping[str, Any] = field(default_factory=dict)


class Missing(Exception):
    """Why a case cannot be measured here."""
