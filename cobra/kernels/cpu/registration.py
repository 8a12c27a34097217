"""Native functions as torch operators, with what torch.compile and autograd must know of them.

`torch.library.Library` and not `custom_op`, whose wrapper costs twice as much as a small kernel.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from cobra.kernels.cpu.tensors import may_share

NAMESPACE = "cobra"

# kept alive: the operators vanish with it
_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
_FUNCTIONS: dict[OpOverload, Callable[..., Any]] = {}


def register(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> OpOverload:
    """The operator of a schema "name(Tensor x, ...) -> Tensor".

    Args:
        schema: name, arguments and results; an argument that is changed is marked (a!).
        run: runs it on CPU tensors.
        fake: makes empty results, of the right shape and dtype.
    """
    name = _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default
    names = [argument.name for argument in operator._schema.arguments]
    changed = [i for i, argument in enumerate(operator._schema.arguments) if argument.is_write]
    _FUNCTIONS[operator] = _changing(run, names, changed) if changed else run
    _LIBRARY.impl(name, _FUNCTIONS[operator], "CPU")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)
    return operator


def native_function(operator: OpOverload) -> Callable[..., Any] | None:
    """What runs a registered operator on CPU tensors; None of others."""
    return _FUNCTIONS.get(operator)


def _changing(run: Callable[..., Any], names: list[str], changed: list[int]) -> Callable[..., Any]:
    """`run`, but as torch's own operators that change arguments in place do it.

    It refuses them if another begins inside, which would be read half changed. Afterwards it raises their
    versions, or autograd would not notice that a tensor it saved holds something else now.
    """

    def run_and_count(*arguments: Any) -> Any:
        starts = [x.data_ptr() if isinstance(x, Tensor) else 0 for x in arguments]
        for i in changed:
            begin, state = starts[i], arguments[i]
            end = begin + state.nbytes
            for j, start in enumerate(starts):
                if begin <= start < end and i != j and may_share(state, arguments[j]):
                    raise ValueError(
                        f"{names[i]} shares memory with {names[j]} but changes in place: clone one of them"
                    )
        result = run(*arguments)
        torch.autograd.graph.increment_version([arguments[i] for i in changed])
        return result

    return run_and_count


def differentiate(
    operator: OpOverload, backward: Callable[..., Any], setup_context: Callable[..., None]
) -> None:
    """Give an operator its gradient: `backward(ctx, *gradients)` from what `setup_context` kept."""
    torch.library.register_autograd(
        operator._schema.name,
        backward,
        setup_context=setup_context,
        lib=_LIBRARY,
    )


def refuse_second_derivative(operator: OpOverload) -> None:
    """Make a derivative of a backward operator an error; torch would only warn and drop it."""

    def refuse(*_: Any) -> None:
        raise RuntimeError(f"{operator} has no second derivative: compute it under use_backend('reference')")

    torch.library.register_autograd(operator._schema.name, refuse, lib=_LIBRARY)
