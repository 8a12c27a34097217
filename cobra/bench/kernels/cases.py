"""What our kernels and plain torch are timed on, by the names that plan.py uses."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from cobra.bench.kernels.inputs import independent, selective_inputs, ssd_inputs
from cobra.bench.kernels.linear_cases import linear_cycle
from cobra.bench.kernels.model_cases import decode, decode_linears, prefill, prefill_linears
from cobra.bench.timing.case import Case, dtype_of, forward, normal, with_gradients
from cobra.kernels import huge_pages, ops


def gemm(size: int, dtype: str) -> Case:
    """A square matrix product: the machine's rate of multiplications."""
    a, b = normal(size, size, dtype=dtype), normal(size, size, dtype=dtype, seed=1)
    return forward(lambda: F.linear(a, b), flops=2 * size**3)


def read(mebibytes: int) -> Case:
    """A sum over distinct data on huge pages: the machine's read bandwidth, if there is more than cache."""
    data = huge_pages.zeros((mebibytes * 2**18,), torch.float32, torch.device("cpu")).fill_(1)
    return forward(data.sum, bytes=data.nbytes)


def ssd_chunk_scan(
    length: int, heads: int, head_dim: int, d_state: int, dtype: str, backward: bool = False
) -> Case:
    """Mamba-2's scan with D, dt_bias and softplus."""
    inputs = ssd_inputs(length, heads, head_dim, d_state, dtype)
    if backward:
        inputs = independent(inputs)
        return with_gradients(
            lambda: ops.ssd_chunk_scan(**inputs, dt_softplus=True)[0], list(inputs.values())
        )
    flops = ssd_flops(length, heads * head_dim, d_state)
    return forward(lambda: ops.ssd_chunk_scan(**inputs, dt_softplus=True), flops)


def ssd_flops(length: int, inner: int, d_state: int, groups: int = 1, chunk: int = 64) -> float:
    """FLOPs of the chunked scan: C B^T, the causal half inside chunks, states, their passing, their outputs.

    Source: Mamba-2 (arXiv 2405.21060), section 6, a multiply-add counted as two.
    """
    inside = 2 * length * chunk * d_state * groups + length * chunk * inner
    return inside + 4 * length * d_state * inner + 2 * inner * d_state * -(-length // chunk)


def selective_scan(length: int, channels: int, d_state: int, dtype: str, backward: bool = False) -> Case:
    """Mamba-1's scan with D, the gate, delta_bias and softplus."""
    inputs = selective_inputs(length, channels, d_state, dtype)
    B, C = inputs.pop("B").unsqueeze(2), inputs.pop("C").unsqueeze(2)  # (1, L, 1, N)
    inputs = {**inputs, "B": B, "C": C}
    if backward:
        return with_gradients(
            lambda: ops.selective_scan(**inputs, delta_softplus=True)[0], list(inputs.values())
        )
    return forward(lambda: ops.selective_scan(**inputs, delta_softplus=True))


def causal_conv1d(length: int, channels: int, dtype: str, backward: bool = False) -> Case:
    """Four taps, bias and silu."""
    x, weight, bias = normal(1, length, channels, dtype=dtype), normal(channels, 4), normal(channels)
    if backward:
        return with_gradients(
            lambda: ops.causal_conv1d(x, weight, bias, activation="silu")[0], [x, weight, bias]
        )
    return forward(lambda: ops.causal_conv1d(x, weight, bias, activation="silu"), bytes=2 * x.nbytes)


def rms_norm(length: int, width: int, dtype: str, backward: bool = False) -> Case:
    """The norm of a block."""
    x, weight = normal(length, width, dtype=dtype), normal(width)
    if backward:
        return with_gradients(lambda: ops.rms_norm(x, weight), [x, weight])
    return forward(lambda: ops.rms_norm(x, weight), bytes=2 * x.nbytes)


def add_rms_norm(length: int, width: int, dtype: str) -> Case:
    """The norm of a block and its fp32 residual."""
    x, weight, residual = normal(length, width, dtype=dtype), normal(width), normal(length, width, seed=1)
    return forward(lambda: ops.add_rms_norm(x, residual, weight), bytes=2 * x.nbytes + 2 * residual.nbytes)


def rms_norm_gated(length: int, width: int, dtype: str, backward: bool = False) -> Case:
    """Mamba-2's norm behind the gate."""
    x, z, weight = (
        normal(length, width, dtype=dtype),
        normal(length, width, dtype=dtype, seed=1),
        normal(width),
    )
    if backward:
        return with_gradients(lambda: ops.rms_norm_gated(x, z, weight), [x, z, weight])
    return forward(lambda: ops.rms_norm_gated(x, z, weight), bytes=3 * x.nbytes)


def selective_state_update(heads: int, head_dim: int, d_state: int, dtype: str) -> Case:
    """One token of Mamba-2's recurrence, the state in fp32."""
    inputs = ssd_inputs(1, heads, head_dim, d_state, dtype)
    state = torch.zeros(1, heads, head_dim, d_state)
    token = {name: inputs[name].squeeze(1) for name in ("x", "dt", "B", "C")}
    rest = {name: inputs[name] for name in ("A", "D", "dt_bias")}
    return forward(
        lambda: ops.selective_state_update(state, **token, **rest, dt_softplus=True), bytes=2 * state.nbytes
    )


def mamba2_step(heads: int, head_dim: int, d_state: int, dtype: str) -> Case:
    """One token through a Mamba-2 mixer between its linears."""
    inner = heads * head_dim
    channels = inner + 2 * d_state
    zxbcdt = normal(1, inner + channels + heads, dtype=dtype)
    conv_state, state = normal(1, channels, 3, dtype=dtype), torch.zeros(1, heads, head_dim, d_state)
    weights = [
        normal(channels, 4, dtype=dtype),
        normal(channels, dtype=dtype),
        torch.full((heads,), -4.0, dtype=dtype_of(dtype)),
        torch.linspace(1, 16, heads).log().to(dtype_of(dtype)),
        torch.ones(heads, dtype=dtype_of(dtype)),
        torch.ones(inner, dtype=dtype_of(dtype)),
    ]
    return forward(
        lambda: ops.mamba2_step(zxbcdt, conv_state, state, *weights, n_groups=1), bytes=2 * state.nbytes
    )


def mamba_step(channels: int, d_state: int, dt_rank: int, dtype: str) -> Case:
    """One token through a Mamba-1 mixer between its linears."""
    xz, conv_state = normal(1, 2 * channels, dtype=dtype), normal(1, channels, 3, dtype=dtype)
    state = torch.zeros(1, channels, d_state)
    weights = [
        normal(channels, 4, dtype=dtype),
        normal(channels, dtype=dtype),
        0.02 * normal(dt_rank + 2 * d_state, channels, dtype=dtype),
        0.02 * normal(channels, dt_rank, dtype=dtype),
        torch.full((channels,), -4.0, dtype=dtype_of(dtype)),
        torch.arange(1, d_state + 1).log().repeat(channels, 1).to(dtype_of(dtype)),
        torch.ones(channels, dtype=dtype_of(dtype)),
    ]
    return forward(lambda: ops.mamba_step(xz, conv_state, state, *weights), bytes=2 * state.nbytes)


CASES: dict[str, Callable[..., Case]] = {
    case.__name__: case
    for case in (
        gemm,
        read,
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
        prefill,
        prefill_linears,
        decode,
        decode_linears,
    )
}
