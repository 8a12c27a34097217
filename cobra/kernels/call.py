"""The description of a call, by which a backend is chosen or refuses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)


class NoKernelError(RuntimeError, ValueError):
    """No backend that was asked for runs a call, or its compiler cannot; the message says how to go on.

    A ValueError, too, as all that a user can mend: commands show it in one line.
    """


@dataclass(slots=True)
class Call:
    """What the choice of a backend reads: known before the op runs, never data, and guarded by torch.compile.

    Attributes:
        op: its name.
        device: of the first input.
        dtype: that the backends must take: of the first input, if the op does not say otherwise.
    """

    op: str
    device: torch.device
    dtype: torch.dtype
    _names: Sequence[str]
    _values: Sequence[Any]

    @property
    def gradient(self) -> bool:
        """Whether autograd will ask for a gradient."""
        return needs_gradient(*self._values)

    def shape(self, argument: str) -> torch.Size | None:
        """Shape of a tensor among the arguments, None if it is absent. What is read of it is guarded."""
        value = self._values[self._names.index(argument)]
        return None if value is None else value.shape

    def dtypes(self, *arguments: str) -> list[torch.dtype]:
        """Dtypes of the tensors among these arguments, without those that are absent."""
        values = [self._values[self._names.index(argument)] for argument in arguments]
        return [value.dtype for value in values if value is not None]

    def option(self, argument: str) -> Any:
        """Value of an argument that is no tensor."""
        return self._values[self._names.index(argument)]


@dataclass(frozen=True)
class Limit:
    """Which calls of an op a backend takes.

    Attributes:
        accepts: whether it takes a call.
        reason: why it takes no others, behind the backend's name.
    """

    accepts: Callable[[Call], bool]
    reason: str


NO_GRADIENT = Limit(lambda call: not call.gradient, "has no gradient")


def limited(*limits: Limit) -> Callable[[F], F]:
    """A function of a backend that takes only the calls of its op that all limits accept."""

    def mark(function: F) -> F:
        function.limits = (*limits_of(function), *limits)  # type: ignore[attr-defined]
        return function

    return mark


def limits_of(function: Function) -> tuple[Limit, ...]:
    """The limits that a function was given."""
    return getattr(function, "limits", ())


def needs_gradient(*arguments: object) -> bool:
    """Whether autograd will ask for a gradient of what is computed from these, tensors among others."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments)
