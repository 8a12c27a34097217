"""Operators on random inputs of a model's shapes, for `cobra bench kernels`; the backend is the process's."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cobra.bench.linear_cases import linear_cycle
from cobra.bench.timing.case import Case, dtype_of
from cobra.kernels import ops


def ssd_chunk_scan(
    length: int, heads: int, head_dim: int, d_state: int, dtype: str, backward: bool = False, batch: int = 1
) -> Case:
    """Mamba-2's scan with D, dt_bias and softplus."""
    inputs = ssd_inputs(length, heads, head_dim, d_state, dtype, batch)
    flops = batch * ssd_flops(length, heads * head_dim, d_state)
    return op_case(ops.ssd_chunk_scan, inputs, backward, {"step_flops": flops}, dt_softplus=True)


def ssd_flops(length: int, inner: int, d_state: int, groups: int = 1, chunk: int = 64) -> float:
    """FLOPs of the chunked scan: C B^T, the causal half inside chunks, states, their passing, their outputs.

    Source: Mamba-2 (arXiv 2405.21060), section 6, a multiply-add counted as two.
    """
    inside = 2 * length * chunk * d_state * groups + length * chunk * inner
    return inside + 4 * length * d_state * inner + 2 * inner * d_state * -(-length // chunk)


def selective_scan(
    length: int, channels: int, d_state: int, dtype: str, backward: bool = False, batch: int = 1
) -> Case:
    """Mamba-1's scan with D, the gate, delta_bias and softplus."""
    inputs = selective_inputs(length, channels, d_state, dtype, batch)
    inputs |= {name: inputs[name].unsqueeze(2) for name in ("B", "C")}  # (B, L, 1, N)
    return op_case(ops.selective_scan, inputs, backward, delta_softplus=True)


def causal_conv1d(length: int, channels: int, dtype: str, backward: bool = False) -> Case:
    """Four taps, bias and silu."""
    inputs = {
        "x": normal(1, length, channels, dtype=dtype),
        "weight": normal(channels, 4),
        "bias": normal(channels),
    }
    return op_case(ops.causal_conv1d, inputs, backward, activation="silu")


def rms_norm(length: int, width: int, dtype: str, backward: bool = False) -> Case:
    """The norm of a block."""
    inputs = {"x": normal(length, width, dtype=dtype), "weight": normal(width)}
    return op_case(ops.rms_norm, inputs, backward)


def add_rms_norm(length: int, width: int, dtype: str) -> Case:
    """The norm of a block and its fp32 residual."""
    x, residual = normal(length, width, dtype=dtype), normal(length, width, seed=1)
    return op_case(ops.add_rms_norm, {"x": x, "residual": residual, "weight": normal(width)})


def rms_norm_gated(length: int, width: int, dtype: str, backward: bool = False) -> Case:
    """Mamba-2's norm behind the gate."""
    x, z = (normal(length, width, dtype=dtype, seed=seed) for seed in (0, 1))
    return op_case(ops.rms_norm_gated, {"x": x, "z": z, "weight": normal(width)}, backward)


def selective_state_update(length: int, heads: int, head_dim: int, d_state: int, dtype: str) -> Case:
    """A token of each of `length` sequences through Mamba-2's recurrence, the state in fp32."""
    inputs = ssd_inputs(length, heads, head_dim, d_state, dtype)
    tokens = {name: inputs[name].squeeze(0) for name in ("x", "dt", "B", "C")}
    state = torch.zeros(length, heads, head_dim, d_state)
    return op_case(ops.selective_state_update, {"state": state, **inputs, **tokens}, dt_softplus=True)


def mamba2_step(length: int, heads: int, head_dim: int, d_state: int, dtype: str) -> Case:
    """A token of each of `length` sequences through a Mamba-2 mixer between its linears."""
    inner = heads * head_dim
    channels = inner + 2 * d_state
    inputs = {
        "zxbcdt": normal(length, inner + channels + heads, dtype=dtype),
        "conv_state": normal(length, channels, 3, dtype=dtype),
        "ssm_state": torch.zeros(length, heads, head_dim, d_state),
        "conv_weight": normal(channels, 4, dtype=dtype),
        "conv_bias": normal(channels, dtype=dtype),
        "dt_bias": torch.full((heads,), -4.0, dtype=dtype_of(dtype)),
        "A_log": torch.linspace(1, 16, heads).log().to(dtype_of(dtype)),
        "D": torch.ones(heads, dtype=dtype_of(dtype)),
        "norm_weight": torch.ones(inner, dtype=dtype_of(dtype)),
    }
    return op_case(ops.mamba2_step, inputs, n_groups=1)


def mamba_step(length: int, channels: int, d_state: int, dt_rank: int, dtype: str) -> Case:
    """A token of each of `length` sequences through a Mamba-1 mixer between its linears."""
    inputs = {
        "xz": normal(length, 2 * channels, dtype=dtype),
        "conv_state": normal(length, channels, 3, dtype=dtype),
        "ssm_state": torch.zeros(length, channels, d_state),
        "conv_weight": normal(channels, 4, dtype=dtype),
        "conv_bias": normal(channels, dtype=dtype),
        "x_proj_weight": 0.02 * normal(dt_rank + 2 * d_state, channels, dtype=dtype),
        "dt_proj_weight": 0.02 * normal(channels, dt_rank, dtype=dtype),
        "dt_proj_bias": torch.full((channels,), -4.0, dtype=dtype_of(dtype)),
        "A_log": torch.arange(1, d_state + 1).log().repeat(channels, 1).to(dtype_of(dtype)),
        "D": torch.ones(channels, dtype=dtype_of(dtype)),
    }
    return op_case(ops.mamba_step, inputs)


def op_case(
    call: Callable[..., Any],
    inputs: Mapping[str, Tensor],
    backward: bool = False,
    about: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Case:
    """A call of an operator; `backward`: and gradients of all inputs by a random one of its first result."""
    if not backward:

        @torch.inference_mode()
        def run() -> object:
            return call(**inputs, **settings)

        return Case(run, about=about or {})
    # copies, so that each can have a gradient of its own
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}

    def result() -> Tensor:
        found = call(**leaves, **settings)
        return found if isinstance(found, Tensor) else found[0]

    y = result().detach()
    gradient = normal(*y.shape, seed=9).to(y.dtype)
    return Case(lambda: torch.autograd.grad(result(), list(leaves.values()), gradient))


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> Tensor:
    """Normal random numbers."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype_of(dtype))


def ssd_inputs(
    length: int, heads: int, head_dim: int, d_state: int, dtype: str, batch: int = 1
) -> dict[str, Tensor]:
    """x, B and C as a trained Mamba-2's projection gives them, dt before its bias and softplus.

    x (B, L, H, P), dt (B, L, H), A (H), B and C (B, L, 1, N), D and dt_bias (H). x, dt, B and C are views of
    one projection, as in the model.
    """
    inner = heads * head_dim
    widths = (inner, d_state, d_state, heads)
    x, B, C, dt = normal(batch, length, sum(widths), dtype=dtype).split(widths, dim=-1)
    return {
        "x": x.unflatten(-1, (heads, head_dim)),  # (B, L, H, P)
        "dt": dt,
        "A": -torch.linspace(1, 16, heads),
        "B": B.unflatten(-1, (1, d_state)),  # (B, L, 1, N)
        "C": C.unflatten(-1, (1, d_state)),
        "D": torch.ones(heads),
        # dt of about 0.02, the middle of the published range
        "dt_bias": torch.full((heads,), -4.0),
    }


def selective_inputs(
    length: int, channels: int, d_state: int, dtype: str, batch: int = 1
) -> dict[str, Tensor]:
    """u, delta and z (B, L, D), A (D, N), B and C (B, L, N), D and delta_bias (D)."""
    widths = {"u": channels, "delta": channels, "B": d_state, "C": d_state, "z": channels}
    tokens = {
        name: normal(batch, length, width, dtype=dtype, seed=seed)
        for seed, (name, width) in enumerate(widths.items())
    }
    return {
        **tokens,
        "A": -torch.arange(1, d_state + 1, dtype=torch.float32).repeat(channels, 1),
        "D": torch.ones(channels),
        "delta_bias": torch.full((channels,), -4.0),
    }


CASES: dict[str, Callable[..., Case]] = {
    case.__name__: case
    for case in (
        ssd_chunk_scan,
        selective_scan,
        causal_conv1d,
        rms_norm,
        add_rms_norm,
        rms_norm_gated,
        selective_state_update,
        mamba2_step,
        mamba_step,
        linear_cycle,
    )
}
