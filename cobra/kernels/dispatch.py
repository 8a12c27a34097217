"""The choice of a backend: the first that is there and takes the call, or the one asked for.

A backend is a folder beside this file and one line of `BACKENDS`; an op is in its file of the same name as
the public one's, a function of all arguments in order. The choice reads what `call.Call` holds, never the
data, so it holds under torch.compile; while a graph is exported only the reference is considered. A backend
that was chosen runs the op: what it cannot run, it must refuse here.
"""

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, ParamSpec, TypeVar, overload

import torch
from torch.compiler import is_compiling, is_exporting

from cobra.kernels import cpu
from cobra.kernels.call import Call, Function, Limit, limits_of
from cobra.kernels.shared_memory import refuse_shared

P = ParamSpec("P")
R = TypeVar("R")

# The public ops by name: the functions of `ops/` that `op` decorates.
OPS: dict[str, Function] = {}


def in_folder(package: str) -> Callable[[str], Function | None]:
    """Finds an op in the file of a package that is called as its public one; None if it is not there."""

    def find(op: str) -> Function | None:
        module = f"{package}.{OPS[op].__module__.rpartition('.')[2]}"
        try:
            return getattr(importlib.import_module(module), op, None)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            return None

    return find


class Implementation(NamedTuple):
    """What runs an op on a backend, and the calls of it that are taken."""

    function: Function
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Backend:
    """A set of kernels and what they run on.

    Args:
        name: what `COBRA_BACKEND` and `use_backend` call it.
        devices: device types it takes; None is all.
        dtypes: floating dtypes it takes.
        unavailable: why it cannot run on this machine, or None if it can.
        find: the function that runs an op, or None if it has none. Asked only if it can run.

    Attributes:
        ops: what it has of them; found when it is first needed.
    """

    name: str
    devices: tuple[str, ...] | None
    dtypes: tuple[torch.dtype, ...]
    unavailable: Callable[[], str | None]
    find: Callable[[str], Function | None]
    ops: dict[str, Implementation] = field(default_factory=dict, init=False)

    def refusal(
        self, op: str, device: torch.device, dtype: torch.dtype, exporting: bool = False
    ) -> str | None:
        """Why this backend runs no call of an op on a device and dtype; None if it runs some."""
        if exporting and self.name != REFERENCE:
            return f"an exported graph holds only the {REFERENCE}"
        if self.devices is not None and device.type not in self.devices:
            return f"runs on {', '.join(self.devices)}, not on {device.type}"
        if dtype.is_floating_point and dtype not in self.dtypes:
            return f"takes {', '.join(map(str, self.dtypes))}, not {dtype}"
        if (reason := self.unavailable()) is not None:
            return reason
        if op not in self.ops:
            # all at once: torch.compile does not see what is added later
            for name in OPS:
                if (function := self.find(name)) is not None:
                    self.ops[name] = Implementation(function, limits_of(function))
        return None if op in self.ops else f"has no {op}"


REFERENCE = "reference"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Fastest first: the first that does not refuse is taken.
BACKENDS: tuple[Backend, ...] = (
    Backend(
        "cpu", ("cpu",), (torch.float32, torch.bfloat16), cpu.unavailable, in_folder("cobra.kernels.cpu")
    ),
    Backend(REFERENCE, None, _FLOATS, lambda: None, in_folder("cobra.kernels.reference")),
)

# Read once: torch.compile can guard a global, not the environment.
_asked: str | None = os.environ.get("COBRA_BACKEND") or None
_candidates_of: dict[tuple[Any, ...], tuple[int, ...]] = {}


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every op of this process on backend `name` (None: on the best), or fail with the reason why not.

    Raises:
        ValueError: if no backend has that name.
    """
    global _asked
    if name is not None:
        _number(name)
    before, _asked = _asked, name
    try:
        yield
    finally:
        _asked = before


@overload
def op(check: Callable[P, R]) -> Callable[P, R]: ...
@overload
def op(
    *, dtype_of: str | None = None, changes: Sequence[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def op(
    check: Callable[..., Any] | None = None, *, dtype_of: str | None = None, changes: Sequence[str] = ()
) -> Callable[..., Any]:
    """A public op of a function that only checks its arguments: a backend then takes all of them in order.

    Args:
        check: annotated and documented as the op; its first argument is a tensor on the op's device.
        dtype_of: the argument that has, or is, the dtype that a backend must take; the first if left out.
        changes: the arguments that change in place.

    The op raises what `check` does, ValueError if what changes shares memory with another argument or if
    `COBRA_BACKEND` names no backend, and RuntimeError if the backend that was asked for refuses, or all do;
    the message says why.
    """
    if check is None:
        return functools.partial(_op, dtype_of=dtype_of, changes=changes)
    return _op(check, None, ())


def _op(check: Callable[P, R], dtype_of: str | None, changes: Sequence[str]) -> Callable[P, R]:
    name, names = check.__name__, tuple(inspect.signature(check).parameters)
    position = 0 if dtype_of is None else names.index(dtype_of)
    changed = [names.index(argument) for argument in changes]

    def forward(values: tuple[Any, ...]) -> R:
        like, device = values[position], values[0].device
        dtype = like if isinstance(like, torch.dtype) else like.dtype
        # a compiled graph takes what is changed apart by itself
        if changed and not is_compiling():
            refuse_shared(names, values, changed)
        call, exporting = Call(name, device, dtype, names, values), is_exporting()
        refusals: tuple[tuple[int, str], ...] = ()
        for number in _candidates(name, device, dtype, _asked, exporting):
            function, limits = BACKENDS[number].ops[name]
            for limit in limits:
                if not limit.accepts(call):
                    refusals += ((number, limit.reason),)
                    break
            else:
                return function(*values)
        return _refuse(name, device, dtype, _asked, exporting, refusals)

    OPS[name] = bound = _bound(check, forward)
    return bound


def _bound(check: Callable[P, R], forward: Callable[[tuple[Any, ...]], R]) -> Callable[P, R]:
    """A function of the parameters of `check` that calls it, then `forward` with all arguments in order.

    Written out, as a namedtuple's is: arguments that pass through *args and **kwargs cost 1 µs a call.
    """
    parameters = inspect.signature(check).parameters.values()
    bare = [
        p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else None) for p in parameters
    ]
    passed = [f"{p.name}={p.name}" if p.kind is p.KEYWORD_ONLY else p.name for p in parameters]
    source = f"""def bound{inspect.Signature(bare)}:
    check({", ".join(passed)})
    return forward(({", ".join(p.name for p in parameters)},))
"""
    namespace: dict[str, Any] = {"check": check, "forward": forward}
    exec(compile(source, f"<{check.__name__}>", "exec"), namespace)
    bound = namespace["bound"]
    bound.__defaults__, bound.__kwdefaults__ = check.__defaults__, check.__kwdefaults__
    return functools.update_wrapper(bound, check)


def accepting(op: str, device: torch.device, dtype: torch.dtype) -> list[Backend]:
    """The backends that run calls of an op on a device and dtype now, the first choice first."""
    return [BACKENDS[number] for number in _candidates(op, device, dtype, _asked, False)]


# a constant of the compiled graph: its arguments are guarded, its inside is not traced
@torch.compiler.assume_constant_result
def _candidates(
    op: str, device: torch.device, dtype: torch.dtype, asked: str | None, exporting: bool
) -> tuple[int, ...]:
    """Numbers of the backends that run calls with these arguments, unless a limit is in the way."""
    key = (op, device, dtype, asked, exporting)
    found = _candidates_of.get(key)
    if found is None:
        numbers = range(len(BACKENDS)) if asked is None else (_number(asked),)
        found = tuple(n for n in numbers if BACKENDS[n].refusal(op, device, dtype, exporting) is None)
        _candidates_of[key] = found
    return found


# likewise, so that the message comes out of the compiler
@torch.compiler.assume_constant_result
def _refuse(
    op: str,
    device: torch.device,
    dtype: torch.dtype,
    asked: str | None,
    exporting: bool,
    refusals: tuple[tuple[int, str], ...],
) -> Any:
    """Raise the reasons of all."""
    reasons = []
    for number in range(len(BACKENDS)) if asked is None else (_number(asked),):
        reason = BACKENDS[number].refusal(op, device, dtype, exporting) or dict(refusals)[number]
        reasons.append(f"{BACKENDS[number].name}: {reason}")
    remedy = (
        "move or cast the inputs"
        if asked is None
        else f"unset COBRA_BACKEND or leave use_backend({asked!r}) to let another run it"
    )
    raise RuntimeError(f"no backend runs {op} on {device} in {dtype} ({'; '.join(reasons)}); {remedy}")


def _number(name: str) -> int:
    for number, backend in enumerate(BACKENDS):
        if backend.name == name:
            return number
    raise ValueError(f"no backend is called {name!r}; there is {', '.join(b.name for b in BACKENDS)}")
