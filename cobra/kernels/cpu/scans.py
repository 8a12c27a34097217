"""The parts that the operators of both scans share."""

from typing import Any

from torch import Tensor

# Both operators take these, then options, then whether to keep the states between chunks for the backward,
# and return y, the final state and those states.
INPUTS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? dt_bias"
TOKENS = "Tensor? initial_state, Tensor? seq_idx, Tensor? mask"
SCAN_ORDER = "bool softplus, bool reversed, SymInt grid_height"


def zeros_if_absent(dy: Tensor | None, x: Tensor) -> Tensor:
    """The gradient of y, which is None if only the final state was used."""
    return x.new_zeros(x.shape) if dy is None else dy


def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep what the backward pass of a scan reads."""
    *tensors, ctx.initial_state = inputs[:9]
    ctx.options = inputs[11:-1]
    # zeros for the kept states' gradient would be as large as they are
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(*tensors, *inputs[9:11], output[2])
