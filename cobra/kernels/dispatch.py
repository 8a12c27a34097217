"""Which backend runs an op: the first that is there and takes the call, or the one asked for.

A backend is a folder beside this file and one line of `BACKENDS`. The choice reads what `call.Call` holds,
never the data, so it holds under torch.compile; while a graph is exported only the reference is considered.
A backend that was chosen runs the op: what it cannot run, it must refuse here.
"""

import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from cobra.kernels import cpu, reference
from cobra.kernels.call import Call, Limit


@dataclass(frozen=True)
class Backend:
    """A set of kernels and what they run on.

    Args:
        name: what `COBRA_BACKEND` and `use_backend` call it.
        devices: device types it takes; None is all.
        dtypes: dtypes of the op's first input that it takes.
        ops: op name to function, each with the reference's signature.
        unavailable: why it cannot run on this machine, or None if it can.
        limits: op name to the calls of it that are taken; an op that is not there has none.
    """

    name: str
    devices: tuple[str, ...] | None
    dtypes: tuple[torch.dtype, ...]
    ops: Mapping[str, Callable[..., Any]]
    unavailable: Callable[[], str | None]
    limits: Mapping[str, Sequence[Limit]] = field(default_factory=dict)

    def refusal(self, call: Call, exporting: bool = False) -> str | None:
        """Why this backend does not run a call, or None if it does."""
        if exporting and self.name != REFERENCE:
            return f"an exported graph holds only the {REFERENCE}"
        if call.op not in self.ops:
            return f"has no {call.op}"
        if self.devices is not None and call.device not in self.devices:
            return f"runs on {', '.join(self.devices)}, not on {call.device}"
        if call.dtype not in self.dtypes:
            return f"takes {', '.join(map(str, self.dtypes))}, not {call.dtype}"
        for limit in self.limits.get(call.op, ()):
            if not limit.accepts(call):
                return limit.reason
        return self.unavailable()


REFERENCE = "reference"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Fastest first: the first that does not refuse is taken.
BACKENDS: tuple[Backend, ...] = (
    Backend("cpu", ("cpu",), (torch.float32, torch.bfloat16), cpu.OPS, cpu.unavailable, cpu.LIMITS),
    Backend(REFERENCE, None, _FLOATS, reference.OPS, unavailable=lambda: None),
)

# Read once: torch.compile can guard a global, not the environment.
_asked: str | None = os.environ.get("COBRA_BACKEND") or None
_decided: dict[tuple[Any, ...], str] = {}


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every op of this process on backend `name` (None: on the best), or fail with the reason why not.

    Raises:
        ValueError: if no backend has that name.
    """
    global _asked
    before, _asked = _asked, None if name is None else _find(name).name
    try:
        yield
    finally:
        _asked = before


def resolve(
    op: str, device: str, dtype: torch.dtype, *, taps: int | None = None, gradient: bool = False
) -> Callable[..., Any]:
    """The function that runs a call, described as in `call.Call`.

    Raises:
        ValueError: if `COBRA_BACKEND` names no backend.
        RuntimeError: if the backend that was asked for refuses, or all do; the message says why.
    """
    # in a compiled graph a size may be symbolic: index makes it a number, and guards it
    taps = None if taps is None else operator.index(taps)
    return _find(_decide(op, device, dtype, taps, gradient, _asked, torch.compiler.is_exporting())).ops[op]


# a constant of the compiled graph: its arguments are guarded, its inside is not traced
@torch.compiler.assume_constant_result
def _decide(
    op: str,
    device: str,
    dtype: torch.dtype,
    taps: int | None,
    gradient: bool,
    asked: str | None,
    exporting: bool,
) -> str:
    """The name of the backend for these arguments, found once."""
    key = (op, device, dtype, taps, gradient, asked, exporting)
    if key not in _decided:
        candidates = BACKENDS if asked is None else (_find(asked),)
        call = Call(op, device, dtype, taps, gradient)
        refusals = {backend.name: backend.refusal(call, exporting) for backend in candidates}
        accepting = [name for name, reason in refusals.items() if reason is None]
        if not accepting:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
            raise RuntimeError(f"no backend runs {op} on {device} in {dtype} ({reasons}); {_remedy(asked)}")
        _decided[key] = accepting[0]
    return _decided[key]


def _remedy(asked: str | None) -> str:
    if asked is None:
        return "move or cast the inputs"
    return f"unset COBRA_BACKEND or leave use_backend({asked!r}) to let another run it"


def _find(name: str) -> Backend:
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise ValueError(f"no backend is called {name!r}; there is {', '.join(b.name for b in BACKENDS)}")


@dataclass(frozen=True)
class Explanation:
    """One op on one backend.

    Attributes:
        op: its name.
        backend: its name.
        reason: "ok" and the limits within which it runs, or why it does not run.
        chosen: whether it is the one that runs what is within its limits.
    """

    op: str
    backend: str
    reason: str
    chosen: bool


def explain(device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Explanation]:
    """Every op × backend on a device type and dtype, as an ops call would choose now."""
    rows = []
    for op in reference.OPS:
        # the widest filter that is published; a step is for decoding, so without a gradient
        call = Call(op, device, dtype, taps=4)
        refusals = {backend.name: backend.refusal(call) for backend in BACKENDS}
        allowed = [name for name, reason in refusals.items() if reason is None and _asked in (None, name)]
        for backend in BACKENDS:
            name, limits = backend.name, [limit.reason for limit in backend.limits.get(op, ())]
            reason = refusals[name] or "; ".join(["ok", *limits])
            rows.append(Explanation(op, name, reason, allowed[:1] == [name]))
    return rows
