"""Stand-in for the packages mamba-ssm and causal-conv1d: their signatures and rules, the reference's values.

Written after the published sources of mamba-ssm 2.3.2.post1 and causal-conv1d 1.7.0, whose files and lines
are named; any device is taken. What upstream computes of a call without saying that it breaks a rule is
computed here, too.
"""

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels import ops
from cobra.kernels.call import Function
from cobra.kernels.mamba_ssm import Upstream
from cobra.kernels.reference import conv1d, norms, selective_scan, ssd
from cobra.kernels.reference.time_step import time_step
from tests.kernels.cases import Case, floating, run
from tests.kernels.sequence_inputs import Inputs

# what upstream itself computed, made by `freeze_upstream.py`
OUTPUTS = Path(__file__).with_name("upstream_outputs.safetensors")
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# what was called, with all arguments by name
CALLS: list[tuple[str, dict[str, Any]]] = []


def recorded(function: Function) -> Function:
    @functools.wraps(function)
    def record(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(function).bind(*args, **kwargs)
        CALLS.append((function.__name__, dict(bound.arguments)))
        return function(*args, **kwargs)

    return record


def need(rule: bool, why: str) -> None:
    if not rule:
        raise AssertionError(why)


@recorded
def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    need(activation in (None, "silu", "swish"), "causal_conv1d_interface.py:22")
    need(not return_final_states and final_states_out is None, "the adapter makes the final state")
    if x.stride(2) != 1 and x.stride(1) != 1:  # causal_conv1d_interface.py:24
        x = x.contiguous()
    # before 1.7 and in the hub's kernels
    need(seq_idx is None or initial_states is None, "initial_states must be None if seq_idx is not None")
    if initial_states is not None and initial_states.stride(2) != 1 and initial_states.stride(1) != 1:
        # causal_conv1d_interface.py:33: a tensor made inside of the function requires no gradient there
        initial_states = initial_states.contiguous().detach()
    channel_last = _check_conv(x, weight, bias)
    if seq_idx is not None:
        need(channel_last, "causal_conv1d.cpp:193: seq_idx is only supported for channel last layout")
        need(seq_idx.dtype == torch.int32 and seq_idx.is_contiguous(), "causal_conv1d.cpp:195, 197")
    if initial_states is not None:
        need(channel_last, "causal_conv1d.cpp:213: initial_states is only supported for channel last")
        need(initial_states.dtype == x.dtype, "causal_conv1d.cpp:215")
        need(initial_states.stride(1) == 1, "causal_conv1d.cpp:218")
        # causal_conv1d_fwd.cu:263 loads 16 bytes at once
        need(initial_states.stride(2) % 8 == 0 and initial_states.storage_offset() % 8 == 0, "misaligned")
    y, _ = conv1d.causal_conv1d(
        x.transpose(1, 2), weight, bias, initial_states, seq_idx, activation, None, "forward", None
    )
    if seq_idx is not None:
        # causal_conv1d_fwd.cu:322
        y = y.masked_fill((seq_idx < 0).unsqueeze(-1), 0.0)
    y = y.transpose(1, 2)
    if y.requires_grad:
        y.register_hook(functools.partial(_check_conv_gradient, channel_last))
    return y


def _check_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel takes x (B, C, L) as channels last, of which it must then be."""
    need(x.dtype in FLOATS and weight.dtype in FLOATS, "causal_conv1d.cpp:160, 161")
    need(x.shape[1] == weight.shape[0], "causal_conv1d.cpp:173")
    need(0 not in x.shape, "a grid of no blocks cannot start")
    need(x.stride(2) == 1 or x.stride(1) == 1, "causal_conv1d.cpp:175")
    channel_last = x.stride(1) == 1 and x.stride(2) > 1  # causal_conv1d.cpp:176
    if channel_last:
        need(x.shape[1] % 8 == 0, "causal_conv1d.cpp:179: channel dimension divisible by 8")
        need(x.stride(2) % 8 == 0 and x.stride(0) % 8 == 0, "causal_conv1d.cpp:180: strides")
        need(x.storage_offset() % 8 == 0, "causal_conv1d_fwd.cu:249 loads 16 bytes at once")
    else:
        # the kernel reads tokens one after the other, whatever the stride
        need(x.stride(2) == 1, "causal_conv1d_fwd.cu:90")
    need(2 <= weight.shape[1] <= 4, "causal_conv1d.cpp:182: width between 2 and 4")
    if bias is not None:
        need(bias.dtype == weight.dtype and bias.stride(-1) == 1, "causal_conv1d.cpp:186, 188")
    return channel_last


def _check_conv_gradient(channel_last: bool, dout: Tensor) -> None:
    if dout.stride(2) != 1 and dout.stride(1) != 1:  # causal_conv1d_interface.py:67
        dout = dout.contiguous()
    if channel_last:
        if dout.stride(1) != 1:  # causal_conv1d.cpp:298
            dout = dout.transpose(-1, -2).contiguous().transpose(-1, -2)
        need(dout.stride(2) % 8 == 0 and dout.stride(0) % 8 == 0, "causal_conv1d.cpp:303: strides")


@recorded
def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    need(activation in (None, "silu", "swish"), "causal_conv1d_interface.py:210")
    need(x.dtype in FLOATS and weight.dtype in FLOATS, "causal_conv1d.cpp:477, 478")
    need(conv_state.dtype == x.dtype, "causal_conv1d.cpp:479")
    need(conv_state.shape[2] >= weight.shape[1] - 1, "causal_conv1d.cpp:491")
    need(2 <= weight.shape[1] <= 4, "causal_conv1d.cpp:496: width between 2 and 4")
    need(0 not in x.shape, "a grid of no blocks cannot start")
    if bias is not None:
        need(bias.dtype == weight.dtype and bias.stride(-1) == 1, "causal_conv1d.cpp:500, 502")
    need(cache_seqlens is None and conv_state_indices is None, "not of the op")
    with torch.no_grad():  # no autograd.Function is behind it
        return conv1d.causal_conv1d_update(x, conv_state.data, weight, bias, activation)


@recorded
def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Any:
    if D is not None:  # selective_scan_interface.py:33
        D = D.contiguous()
    need(B.dim() == 4 and C.dim() == 4, "input maps that depend on the token, in groups")
    need(u.dtype in FLOATS and A.dtype == torch.float32, "selective_scan.cpp:235, 236")
    need(all(m.dtype == u.dtype for m in (delta, B, C)), "selective_scan.cpp:242 to 244")
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    need(0 not in u.shape, "a grid of no blocks cannot start")
    need(A.shape[1] <= 256, "selective_scan.cpp:262: state dimension <= 256")
    need(delta.shape == u.shape and A.shape == (channels, states), "selective_scan.cpp:265, 266")
    need(B.shape == C.shape == (batch, groups, states, length), "selective_scan.cpp:270, 276")
    for m in [m for m in (u, delta, B, C, z) if m is not None]:
        # the interface copies what is not, lines 28 to 39; the kernel's vectors need them aligned, too
        need(m.is_contiguous(), "made contiguous by the adapter")
    for m in [m for m in (D, delta_bias) if m is not None]:
        need(m.dtype == torch.float32 and m.shape == (channels,), "selective_scan.cpp:282, 290")
        need(m.stride(-1) == 1 or m.shape[-1] == 1, "selective_scan.cpp:284, 292")
    need(z is None or (z.dtype == u.dtype and z.shape == u.shape), "selective_scan.cpp:300, 303")
    y, state = selective_scan.selective_scan(
        u.transpose(1, 2),
        delta.transpose(1, 2),
        A,
        B.permute(0, 3, 1, 2),
        C.permute(0, 3, 1, 2),
        D,
        None if z is None else z.transpose(1, 2),
        delta_bias,
        delta_softplus,
        *(None, None, None, "forward", None),
    )
    # selective_scan_interface.py:109: the gradient of the last state is not considered
    state = state.detach() + 0 * y.sum()
    return (y.transpose(1, 2), state) if return_last_state else y.transpose(1, 2)


@recorded
def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
) -> Any:
    need(z is None and cu_seqlens is None and not return_varlen_states, "not of the op")
    need(0 not in x.shape, "ssd_state_passing.py:72 stores no state of no chunks")
    # ssd_chunk_state.py:253, ssd_chunk_scan.py:117, 148: factors are rounded to the dtype of the other
    need(x.dtype == B.dtype == C.dtype, "x, B and C are factors of one another")
    need(x.shape[2] % B.shape[2] == 0, "ssd_combined.py:346")
    need(dt.shape == x.shape[:3] and A.shape == x.shape[2:3], "ssd_combined.py:349, 350")
    need(B.shape == C.shape == (*x.shape[:2], *B.shape[2:]), "ssd_combined.py:347, 351")
    need(D is None or D.shape in (x.shape[2:3], x.shape[2:]), "ssd_combined.py:355")
    need(chunk_size & (chunk_size - 1) == 0, "tuned for powers of 2")
    if seq_idx is not None:
        need(seq_idx.shape == x.shape[:2] and seq_idx.dtype == torch.int32, "ssd_combined.py:357")
        # -1 and -2 stand for tokens behind the end (ssd_chunk_scan.py:869)
        need(bool((seq_idx >= 0).all()), "sequences are counted from 0")
        if initial_states is not None:
            # ssd_state_passing.py:71: the state before is that of sequence 0
            initial_states = initial_states * (seq_idx[:, 0] == 0).view(-1, 1, 1, 1)
    dt = time_step(dt, dt_bias, dt_softplus, torch.float32).clamp(*dt_limit)  # ssd_chunk_state.py:80
    A = A.clamp(max=0)  # as ssd_chunk_scan.py:142 and ssd_chunk_state.py:248 cut decays at 1
    y, state = ssd.ssd_chunk_scan(
        x, dt, A, B, C, D, None, False, initial_states, None, seq_idx, None, "forward", None, chunk_size, True
    )
    return (y, state) if return_final_states else y


@recorded
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    # selective_state_update.py:207, 211: `*(...) if D is not None else 0` unpacks a number
    if D is None or dt_bias is None:
        raise TypeError("Value after * must be an iterable, not int")
    need(state.dim() == 4 and x.dim() == 3, "of several heads")
    batch, heads, width, states = state.shape
    need(0 not in x.shape, "nothing to do")
    need(x.shape == dt.shape == (batch, heads, width), "selective_state_update.py:174")
    need(A.shape == (heads, width, states), "selective_state_update.py:176")
    need(
        heads % B.shape[1] == 0 and C.shape == B.shape == (batch, B.shape[1], states),
        "selective_state_update.py:178 to 180",
    )
    need(D.shape == dt_bias.shape == (heads, width), "selective_state_update.py:182")
    need(z is None or z.shape == x.shape, "selective_state_update.py:184")
    need(state_batch_indices is None, "not of the op")
    with torch.no_grad():  # no autograd.Function is behind it
        step = dt.float() + dt_bias.float()
        step = F.softplus(step) if dt_softplus else step
        maps = [m.float().repeat_interleave(heads // m.shape[1], dim=1).unsqueeze(2) for m in (B, C)]
        fed = (step * x.float()).unsqueeze(-1) * maps[0]
        after = state.float() * torch.exp(step.unsqueeze(-1) * A.float()) + fed
        state.data.copy_(after)  # as a kernel writes: autograd does not see it
        y = (after * maps[1]).sum(-1) + x.float() * D.float()
        return (y if z is None else y * F.silu(z.float())).to(x.dtype)


def _check_rows(x: Tensor, weight: Tensor, width: int) -> None:
    need(weight.shape == x.shape[-1:], "layer_norm.py:314")
    need(x.stride(-1) == 1 or x.reshape(-1, x.shape[-1]).contiguous().stride(-1) == 1, "layer_norm.py:310")
    if width * x.element_size() > 65536:  # layer_norm.py:369, layernorm_gated.py:135
        raise RuntimeError("This layer norm doesn't support feature dim >= 64KB.")


@recorded
def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Any:
    need(all(m is None for m in (bias, x1, weight1, bias1, rowscale)), "not of the op")
    need(dropout_p == 0.0 and not return_dropout_mask, "not of the op")
    _check_rows(x, weight, x.shape[-1])
    need(residual is None or residual.shape == x.shape, "layer_norm.py:753")
    # layer_norm.py:308: a residual keeps its dtype
    y, total = norms.add_rms_norm(x, residual, weight, eps, residual is None and residual_in_fp32)
    return (y, total) if prenorm else y


@recorded
def rmsnorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    need(bias is None and z is not None and z.shape == x.shape, "layernorm_gated.py:117")
    need(not norm_before_gate, "Mamba-2 gates first")
    _check_rows(x, weight, group_size or x.shape[-1])
    need(x.shape[-1] % (group_size or x.shape[-1]) == 0, "layernorm_gated.py:112")
    assert z is not None
    return norms.rms_norm_gated(x, z, weight, eps, group_size)


FUNCTIONS: list[Callable[..., Any]] = [
    causal_conv1d_fn,
    causal_conv1d_update,
    selective_scan_fn,
    mamba_chunk_scan_combined,
    selective_state_update,
    rms_norm_fn,
    rmsnorm_fn,
]
UPSTREAM = Upstream({function.__name__: function for function in FUNCTIONS})


def without_state_gradient(scan: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """A scan whose final state asks for no gradient: upstream has none for Mamba-1."""

    def detached(**inputs: Any) -> tuple[Tensor, Tensor]:
        y, state = scan(**inputs)
        return y, state.detach()

    return detached


def outputs(name: str, inputs: Inputs) -> dict[str, Tensor]:
    """Results, changed states and gradients of an op on the backend in use."""
    op = name.split()[0]
    given = {n: m.clone() if isinstance(m, Tensor) else m for n, m in inputs.items()}
    function = getattr(ops, op)
    if op == "selective_scan":
        function = without_state_gradient(function)
    if op.endswith("update"):
        return run(function, Case(op, lambda _: inputs, ("state",)), given)
    for n in floating(given):
        given[n].requires_grad_()
    return run(function, Case(op, lambda _: inputs), given)
