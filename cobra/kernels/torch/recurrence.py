"""The recurrence h_t = exp(dt_t A) h_{t-1} + B_t fed_t and its gradients, a segment of chunks at once.

Chunks go token by token, side by side; then states are passed from chunk to chunk, and each token gets its
part of them. Decays are only ever multiplied: nothing is divided by one, and no two sums of them are
subtracted. States are (..., G, N, W) for G groups of W channels, so that all work runs along channels.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG2_E = math.log2(math.e)


class Inputs(NamedTuple):
    """What the recurrence reads of a segment of K chunks of Q tokens.

    Attributes:
        dt: time steps (B, K, Q, G, W).
        fed: time steps times inputs (B, K, Q, G, W).
        B: input maps (B, K, Q, G, N).
        restarts: whether the state is dropped before a token (B, K, Q).
    """

    dt: Tensor
    fed: Tensor
    B: Tensor
    restarts: Tensor | None


def scan(inputs: Inputs, A: Tensor, state: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states (B, K, Q, G, N, W) of all tokens, in the first two rows of `room`.

    Args:
        inputs: of the segment.
        A: decay rates (G, N, W).
        state: before the segment (B, G, N, W).
        room: for so many elements each (2 or more, largest B K Q G N W). Fresh memory in every segment would
            cost a CPU more than what it computes there.
    """
    dt, fed, B, restarts = inputs
    decays, states = (place(room[i], inputs) for i in range(2))
    torch.mul(dt.unsqueeze(-2), A * LOG2_E, out=decays).exp2_()
    torch.mul(fed.unsqueeze(-2), B.unsqueeze(-1), out=states)
    states[:, 0, 0].addcmul_(decays[:, 0, 0], _without(restarts, state, 0, 0))
    # taken apart at once, because indexing costs as much as a small product
    each, decay = states.unbind(2), decays.unbind(2)
    for q in range(1, len(each)):
        each[q].addcmul_(decay[q], _without(restarts, each[q - 1], slice(None), q))
    if (chunks := dt.shape[1]) > 1:
        # what is left of a chunk's first state
        left = _powers(dt[:, 1:].cumsum(2), A)  # (B, K - 1, Q, G, N, W)
        lost = None if restarts is None else restarts[:, 1:].cumsum(2) > 0
        # NaN times 0 would be NaN, whichever of the two it is
        left = _without(lost, left, slice(None), slice(None))
        for k in range(1, chunks):
            before = _without(lost, states[:, k - 1, -1], k - 1, -1)
            states[:, k, -1].addcmul_(left[:, k - 1, -1], before)
        before, most = states[:, :-1, -1:], slice(-1)
        states[:, 1:, :-1].addcmul_(left[:, :, :-1], _without(lost, before, slice(None), most))
    return decays, states


def place(room: Tensor, inputs: Inputs) -> Tensor:
    """The first elements of a row of room as (B, K, Q, G, N, W)."""
    shape = (*inputs.B.shape, inputs.dt.shape[-1])
    return room[: math.prod(shape)].view(shape)


def scan_backward(
    inputs: Inputs, A: Tensor, before: Tensor, decays: Tensor, states: Tensor, dstates: Tensor, dlast: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of dt, fed, B, A and the state before the segment; `decays` and `dstates` are used up.

    Args:
        inputs: as for `scan`.
        A: as for `scan`.
        before: the state before the segment.
        decays: from `scan`.
        states: from `scan`.
        dstates: gradients of the states by what reads them (B, K, Q, G, N, W).
        dlast: gradient of the last state by what comes behind the segment (B, G, N, W).
    """
    dt, fed, B, restarts = inputs
    dbefore = _to_start(inputs, A, decays, dstates, dlast)
    dfed = (B.unsqueeze(-2) @ dstates).squeeze(-2)
    dB = (fed.unsqueeze(-2) @ dstates.mT).squeeze(-2)
    # of dt A, in the place of the decays
    dgap = decays.mul_(dstates)
    dgap[:, :, 1:].mul_(states[:, :, :-1])
    dgap[:, 1:, 0].mul_(states[:, :-1, -1])
    dgap[:, 0, 0].mul_(before)
    if restarts is not None:
        dgap.masked_fill_(restarts[..., None, None, None], 0.0)
    ddt = torch.mul(dgap, A, out=dstates).sum(-2)
    dA = dgap.mul_(dt.unsqueeze(-2)).sum((0, 1, 2))
    return ddt, dfed, dB, dA, dbefore


def _to_start(inputs: Inputs, A: Tensor, decays: Tensor, dstates: Tensor, dlast: Tensor) -> Tensor:
    """Adds to gradients of states, in place, what later states tell; returns that of the state before all."""
    dt, _, _, restarts = inputs
    dstates[:, -1, -1] += dlast
    each, decay = dstates.unbind(2), decays.unbind(2)
    for q in reversed(range(1, len(each))):
        each[q - 1].addcmul_(decay[q], _without(restarts, each[q], slice(None), q))
    first = _without(restarts, decay[0] * each[0], slice(None), 0)  # (B, K, G, N, W)
    if dt.shape[1] > 1:
        # from the state behind a chunk to those before each of its tokens
        through = _powers(_sums_to_end(dt[:, :-1]), A)  # (B, K - 1, Q, G, N, W)
        lost = None if restarts is None else _sums_to_end(restarts[:, :-1]) > 0
        for k in reversed(range(dt.shape[1] - 1)):
            first[:, k].addcmul_(through[:, k, 0], _without(lost, first[:, k + 1], k, 0))
        behind, later = first[:, 1:].unsqueeze(2), slice(1, None)
        dstates[:, :-1, :-1].addcmul_(through[:, :, 1:], _without(lost, behind, slice(None), later))
        dstates[:, :-1, -1] += behind.squeeze(2)
    return first[:, 0]


def _powers(dt: Tensor, A: Tensor) -> Tensor:
    """exp(dt A) (..., G, N, W) of time steps (..., G, W)."""
    # exp2 takes a quarter of exp's time on a CPU
    return (dt.unsqueeze(-2) * (A * LOG2_E)).exp2_()


def _sums_to_end(tokens: Tensor) -> Tensor:
    """Sums from each token of a chunk to its last, (B, K, Q, ...)."""
    return tokens.flip(2).cumsum(2).flip(2)


def _without(restarts: Tensor | None, states: Tensor, chunks: int | slice, tokens: int | slice) -> Tensor:
    """States (..., G, N, W) with zeros where these tokens restart: whatever is there is gone, NaN, too."""
    if restarts is None:
        return states
    return states.masked_fill(restarts[:, chunks, tokens][..., None, None, None], 0.0)
