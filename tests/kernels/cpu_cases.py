"""Inputs of every op of the native CPU kernels, odd in all widths, with few and with all options."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cobra.kernels import reference
from cobra.kernels.reference.ssd import ssd_recurrence

Inputs = dict[str, Any]
BATCH, HEADS, HEAD_DIM, STATE, TAPS = 2, 4, 5, 21, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def packed(length: int) -> Inputs:
    """Sequences that end inside chunks and at their edges, others in each row, and some padding."""
    position = torch.arange(length)
    ids = torch.stack([position // 50, (position >= 64).int() + 2 * (position >= 70).int()])
    return {"seq_idx": ids.int(), "mask": normal(BATCH, length, seed=9) > -1}


def norm(length: int) -> Inputs:
    return {"x": normal(BATCH, length, 37), "weight": normal(37)}


def add_norm(length: int) -> Inputs:
    return norm(length) | {"residual": normal(BATCH, length, 37, seed=1)}


def first_norm(length: int) -> Inputs:
    return norm(length) | {"residual": None}


def gated_norm(length: int) -> Inputs:
    return {"x": normal(BATCH, length, 66), "z": normal(BATCH, length, 66, seed=1), "weight": normal(66)}


def grouped_norm(length: int) -> Inputs:
    return gated_norm(length) | {"group_size": 22, "norm_before_gate": True}


def conv(length: int) -> Inputs:
    return {"x": normal(BATCH, length, 37), "weight": normal(37, TAPS)}


def conv_with_all(length: int) -> Inputs:
    # more channels than a block of the kernel has
    more = {
        "x": normal(BATCH, length, 133),
        "weight": normal(133, TAPS),
        "bias": normal(133),
        "initial_state": normal(BATCH, 133, TAPS - 1),
        "activation": "silu",
    }
    return more | packed(length)


def narrow_conv(length: int) -> Inputs:
    return {"x": normal(BATCH, length, 16), "weight": normal(16, 2), "bias": normal(16), "activation": "silu"}


def reversed_conv(length: int) -> Inputs:
    return conv_with_all(length) | {"route": "reversed"}


def column_conv(length: int) -> Inputs:
    height = max(h for h in range(1, 17) if length % h == 0)
    more = {"mask": packed(length)["mask"], "route": "columns_reversed", "grid": (height, length // height)}
    return narrow_conv(length) | more


def ssd(length: int) -> Inputs:
    return {
        "x": normal(BATCH, length, HEADS, HEAD_DIM),
        "dt": normal(BATCH, length, HEADS).abs(),
        "A": -normal(HEADS).exp(),
        "B": normal(BATCH, length, 1, STATE),
        "C": normal(BATCH, length, 1, STATE, seed=1),
    }


def ssd_with_all(length: int) -> Inputs:
    more = {
        "B": normal(BATCH, length, 2, STATE),
        "C": normal(BATCH, length, 2, STATE, seed=1),
        "D": normal(HEADS, HEAD_DIM),
        "z": normal(BATCH, length, HEADS, HEAD_DIM, seed=1),
        "dt_bias": normal(HEADS, seed=1),
        "dt_softplus": True,
        "dt_limit": (0.05, 1.5),
        "initial_state": normal(BATCH, HEADS, HEAD_DIM, STATE),
    }
    return ssd(length) | more | packed(length)


def scan(length: int) -> Inputs:
    return {
        "u": normal(BATCH, length, 22),
        "delta": normal(BATCH, length, 22, seed=1).abs(),
        "A": -normal(22, 5).exp(),
        "B": normal(BATCH, length, 1, 5),
        "C": normal(BATCH, length, 1, 5, seed=1),
    }


def scan_with_all(length: int) -> Inputs:
    more = {
        "B": normal(BATCH, length, 2, 5),
        "C": normal(BATCH, length, 2, 5, seed=1),
        "D": normal(22),
        "z": normal(BATCH, length, 22, seed=2),
        "delta_bias": normal(22, seed=1),
        "delta_softplus": True,
        "initial_state": normal(BATCH, 22, 5),
    }
    return scan(length) | more | packed(length)


def conv_update(_: int = 1) -> Inputs:
    state = normal(BATCH, 133, TAPS - 1)
    return {"x": normal(BATCH, 133), "state": state, "weight": normal(133, TAPS), "bias": normal(133)}


def head_update(_: int = 1) -> Inputs:
    return {
        "state": normal(BATCH, HEADS, HEAD_DIM, STATE),
        "x": normal(BATCH, HEADS, HEAD_DIM),
        "dt": normal(BATCH, HEADS),
        "A": -normal(HEADS).exp(),
        "B": normal(BATCH, 2, STATE),
        "C": normal(BATCH, 2, STATE, seed=1),
        "D": normal(HEADS, HEAD_DIM),
        "z": normal(BATCH, HEADS, HEAD_DIM, seed=1),
        "dt_bias": normal(HEADS, seed=1),
        "dt_softplus": True,
        "dt_limit": (0.2, 0.9),
    }


def plain_head_update(_: int = 1) -> Inputs:
    return {name: head_update()[name] for name in ("state", "x", "dt", "A", "B", "C")} | {"D": normal(HEADS)}


def channel_update(_: int = 1) -> Inputs:
    return {
        "state": normal(BATCH, 134, 5),
        "x": normal(BATCH, 134),
        "dt": normal(BATCH, 134, seed=1),
        "A": -normal(134, 5).exp(),
        "B": normal(BATCH, 2, 5),
        "C": normal(BATCH, 2, 5, seed=1),
        "D": normal(134),
        "z": normal(BATCH, 134, seed=2),
        "dt_bias": normal(134, seed=1),
        "dt_softplus": True,
    }


def step(_: int = 1) -> Inputs:
    return {
        "xz": normal(BATCH, 2 * 134),
        "conv_state": normal(BATCH, 134, TAPS - 1),
        "ssm_state": normal(BATCH, 134, 5),
        "conv_weight": normal(134, TAPS),
        "conv_bias": normal(134),
        "x_proj_weight": normal(9 + 2 * 5, 134),
        "dt_proj_weight": normal(134, 9),
        "dt_proj_bias": normal(134, seed=1),
        "A_log": normal(134, 5),
        "D": normal(134, seed=2),
    }


def step2(_: int = 1) -> Inputs:
    inner = HEADS * HEAD_DIM
    channels = inner + 2 * 2 * STATE
    return {
        "zxbcdt": normal(BATCH, inner + channels + HEADS),
        "conv_state": normal(BATCH, channels, TAPS - 1),
        "ssm_state": normal(BATCH, HEADS, HEAD_DIM, STATE),
        "conv_weight": normal(channels, TAPS),
        "conv_bias": normal(channels),
        "dt_bias": normal(HEADS),
        "A_log": normal(HEADS, seed=1),
        "D": normal(HEADS, HEAD_DIM),
        "norm_weight": normal(inner),
        "n_groups": 2,
        "dt_limit": (0.2, 0.9),
    }


def attention(_: int = 1) -> Inputs:
    # more than a part and a tile of the kernel have
    return {
        "q": normal(BATCH, HEADS, STATE),
        "keys": normal(BATCH, HEADS, 700, STATE),
        "values": normal(BATCH, HEADS, 700, STATE, seed=1),
    }


def grouped_attention(_: int = 1) -> Inputs:
    return {
        "q": normal(BATCH, 2 * 3, 16),
        "keys": normal(BATCH, 2, 150, 16),
        "values": normal(BATCH, 2, 150, 16, seed=1),
        "starts": torch.tensor([0, 37]),
        "scale": 0.7,
    }


def attend_step(_: int = 1) -> Inputs:
    return {
        "q": normal(BATCH, HEADS, STATE),
        "k": normal(BATCH, HEADS, STATE, seed=2),
        "v": normal(BATCH, HEADS, STATE, seed=3),
        "keys": normal(BATCH, HEADS, 700, STATE),
        "values": normal(BATCH, HEADS, 700, STATE, seed=1),
        "position": torch.tensor([611]),
        "rotation": normal(700, 14),
    }


def grouped_attend_step(_: int = 1) -> Inputs:
    # as many heads a group as the kernel takes together, and some
    return {
        "q": normal(BATCH, 2 * 11, 80),
        "k": normal(BATCH, 2, 80, seed=2),
        "v": normal(BATCH, 2, 80, seed=3),
        "keys": normal(BATCH, 2, 150, 80),
        "values": normal(BATCH, 2, 150, 80, seed=1),
        "position": torch.tensor([149]),
        "rotation": normal(160, 80),
        "starts": torch.tensor([0, 37]),
        "scale": 0.1,
    }


def gate(_: int = 1) -> Inputs:
    return {"gate": normal(BATCH, 5003), "up": normal(BATCH, 5003, seed=1)}


def activation(_: int = 1) -> Inputs:
    return {"x": 3 * normal(BATCH, 5003)}


def layer_norm(_: int = 1) -> Inputs:
    # a mean that is larger than what differs from it
    return {
        "x": normal(BATCH, 163) + 3,
        "residual": normal(BATCH, 163, seed=1) + 2,
        "weight": normal(163),
        "bias": normal(163, seed=1),
        "parallel": normal(BATCH, 163, seed=2),
    }


def first_layer_norm(_: int = 1) -> Inputs:
    return layer_norm() | {"residual": None, "parallel": None}


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
        return ssd_recurrence if self.op == "ssd_chunk_scan" else reference.OPS[self.op]


SEQUENCES = [
    Case("rms_norm", norm),
    Case("add_rms_norm", add_norm),
    Case("add_rms_norm", first_norm),
    Case("rms_norm_gated", gated_norm),
    Case("rms_norm_gated", grouped_norm),
    Case("causal_conv1d", conv),
    Case("causal_conv1d", conv_with_all),
    Case("causal_conv1d", narrow_conv),
    Case("causal_conv1d", reversed_conv),
    Case("causal_conv1d", column_conv),
    Case("ssd_chunk_scan", ssd),
    Case("ssd_chunk_scan", ssd_with_all),
    Case("selective_scan", scan),
    Case("selective_scan", scan_with_all),
]
STEPS = [
    Case("causal_conv1d_update", conv_update, ("state",)),
    Case("selective_state_update", head_update, ("state",)),
    Case("selective_state_update", plain_head_update, ("state",)),
    Case("selective_state_update", channel_update, ("state",)),
    Case("mamba_step", step, ("conv_state", "ssm_state")),
    Case("mamba2_step", step2, ("conv_state", "ssm_state")),
    Case("decode_attention", attention),
    Case("decode_attention", grouped_attention),
    Case("attention_step", attend_step, ("keys", "values")),
    Case("attention_step", grouped_attend_step, ("keys", "values")),
    Case("silu_mul", gate),
    Case("gelu_tanh", activation),
    Case("add_layer_norm", layer_norm),
    Case("add_layer_norm", first_layer_norm),
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
