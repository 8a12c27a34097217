"""Every op with its inputs, for backends that are held to the reference, and how results are compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cobra.kernels import ops
from cobra.kernels.dispatch import use_backend
from tests.kernels import sequence_inputs, step_inputs
from tests.kernels.sequence_inputs import Inputs


@dataclass(frozen=True)
class Case:
    """An op, its inputs for a length, and those of them that it changes in place."""

    op: str
    make: Callable[[int], Inputs]
    states: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.op}-{self.make.__name__}"

    @property
    def spec(self) -> Callable[..., Any]:
        """What the op must do."""
        return use_backend("reference")(getattr(ops, self.op))


SEQUENCES = [
    Case("rms_norm", sequence_inputs.norm),
    Case("add_rms_norm", sequence_inputs.add_norm),
    Case("add_rms_norm", sequence_inputs.first_norm),
    Case("rms_norm_gated", sequence_inputs.gated_norm),
    Case("rms_norm_gated", sequence_inputs.grouped_norm),
    Case("causal_conv1d", sequence_inputs.conv),
    Case("causal_conv1d", sequence_inputs.conv_with_all),
    Case("causal_conv1d", sequence_inputs.narrow_conv),
    Case("causal_conv1d", sequence_inputs.reversed_conv),
    Case("causal_conv1d", sequence_inputs.column_conv),
    Case("ssd_chunk_scan", sequence_inputs.ssd),
    Case("ssd_chunk_scan", sequence_inputs.ssd_with_all),
    Case("selective_scan", sequence_inputs.scan),
    Case("selective_scan", sequence_inputs.scan_with_all),
]
STEPS = [
    Case("causal_conv1d_update", step_inputs.conv_update, ("state",)),
    Case("selective_state_update", step_inputs.head_update, ("state",)),
    Case("selective_state_update", step_inputs.plain_head_update, ("state",)),
    Case("selective_state_update", step_inputs.channel_update, ("state",)),
    Case("mamba_step", step_inputs.step, ("conv_state", "ssm_state")),
    Case("mamba2_step", step_inputs.step2, ("conv_state", "ssm_state")),
    Case("decode_attention", step_inputs.attention),
    Case("decode_attention", step_inputs.grouped_attention),
    Case("attention_step", step_inputs.attend_step, ("keys", "values")),
    Case("attention_step", step_inputs.grouped_attend_step, ("keys", "values")),
    Case("silu_mul", step_inputs.gate),
    Case("gelu_tanh", step_inputs.activation),
    Case("add_layer_norm", step_inputs.layer_norm),
    Case("add_layer_norm", step_inputs.first_layer_norm),
]


def floating(inputs: Inputs) -> list[str]:
    return [n for n, value in inputs.items() if isinstance(value, Tensor) and value.is_floating_point()]


def each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The inputs, with `change` applied to a copy of each floating tensor."""
    return inputs | {name: change(inputs[name].detach().clone()) for name in floating(inputs)}


def run(op: Callable[..., Any], case: Case, inputs: Inputs) -> dict[str, Tensor]:
    """Results and states after the op by name, and gradients of a fixed loss where an input asks for one."""
    results = op(**inputs)
    named = dict(zip(("y", "state"), results if isinstance(results, tuple) else (results,), strict=False))
    leaves = [name for name in floating(inputs) if inputs[name].requires_grad]
    if leaves:
        loss = sum(weigh(result) for result in named.values()) + 0 * inputs[leaves[0]].sum()
        tensors = [inputs[name] for name in leaves]
        gradients = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
        named |= {f"gradient of {name}": g for name, g in zip(leaves, gradients, strict=True)}
    return {name: value.detach() for name, value in named.items()} | {
        name: inputs[name] for name in case.states
    }


def weigh(result: Tensor) -> Tensor:
    # the same in every dtype
    weights = torch.linspace(-1, 1, result.numel()).bfloat16().view_as(result)
    return (result * weights.to(result.dtype)).sum()


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Largest error at most `tolerance` of the largest value, for each result."""
    assert actual.keys() == expected.keys()
    for name, truth in expected.items():
        assert actual[name].shape == truth.shape, name
        if truth.numel():
            error = (actual[name].double() - truth.double()).abs().max()
            assert error <= tolerance * (truth.double().abs().max() + 1e-3), f"{name}: {error}"
