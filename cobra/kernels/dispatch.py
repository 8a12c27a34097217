"""The choice of a backend: the first that is there and takes the call, or the one asked for.

A backend is a folder beside this file and one entry of `BACKENDS`; an op is in its file of the same name as
the public one's, a function of all arguments in order. The choice reads what `call.Call` holds, never the
data, so it holds under torch.compile; while a graph is exported only plain PyTorch is considered. A backend
that was chosen runs the op: what it cannot run, it must refuse here.
"""

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, ParamSpec, TypeVar, overload

import torch
from torch.compiler import is_compiling, is_exporting

from cobra.kernels import cpu, hub, mamba_ssm, triton
from cobra.kernels.call import Call, Function, Limit, NoKernelError, limits_of
from cobra.kernels.shared_memory import refuse_shared

P = ParamSpec("P")
R = TypeVar("R")

# The public ops by name: the functions of `ops/` that `op` decorates.
OPS: dict[str, Function] = {}


def in_folder(*packages: str) -> Callable[[str], Function | None]:
    """Finds an op in the file of a package that is called as its public one, of the first package that has
    it; None if it is in none."""

    def find(op: str) -> Function | None:
        for package in packages:
            module = f"{package}.{OPS[op].__module__.rpartition('.')[2]}"
            try:
                function = getattr(importlib.import_module(module), op, None)
            except ModuleNotFoundError as error:
                if error.name != module:
                    raise
                continue
            if function is not None:
                return function
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
        by_name: device types on which it runs only if it is asked for.
        failure: why it cannot be loaded, or None if it can; loads it. Asked only where it may run.
        exports: whether it is plain PyTorch, which an exported graph may hold.

    Attributes:
        ops: what it has of them; found when it is first needed.
    """

    name: str
    devices: tuple[str, ...] | None
    dtypes: tuple[torch.dtype, ...]
    unavailable: Callable[[], str | None]
    find: Callable[[str], Function | None]
    by_name: tuple[str, ...] = ()
    failure: Callable[[], str | None] = lambda: None
    exports: bool = False
    ops: dict[str, Implementation] = field(default_factory=dict, init=False)

    def refusal(
        self,
        op: str,
        device: torch.device,
        dtype: torch.dtype,
        asked: str | None = None,
        exporting: bool = False,
    ) -> str | None:
        """Why this backend runs no call of an op on a device and dtype; None if it runs some.

        Args:
            op: its name.
            device: of the call.
            dtype: of the call.
            asked: the backends that are asked for by name, as in `use_backend`.
            exporting: whether a graph is being exported.
        """
        if exporting and not self.exports:
            return "an exported graph holds only plain PyTorch"
        if self.devices is not None and device.type not in self.devices:
            return f"runs on {', '.join(self.devices)}, not on {device.type}"
        if dtype.is_floating_point and dtype not in self.dtypes:
            return f"takes {', '.join(map(str, self.dtypes))}, not {dtype}"
        if (reason := self.unavailable()) is not None:
            return reason
        if device.type in self.by_name and asked is None:
            return f"is not taken on {device.type} by itself: COBRA_BACKEND={self.name} asks for it"
        if (reason := self.failure()) is not None:
            return reason
        if op not in self.ops:
            # all at once: torch.compile does not see what is added later
            for name in OPS:
                if (function := self.find(name)) is not None:
                    self.ops[name] = Implementation(function, limits_of(function))
        if op not in self.ops:
            return f"has no {op}"
        return None


_NATIVE = (torch.float32, torch.bfloat16)
_GPU = (torch.float16, *_NATIVE)
_FLOATS = (*_GPU, torch.float64)


def adapters(
    name: str, unavailable: Callable[[], str | None], load: Callable[[], mamba_ssm.Upstream]
) -> Backend:
    """A backend of the adapters to mamba_ssm's functions, which `load` loads where it is asked for."""
    find = in_folder("cobra.kernels.mamba_ssm")

    def find_adapted(op: str) -> Function | None:
        adapter = find(op)
        return None if adapter is None else mamba_ssm.adapted(adapter, load())

    return Backend(
        name, ("cuda",), _GPU, unavailable, find_adapted, by_name=("cuda",), failure=lambda: load().failure
    )


# Fastest first: the first that does not refuse is taken.
BACKENDS: tuple[Backend, ...] = (
    Backend("cpu", ("cpu",), _NATIVE, cpu.unavailable, in_folder("cobra.kernels.cpu")),
    # on a CPU in its interpreter, which is for tests
    Backend(
        "triton",
        triton.DEVICES,
        _GPU,
        triton.unavailable,
        in_folder("cobra.kernels.triton"),
        by_name=("cpu",),
    ),
    adapters("mamba_ssm", mamba_ssm.unavailable, mamba_ssm.load),
    adapters("hub", hub.unavailable, hub.load),
    # what is parallel in the reference already is not written again
    Backend(
        "torch",
        None,
        _FLOATS,
        lambda: None,
        in_folder("cobra.kernels.torch", "cobra.kernels.reference"),
        exports=True,
    ),
    Backend("reference", None, _FLOATS, lambda: None, in_folder("cobra.kernels.reference"), exports=True),
)


# Read once: torch.compile can guard a global, not the environment.
_asked: str | None = os.environ.get("COBRA_BACKEND") or None
_candidates_of: dict[tuple[Any, ...], tuple[int, ...]] = {}
_exported: Mapping[str, Function] = {}


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every op of this process on backend `name` (None: on the best), or fail with the reason why not.

    Several names, as in "mamba_ssm,triton", are tried in this order.

    Raises:
        ValueError: if no backend has that name.
    """
    global _asked
    _named(name)
    before, _asked = _asked, name
    try:
        yield
    finally:
        _asked = before


@contextmanager
def exporting_with(functions: Mapping[str, Function]) -> Iterator[None]:
    """Put functions, by the names of ops, into exported graphs in place of the plain PyTorch of a backend.

    Args:
        functions: of all arguments of their op in order, as a backend's.
    """
    global _exported
    before, _exported = _exported, functions
    try:
        yield
    finally:
        _exported = before


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
        exporting = is_exporting()
        if exporting and (function := _exported.get(name)) is not None:
            return function(*values)
        call = Call(name, device, dtype, names, values)
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


def refusal(backend: Backend, op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a backend runs no call of an op on a device and dtype now; None if it runs some."""
    if BACKENDS.index(backend) not in _named(_asked):
        return f"COBRA_BACKEND or use_backend asks for {_asked}"
    return backend.refusal(op, device, dtype, _asked)


# a constant of the compiled graph: its arguments are guarded, its inside is not traced
@torch.compiler.assume_constant_result
def _candidates(
    op: str, device: torch.device, dtype: torch.dtype, asked: str | None, exporting: bool
) -> tuple[int, ...]:
    """Numbers of the backends that run calls with these arguments, unless a limit is in the way."""
    key = (op, device, dtype, asked, exporting)
    found = _candidates_of.get(key)
    if found is None:
        taken = (n for n in _named(asked) if BACKENDS[n].refusal(op, device, dtype, asked, exporting) is None)
        found = tuple(taken)
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
    for number in _named(asked):
        reason = BACKENDS[number].refusal(op, device, dtype, asked, exporting) or dict(refusals)[number]
        reasons.append(f"{BACKENDS[number].name}: {reason}")
    remedy = (
        "move or cast the inputs"
        if asked is None
        else f"unset COBRA_BACKEND or leave use_backend({asked!r}) to let another run it"
    )
    raise NoKernelError(f"no backend runs {op} on {device} in {dtype} ({'; '.join(reasons)}); {remedy}")


def _named(asked: str | None) -> tuple[int, ...]:
    """Numbers of the backends that are considered: of those that a list names, in its order, or of all."""
    numbers = {backend.name: number for number, backend in enumerate(BACKENDS)}
    if asked is None:
        return tuple(numbers.values())
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in numbers:
            raise ValueError(f"no backend is called {name!r}; there is {', '.join(numbers)}")
    return tuple(numbers[name] for name in names)
