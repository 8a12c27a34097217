"""The parts that the operators of both scans share."""

from typing import Any

from torch import Tensor

# Both operators take inputs, these, options, and whether to keep the states between chunks for the backward
# pass; they return y, the final state and those states.
TOKENS = "Tensor? initial_state, Tensor? seq_idx, Tensor? mask"
SCAN_ORDER = "bool softplus, bool reversed, SymInt grid_height"


def zeros_if_absent(dy: Tensor | None, x: Tensor) -> Tensor:
    """The gradient of y, which is None if only the final state was used."""
    return x.new_zeros(x.shape) if dy is None else dy


def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep what the backward pass of a scan reads."""
    # the last three: initial_state, seq_idx and mask
    count = sum(x is None or isinstance(x, Tensor) for x in inputs)
    *tensors, ctx.initial_state = inputs[: count - 2]
    ctx.options = inputs[count:-1]
    # zeros for the kept states' gradient would be as large as they are
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(*tensors, *inputs[count - 2 : count], output[2])
