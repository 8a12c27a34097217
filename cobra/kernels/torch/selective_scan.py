"""Mamba-1's selective scan (arXiv 2312.00752, algorithm 2), a segment of chunks after the other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_exporting

from cobra.kernels.call import needs_gradient
from cobra.kernels.reference import selective_scan as sequential
from cobra.kernels.reference.masks import blank, join_sequences
from cobra.kernels.reference.precision import accumulator, without_autocast
from cobra.kernels.reference.time_step import skip_and_gate, time_step
from cobra.kernels.registration import room_for_gradient
from cobra.kernels.scan_order import unvisit, visit
from cobra.kernels.torch import OPERATORS
from cobra.kernels.torch.recurrence import Inputs, place, scan, scan_backward
from cobra.kernels.torch.segments import Segment, segments
from cobra.kernels.torch.time_step import gate_backward, time_step_backward

# tokens that are visited one after the other
CHUNK = 32


def selective_scan(*inputs: Any) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the final state (B, D, N); states are kept where a gradient will be asked for."""
    if is_exporting():
        # an exported graph would copy the whole of what changes in place, token by token
        return sequential.selective_scan(*inputs)
    y, final_state, _ = _selective_scan(*inputs, needs_gradient(*inputs))  # type: ignore[call-arg]
    return y, final_state


def _pieces(u: Tensor, A: Tensor) -> list[Segment]:
    return list(segments(u.shape[1], CHUNK, len(u) * A.numel(), u.device))


def _fake(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    dtype, groups, width = accumulator(u), B.shape[2], A.shape[0] // B.shape[2]
    final = u.new_empty(len(u), *A.shape, dtype=dtype)
    kept = (len(_pieces(u, A)), len(u), groups, A.shape[1], width) if rest[-1] else (0,)
    return u.new_empty(u.shape), final, u.new_empty(kept, dtype=dtype)


@OPERATORS.register(_fake)
@without_autocast
def _selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Also the states (B, G, N, W) before each segment if they are to be kept, of groups of W channels."""
    y, final, kept = _fake(u, delta, A, B, keep)
    tokens = _visits(u, delta, B, C, z, seq_idx, mask, scan_order, grid)
    rates = _by_group(A.to(final.dtype), B)
    state = _by_group(final.zero_() if initial_state is None else initial_state.to(final.dtype), B)
    room = _room(2, state, _pieces(u, A))
    for number, segment in enumerate(_pieces(u, A)):
        part = tokens.of(segment)
        if keep:
            kept[number] = state
        _, states = scan(part.inputs(delta_bias, delta_softplus, final.dtype), rates, state, room)
        segment.of(y).copy_(skip_and_gate(_read_out(part, states), part.u, D, part.z, part.mask))
        state = states[:, -1, -1].clone()
    final.copy_(_by_channel(state))
    return unvisit(y, scan_order, grid), final, kept


@OPERATORS.gradient(
    _selective_scan,
    "y final_state states",
    of=("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"),
)
@without_autocast
def selective_scan_backward(
    dy: Tensor | None,
    dfinal_state: Tensor | None,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> list[Tensor]:
    """Gradients of u to the bias and of the first state."""
    tokens, dtype = _visits(u, delta, B, C, z, seq_idx, mask, scan_order, grid), states.dtype
    dy = states.new_zeros(()).expand(u.shape) if dy is None else visit(dy, scan_order, grid)
    rates = _by_group(A.to(dtype), B)
    last = states.new_zeros(len(u), *A.shape) if dfinal_state is None else dfinal_state
    dstate, sums = _by_group(last, B), [torch.zeros_like(rates), *states.new_zeros(2, u.shape[2])]
    per_token = [room_for_gradient(m, u) for m in (u, delta, B, C, z)]
    room = _room(3, dstate, _pieces(u, A))
    for number, segment in reversed([*enumerate(_pieces(u, A))]):
        part = tokens.of(segment)
        inputs = part.inputs(delta_bias, delta_softplus, dtype)
        decays, after = scan(inputs, rates, states[number], room)
        dout, dz = _gate_backward(part, segment.of(dy).to(dtype), after, D)
        dC, dafter = _read_out_backward(part, dout, after, place(room[2], inputs))
        ddt, dfed, dB, dA, dstate = scan_backward(
            inputs, rates, states[number], decays, after, dafter, dstate
        )
        du, ddelta, dD = _feed_backward(part, inputs, dout, ddt, dfed, D, delta_bias, delta_softplus)
        for total, more in zip(sums, (dA, dD, ddelta), strict=True):
            total += more.sum_to_size(total.shape)
        for whole, gradient in zip(per_token, (du, ddelta, dB, dC, dz), strict=True):
            if whole.numel():
                segment.of(whole).copy_(gradient)
    du, ddelta, dB, dC, dz = (unvisit(m, scan_order, grid) if m.numel() else m for m in per_token)
    dA, dD, dbias = sums
    return [du, ddelta, _by_channel(dA), dB, dC, dD, dz, dbias, _by_channel(dstate)]


class _Tokens(NamedTuple):
    """What a scan reads of tokens in the order of its visits (B, L, ...), or of a segment (B, K, Q, ...)."""

    u: Tensor
    delta: Tensor
    B: Tensor
    C: Tensor
    z: Tensor | None
    mask: Tensor | None
    restarts: Tensor | None

    def of(self, segment: Segment) -> "_Tokens":
        """Those of a segment, with zeros under the mask."""
        u, delta, B, C = (segment.of(m) for m in self[:4])
        z, mask, restarts = (None if m is None else segment.of(m) for m in self[4:])
        if mask is not None:
            u, delta, B, C = (blank(m, mask) for m in (u, delta, B, C))
            z = blank(z, mask)
        return _Tokens(u, delta, B, C, z, mask, restarts)

    def inputs(self, bias: Tensor | None, softplus: bool, dtype: torch.dtype) -> Inputs:
        """What the recurrence reads of a segment."""
        dt = time_step(self.delta, bias, softplus, dtype, self.mask)
        by_group = (self.B.shape[3], -1)
        fed = (dt * self.u.to(dtype)).unflatten(3, by_group)
        return Inputs(dt.unflatten(3, by_group), fed, self.B.to(dtype), self.restarts)


def _visits(
    u: Tensor,
    delta: Tensor,
    B: Tensor,
    C: Tensor,
    z: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> _Tokens:
    u, delta, B, C = (visit(m, scan_order, grid) for m in (u, delta, B, C))
    z, seq_idx, mask = (visit(m, scan_order, grid) for m in (z, seq_idx, mask))
    if mask is not None:
        seq_idx = join_sequences(seq_idx, mask)
    restarts = None if seq_idx is None else F.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0))
    return _Tokens(u, delta, B, C, z, mask, restarts)


def _by_group(channels: Tensor, B: Tensor) -> Tensor:
    """(..., D, N) as (..., G, N, W), for as many groups as B (B, L, G, N) has."""
    return (
        channels.unflatten(-2, (B.shape[2], -1))
        .transpose(-1, -2)
        .clone(memory_format=torch.contiguous_format)
    )


def _by_channel(groups: Tensor) -> Tensor:
    """(..., G, N, W) as (..., D, N)."""
    return groups.transpose(-1, -2).flatten(-3, -2)


def _room(count: int, state: Tensor, pieces: Sequence[Segment]) -> Tensor:
    """Room for a state at each token of the largest of the segments, so many times."""
    tokens = max((piece.rows.stop - piece.rows.start for piece in pieces), default=0)
    return state.new_empty(count, tokens * state.numel())


def _read_out(part: _Tokens, states: Tensor) -> Tensor:
    """C h (B, K, Q, D)."""
    return (part.C.to(states.dtype).unsqueeze(-2) @ states).squeeze(-2).flatten(3)


def _read_out_backward(part: _Tokens, dout: Tensor, states: Tensor, dstates: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of C and, in their place, of the states by C h alone."""
    by_group = dout.unflatten(3, (part.C.shape[3], -1)).unsqueeze(-2)  # (B, K, Q, G, 1, W)
    torch.mul(by_group, part.C.to(dout.dtype).unsqueeze(-1), out=dstates)
    return (by_group @ states.mT).squeeze(-2), dstates


def _gate_backward(
    part: _Tokens, dy: Tensor, states: Tensor, D: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of C h + D u and of z."""
    if part.mask is not None:
        dy = blank(dy, part.mask)
    if part.z is None:
        return dy, None
    y = skip_and_gate(_read_out(part, states), part.u.to(dy.dtype), D)
    return gate_backward(dy, y, part.z)


def _feed_backward(
    part: _Tokens,
    inputs: Inputs,
    dout: Tensor,
    ddt: Tensor,
    dfed: Tensor,
    D: Tensor | None,
    bias: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of u, of delta, and of D before its sum over tokens."""
    u, dfed = part.u.to(dout.dtype), dfed.flatten(3)
    ddt = ddt.flatten(3).addcmul_(dfed, u)
    du = dfed.mul_(inputs.dt.flatten(3))
    if D is not None:
        du.addcmul_(dout, D.to(du.dtype))
    return du, time_step_backward(ddt, part.delta, bias, softplus, part.mask), dout * u
