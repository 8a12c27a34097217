"""Measurements and what one gave. No torch here: a bench itself runs nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Runner:
    """A process of its own that runs cases.

    Attributes:
        name: one process has one name.
        cases: the module that defines its cases.
        backend: `COBRA_BACKEND` of the process; empty leaves the choice to the dispatch.
        isa: `COBRA_ISA` of the process; empty takes the fastest level.
        device: where its cases make their tensors, unless they are told.
    """

    name: str
    cases: str
    backend: str = ""
    isa: str = ""
    device: str = "cpu"


@dataclass(frozen=True)
class Measurement:
    """One case on one runner.

    Attributes:
        runner: where it runs.
        case: name of a function in the runner's module.
        arguments: its arguments, plain JSON.
        entry: what the report says of it beside what is measured, plain JSON.
    """

    runner: Runner
    case: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    entry: Mapping[str, Any] = field(default_factory=dict)

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
        extra_bytes: how far memory grew over what it was before the call.
        peak_bytes: how much the process then had in all.
        about: what the case tells.
    """

    extra_bytes: float
    peak_bytes: float
    about: Mapping[str, Any] = field(default_factory=dict)


class Missing(Exception):
    """Why a case cannot be measured here."""
