"""Mamba-2's scan (arXiv 2405.21060), a segment of chunks after the other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_exporting

from cobra.kernels.call import needs_gradient
from cobra.kernels.initial_rows import of_rows
from cobra.kernels.reference.masks import blank, join_sequences
from cobra.kernels.reference.precision import accumulator, without_autocast
from cobra.kernels.reference.time_step import LONGEST_DECAY, skip_and_gate, time_step
from cobra.kernels.registration import room_for_gradient
from cobra.kernels.scan_order import unvisit, visit
from cobra.kernels.torch import OPERATORS
from cobra.kernels.torch.duality import (
    Inputs,
    backward,
    by_group,
    decays,
    outputs,
    pass_states,
)  # fmt: skip
from cobra.kernels.torch.segments import Segment, segments
from cobra.kernels.torch.time_step import time_step_backward

# Tokens of a chunk at most: what is done for each pair of them is no matrix product.
LARGEST_CHUNK = 64


def ssd_chunk_scan(*inputs: Any) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) and the final state (B, H, P, N); states are kept where a gradient will be asked for.

    What a token must not hear of is multiplied by 0, so NaN and infinity reach all tokens of their row from
    their chunk's first one on.
    """
    if is_exporting():
        y, final_state, _ = _ssd_chunk_scan(*inputs, False)  # type: ignore[call-arg]
    else:
        y, final_state, _ = _operator(*inputs, needs_gradient(*inputs))  # type: ignore[call-arg]
    return y, final_state


class _Tokens(NamedTuple):
    """What a scan reads of tokens in the order of its visits (B, L, ...), or of a segment (B, K, Q, ...)."""

    x: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    mask: Tensor | None
    seq: Tensor | None
    before: Tensor | None

    def of(self, segment: Segment) -> "_Tokens":
        """Those of a segment, with zeros under the mask."""
        x, dt, B, C = (segment.of(m) for m in self[:4])
        mask, seq, before = (None if m is None else segment.of(m) for m in self[4:])
        if mask is not None:
            x, dt, B, C = (blank(m, mask) for m in (x, dt, B, C))
        return _Tokens(x, dt, B, C, mask, seq, before)

    def inputs(self, dt: Tensor, A: Tensor) -> Inputs:
        """What the products read of a segment with these time steps (B, K, Q, H)."""
        groups = self.B.shape[3]
        fed, B, C = (
            by_group(m, groups)
            for m in (self.x.to(dt.dtype) * dt.unsqueeze(-1), self.B.to(dt.dtype), self.C.to(dt.dtype))
        )
        decay = (dt * A.to(dt.dtype)).clamp(min=LONGEST_DECAY).transpose(2, 3)
        return Inputs(fed, decay, B, C, self.seq, None if self.before is None else self.before[:, :, :1])


def _visits(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> _Tokens:
    x, dt, B, C = (visit(m, scan_order, grid) for m in (x, dt, B, C))
    seq_idx, mask = (visit(m, scan_order, grid) for m in (seq_idx, mask))
    if mask is not None:
        seq_idx = join_sequences(seq_idx, mask)
    # the given state belongs to the sequence of the first token
    before = None if seq_idx is None else torch.cat([seq_idx[:, :1], seq_idx[:, :-1]], dim=1)
    return _Tokens(x, dt, B, C, mask, seq_idx, before)


def _pieces(x: Tensor, chunk_size: int) -> list[Segment]:
    chunk = min(chunk_size, LARGEST_CHUNK)
    return list(segments(x.shape[1], chunk, len(x) * x.shape[2] * chunk, x.device))


def _by_group(state: Tensor | None, B: Tensor, dtype: torch.dtype) -> Tensor | None:
    """A state (B, H, P, N) as (B, G, R P, N)."""
    return None if state is None else state.to(dtype).unflatten(1, (B.shape[2], -1)).flatten(2, 3)


def _fake(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    (batch, _, heads, head_dim), (groups, d_state) = x.shape, B.shape[2:]
    *_, chunk_size, return_final_state, keep = rest
    chunks = sum(piece.chunks for piece in _pieces(x, chunk_size))
    final = (batch, heads, head_dim, d_state) if return_final_state else (0,)
    kept = (batch, chunks, groups, heads // groups * head_dim, d_state) if keep else (0,)
    results = (x.new_empty(shape, dtype=accumulator(x)) for shape in (final, kept))
    return x.new_empty(x.shape), next(results), next(results)


@without_autocast
def _ssd_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    initial_state: Tensor | None,
    initial_rows: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
    chunk_size: int,
    return_final_state: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Also the states (B, chunks, G, R P, N) before each chunk if they are to be kept."""
    y, final, kept = _fake(x, dt, A, B, chunk_size, return_final_state, keep)
    tokens, pieces = _visits(x, dt, B, C, seq_idx, mask, scan_order, grid), _pieces(x, chunk_size)
    state, first, outs = _by_group(of_rows(initial_state, initial_rows), B, final.dtype), 0, []
    for segment in pieces:
        part = tokens.of(segment)
        inputs = part.inputs(time_step(part.dt, dt_bias, dt_softplus, final.dtype, part.mask), A)
        left = decays(inputs)
        starts, state = pass_states(inputs, left, state, return_final_state or segment is not pieces[-1])
        out = outputs(inputs, left, starts).transpose(2, 3).reshape(part.x.shape)
        out = skip_and_gate(out, part.x, None if D is None else D.unsqueeze(-1), mask=part.mask)
        outs.append(out.flatten(1, 2))
        if keep:
            kept[:, first : first + segment.chunks] = 0.0 if starts is None else starts
            first += segment.chunks
    if outs:
        y = outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
    if return_final_state:
        # a copy, because without a token it is the given one
        final = final.zero_() if state is None else final.copy_(state.reshape(final.shape))
    return unvisit(y, scan_order, grid), final, kept


_operator = OPERATORS.register(_fake)(_ssd_chunk_scan)


@OPERATORS.gradient(
    _operator,
    "y final_state states",
    of=("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state"),
)
@without_autocast
def ssd_chunk_scan_backward(
    dy: Tensor | None,
    dfinal_state: Tensor | None,
    states: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
    chunk_size: int,
) -> list[Tensor]:
    """Gradients of x to the bias and of the first state."""
    tokens, dtype = _visits(x, dt, B, C, seq_idx, mask, scan_order, grid), states.dtype
    dy = states.new_zeros(()).expand(x.shape) if dy is None else visit(dy, scan_order, grid)
    dstate, first = _by_group(dfinal_state, B, dtype), states.shape[1]
    per_token = [room_for_gradient(m, x) for m in (x, dt, B, C)]
    sums = list(states.new_zeros(3, x.shape[2]))
    for segment in reversed(_pieces(x, chunk_size)):
        part, first = tokens.of(segment), first - segment.chunks
        steps = time_step(part.dt, dt_bias, dt_softplus, dtype, part.mask)
        inputs, dout = part.inputs(steps, A), segment.of(dy).to(dtype)
        if part.mask is not None:
            dout = blank(dout, part.mask)
        given = first > 0 or initial_state is not None
        starts = states[:, first : first + segment.chunks] if given or segment.chunks > 1 else None
        of_out = by_group(dout, B.shape[2])
        dfed, ddecay, dB, dC, dstate = backward(inputs, decays(inputs), starts, of_out, dstate, given)
        dx, ddt, *of_parameters = _feed_backward(part, steps, A, D, dout, dfed, ddecay)
        ddt = time_step_backward(ddt, part.dt, dt_bias, dt_softplus, part.mask)
        for total, more in zip(sums, (*of_parameters, ddt), strict=True):
            total += more.sum((0, 1, 2))
        for whole, gradient in zip(per_token, (dx, ddt, dB.transpose(2, 3), dC.transpose(2, 3)), strict=True):
            segment.of(whole).copy_(gradient)
    dx, ddt, dB, dC = (unvisit(m, scan_order, grid) for m in per_token)
    dA, dD, dbias = sums
    dinitial = states.new_zeros(len(x), *x.shape[2:], B.shape[3])
    if dstate is not None:
        dinitial.copy_(dstate.reshape(dinitial.shape))
    return [dx, ddt, dA, dB, dC, dD, dbias, dinitial]


def _feed_backward(
    part: _Tokens, steps: Tensor, A: Tensor, D: Tensor | None, dout: Tensor, dfed: Tensor, ddecay: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of the time steps, and of A and D before their sums over tokens."""
    x, A, dfed = part.x.to(dout.dtype), A.to(dout.dtype), dfed.transpose(2, 3).reshape(dout.shape)
    ddecay = ddecay.transpose(2, 3).masked_fill(steps * A < LONGEST_DECAY, 0.0)  # (B, K, Q, H)
    ddt = torch.addcmul((dfed * x).sum(-1), ddecay, A)
    dx = dfed.mul_(steps.unsqueeze(-1))
    if D is not None:
        dx = dx.addcmul_(dout, D.to(dx.dtype).unsqueeze(-1))
    return dx, ddt, ddecay * steps, (dout * x).sum(-1)
