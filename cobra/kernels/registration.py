"""Native functions of a backend as torch operators, with what torch.compile and autograd must know of them.

An operator's schema is its function's annotated signature: parameters are listed once.
`torch.library.Library` and not `custom_op`, whose wrapper costs twice as much as a small kernel.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_origin

import torch
from torch import Tensor
from torch._ops import OpOverload

from cobra.kernels.call import NO_GRADIENT, F, Function, Limit, limited, limits_of


class Operators:
    """The operators of a backend, "namespace::name" on tensors of one device.

    Args:
        namespace: the backend's own, so that several have an operator of the same name.
        device: dispatch key of the device, e.g. "CPU".
    """

    def __init__(self, namespace: str, device: str) -> None:
        self.namespace, self.device = namespace, device
        # kept alive: the operators vanish with it
        self._library = torch.library.Library(namespace, "FRAGMENT")
        self._functions: dict[OpOverload, Function] = {}

    def register(
        self, fake: Function, *, changes: Sequence[str] = (), limits: Sequence[Limit] = ()
    ) -> Callable[[F], F]:
        """Makes a function on tensors of the device an operator, of its name without a leading underscore.

        It has no gradient, which is one of its limits, unless `gradient` gives it one.

        Args:
            fake: of the same arguments; makes empty results, of the right shape and dtype.
            changes: the arguments that change in place.
            limits: which calls it takes.
        """

        def make(run: F) -> F:
            operator = self._define(run, run, fake, changes)
            return cast(F, limited(*limits, NO_GRADIENT)(operator))

        return make

    def gradient(
        self, operator: Function, results: str, of: Sequence[str] | Mapping[str, str]
    ) -> Callable[[F], F]:
        """Makes a function that computes an operator's gradient an operator, too, and ties the two.

        The names of its parameters say what it takes. First gradients of results, "d" and the result's name,
        None if nothing asks for it; a result without such a one has none. Then arguments and results.

        Args:
            operator: from `register`.
            results: names of its results.
            of: the arguments whose gradients the function returns, in this order; or which of its
                parameters they are like, where it does not take the arguments themselves. One gradient serves
                all arguments that it is like; that of an absent argument is ignored.
        """
        like = dict(of) if isinstance(of, Mapping) else {name: name for name in of}

        def make(run: F) -> F:
            names = list(inspect.signature(run).parameters)
            places = [names.index(name) for name in dict.fromkeys(like.values())]

            # a list or a tuple, as the schema says
            kind = get_origin(inspect.signature(run).return_annotation)

            def fake(*values: Any) -> Any:
                some = next(x for x in values if isinstance(x, Tensor))
                return kind([room_for_gradient(values[place], some) for place in places])

            def run_as_declared(*values: Any) -> Any:
                return kind([_as_declared(g, values[i]) for g, i in zip(run(*values), places, strict=True)])

            derivative = self._define(run, run_as_declared, fake, ())
            forward = cast(OpOverload, operator)
            setup, backward = _tied(forward, derivative, results.split(), like)
            torch.library.register_autograd(
                forward._schema.name, backward, setup_context=setup, lib=self._library
            )
            torch.library.register_autograd(
                derivative._schema.name, _no_second_derivative(derivative), lib=self._library
            )
            left = tuple(limit for limit in limits_of(forward) if limit is not NO_GRADIENT)
            forward.limits = left  # type: ignore[attr-defined]
            return cast(F, derivative)

        return make

    def function(self, operator: OpOverload) -> Function | None:
        """What runs one of these operators on the device; None of others."""
        return self._functions.get(operator)

    def _define(
        self, signature: Function, run: Function, fake: Function, changes: Sequence[str]
    ) -> OpOverload:
        name = signature.__name__.lstrip("_")
        schema = torch.library.infer_schema(signature, mutates_args=changes, op_name=name)
        self._library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        operator = getattr(getattr(torch.ops, self.namespace), name).default
        names = [argument.name for argument in operator._schema.arguments]
        changed = [names.index(name) for name in changes]
        self._functions[operator] = _changing(run, changed) if changed else run
        self._library.impl(name, self._functions[operator], self.device)
        torch.library.register_fake(f"{self.namespace}::{name}", fake, lib=self._library)
        return operator


def room_for_gradient(x: Tensor | None, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialized gradient of x, dense; empty if x is absent, because an operator cannot return None."""
    if x is None:
        return like.new_empty(0, dtype=torch.float32)
    return x.new_empty(x.shape, dtype=dtype)


def _as_declared(gradient: Tensor, x: Tensor | None) -> Tensor:
    """A gradient as `room_for_gradient` makes it, which a compiled graph relies on: x's dtype, dense, and the
    first thing in its memory."""
    if x is None:
        return gradient if gradient.shape == (0,) else gradient.new_empty(0, dtype=torch.float32)
    gradient = gradient.to(x.dtype)
    if gradient.storage_offset() or not gradient.is_contiguous():
        return gradient.clone(memory_format=torch.contiguous_format)
    return gradient


def _changing(run: Function, changed: list[int]) -> Function:
    """`run`, which raises versions as torch's own operators that change arguments in place do.

    Autograd would not notice else that a tensor it saved holds something else now.
    """

    def run_and_count(*arguments: Any) -> Any:
        result = run(*arguments)
        torch.autograd.graph.increment_version([arguments[i] for i in changed])
        return result

    return run_and_count


def _tied(
    operator: OpOverload, derivative: OpOverload, results: list[str], like: Mapping[str, str]
) -> tuple[Function, Function]:
    """What autograd calls after an operator and in its backward pass: what to save, and the gradients."""
    arguments, wanted = (op._schema.arguments for op in (operator, derivative))
    given, returned = [*(a.name for a in arguments), *results], list(dict.fromkeys(like.values()))
    # all by number: the call of a small kernel would notice what is looked up by name
    asked = [i for i, name in enumerate(results) if f"d{name}" in (a.name for a in wanted)]
    unasked = [i for i in range(len(results)) if i not in asked]
    saved = wanted[len(asked) :]
    tensors, options = (
        [given.index(a.name) for a in saved if ("Tensor" in str(a.type)) == is_tensor]
        for is_tensor in (True, False)
    )
    order = [[*tensors, *options].index(given.index(a.name)) for a in saved]
    gradient_of = [returned.index(like[a.name]) if a.name in like else None for a in arguments]

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        values = inputs + outputs
        # zeros for the gradient of a result that nothing uses would be as large as it is
        ctx.set_materialize_grads(False)
        if unasked:
            ctx.mark_non_differentiable(*[outputs[i] for i in unasked])
        ctx.save_for_backward(*[values[i] for i in tensors])
        ctx.options = [values[i] for i in options]

    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        values = [*ctx.saved_tensors, *ctx.options]
        computed = derivative(*[gradients[i] for i in asked], *[values[i] for i in order])
        needed = zip(gradient_of, ctx.needs_input_grad, strict=True)
        return tuple([computed[i] if i is not None and is_needed else None for i, is_needed in needed])

    return setup, backward


def _no_second_derivative(derivative: OpOverload) -> Function:
    """An error for the derivative of a derivative; torch would only warn and drop it."""

    def refuse(*_: Any) -> None:
        raise RuntimeError(
            f"{derivative} has no second derivative: compute it under use_backend('reference')"
        )

    return refuse
