"""A segment of Mamba-2's scan as matrix products, and their gradients (arXiv 2405.21060, section 6).

Attention within a chunk, a state from chunk to chunk; all else is done for all chunks at once. Letters as in
the README, and K chunks of Q tokens, R heads to a group: H = G R.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cobra.kernels.reference.time_step import LONGEST_DECAY

LOG2_E = math.log2(math.e)


class Inputs(NamedTuple):
    """What the products read of a segment.

    Attributes:
        fed: time steps times inputs (B, K, G, Q, R P).
        decay: time steps times rates, from LONGEST_DECAY to 0 (B, K, H, Q).
        B: input maps (B, K, G, Q, N).
        C: output maps (B, K, G, Q, N).
        seq: sequences of the tokens (B, K, Q), if there are several.
        before: that of the token before each chunk (B, K, 1).
    """

    fed: Tensor
    decay: Tensor
    B: Tensor
    C: Tensor
    seq: Tensor | None
    before: Tensor | None


class Decays(NamedTuple):
    """What is left of a token's trace: 0 in another sequence.

    Attributes:
        start: of what stood before the chunk, at each token (B, K, G, Q, R, 1).
        end: of each token, behind the chunk (B, K, G, Q, R, 1).
        within: of each token at each later one (B, K, G, R, Q, Q); elsewhere it means nothing.
        hidden: which tokens of their chunk are later or in another sequence (B, K, 1, Q, Q), or (Q, Q).
    """

    start: Tensor
    end: Tensor
    within: Tensor
    hidden: Tensor

    @property
    def whole(self) -> Tensor:
        """Over each chunk (B, K, G, R, 1, 1)."""
        return self.start[:, :, :, -1].unsqueeze(-1)


def decays(inputs: Inputs) -> Decays:
    """The decays of a segment."""
    groups, size = inputs.B.shape[2:4]
    coarse, fine = _running_sums(inputs.decay * LOG2_E, size)  # (B, K, H, Q)
    # exp2 takes a quarter of exp's time on a CPU
    start = (coarse + fine).exp2()
    end = (coarse[..., -1:] - coarse + (fine[..., -1:] - fine)).exp2()
    gap = (fine.unsqueeze(-1) - fine.unsqueeze(-2)).add_(coarse.unsqueeze(-1) - coarse.unsqueeze(-2))
    hidden = torch.ones(size, size, dtype=torch.bool, device=gap.device).triu(1)
    if inputs.seq is not None:
        seq = inputs.seq
        assert inputs.before is not None
        start = start * torch.eq(seq, inputs.before).unsqueeze(2)
        end = end * torch.eq(seq, seq[..., -1:]).unsqueeze(2)
        hidden = (hidden | torch.ne(seq.unsqueeze(3), seq.unsqueeze(2))).unsqueeze(2)  # (B, K, 1, Q, Q)
    # above the diagonal the gap is positive and would overflow
    within = gap.tril_().exp2_().unflatten(2, (groups, -1))
    return Decays(_per_token(start, groups), _per_token(end, groups), within, hidden)


def pass_states(
    inputs: Inputs, left: Decays, state: Tensor | None, wanted: bool
) -> tuple[Tensor | None, Tensor | None]:
    """States (B, K, G, R P, N) before each chunk and (B, G, R P, N) behind the last; None for zeros.

    Args:
        inputs: of the segment.
        left: its decays.
        state: before the segment.
        wanted: whether the last one is, which is else None.
    """
    chunks = inputs.B.shape[1]
    ends = slice(chunks if wanted else chunks - 1)
    told = _scaled(inputs.fed, left.end)[:, ends].mT @ inputs.B[:, ends]
    given, states = state, []
    for new, whole in zip(told.unbind(1), left.whole[:, ends].unbind(1), strict=True):
        state = new if state is None else _left(new, state, whole)
        states.append(state)
    last = state if wanted else None
    if chunks == 1:
        return None if given is None else given.unsqueeze(1), last
    first = torch.zeros_like(states[0]) if given is None else given
    return torch.stack([first, *states[: chunks - 1]], dim=1), last


def outputs(inputs: Inputs, left: Decays, starts: Tensor | None) -> Tensor:
    """What each token hears, (B, K, G, Q, R P), of its own chunk and of the state before it."""
    y = (_scores(inputs, left) * left.within) @ _heads(inputs.fed, left)  # (B, K, G, R, Q, P)
    if starts is None:
        return _joined(y)
    before = (inputs.C @ starts.mT).unflatten(4, (y.shape[3], -1))  # (B, K, G, Q, R, P)
    return before.mul_(left.start).add_(y.transpose(3, 4)).flatten(4)


def backward(
    inputs: Inputs, left: Decays, starts: Tensor | None, dy: Tensor, dlast: Tensor | None, wanted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of fed, decay, B, C and of the state before the segment.

    Args:
        inputs: of the segment.
        left: its decays.
        starts: from `pass_states`.
        dy: gradient of what each token hears (B, K, G, Q, R P).
        dlast: of the state behind the segment (B, G, R P, N); None for zeros.
        wanted: whether that of the state before the segment is, which is else None.
    """
    dfed, ddecay, dB, dC = _backward_within(inputs, left, dy)
    told = _scaled(dy, left.start)
    dends, dstart = _pass_back(inputs, left, told, dlast, wanted)
    if starts is not None:
        heard = inputs.C @ starts.mT  # (B, K, G, Q, R P)
        dC += told @ starts
        # what is left at a token has gone through all decays up to its own
        ddecay += _sums_to_end(_head_sums(told * heard, left))
    if dends is not None:
        back = inputs.B @ dends.mT  # (B, K, G, Q, R P)
        scaled = _scaled(inputs.fed, left.end)
        dB += scaled @ dends
        dfed += _scaled(back, left.end)
        # what is left behind the chunk, through all decays behind its token
        ddecay[..., 1:] += _head_sums(scaled * back, left).cumsum(-1)[..., :-1]
        if starts is not None:
            both = (dends * starts).unflatten(3, (left.whole.shape[3], -1)).sum((-1, -2))
            ddecay += (both * left.whole[..., 0, 0]).unsqueeze(-1)
    return dfed, ddecay.flatten(2, 3), dB, dC, dstart


def _backward_within(inputs: Inputs, left: Decays, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of fed, decay (B, K, G, R, Q), B and C by what tokens of one chunk hear of each other."""
    fed, dheads = _heads(inputs.fed, left), _heads(dy, left)
    weights = _scores(inputs, left) * left.within
    dweights = dheads @ fed.mT  # (B, K, G, R, Q, Q)
    dscores = (dweights * left.within).sum(3).masked_fill_(left.hidden, 0.0)
    # a decay is between the tokens before it and those from its own on: no differences of sums, which would
    # lose digits
    later = weights.new_ones(weights.shape[-2:]).triu()
    ddecay = (later @ dweights.mul_(weights)).tril_(-1).sum(-1)
    return _joined(weights.mT @ dheads), ddecay, dscores.mT @ inputs.C, dscores @ inputs.B


def _scores(inputs: Inputs, left: Decays) -> Tensor:
    """C B^T (B, K, G, 1, Q, Q) of what tokens hear, once for all heads of a group."""
    return (inputs.C @ inputs.B.mT).masked_fill_(left.hidden, 0.0).unsqueeze(3)


def _sums_to_end(tokens: Tensor) -> Tensor:
    """Sums from each token to the last, over the last dimension."""
    return tokens.flip(-1).cumsum(-1).flip(-1)


def _pass_back(
    inputs: Inputs, left: Decays, told: Tensor, dlast: Tensor | None, wanted: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the states behind each chunk (B, K, G, R P, N) and before the first; None for zeros."""
    chunks = inputs.B.shape[1]
    starts = slice(0 if wanted else 1, None)
    heard = told[:, starts].mT @ inputs.C[:, starts]
    given, dstates, dstate = dlast, [], dlast
    for new, whole in zip(heard.unbind(1)[::-1], left.whole[:, starts].unbind(1)[::-1], strict=True):
        dstate = new if dstate is None else _left(new, dstate, whole)
        dstates.append(dstate)
    dfirst = dstate if wanted else None
    if chunks == 1:
        return None if given is None else given.unsqueeze(1), dfirst
    last = torch.zeros_like(dstates[0]) if given is None else given
    return torch.stack([last, *dstates[: chunks - 1]][::-1], dim=1), dfirst


def _running_sums(decay: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Two parts (B, K, H, Q) of the running sum of `decay`, whose differences lose nothing to cancellation.

    The first sums multiples of a power of 2, such that fp32, which has 24 bits, holds a chunk of the longest
    decays exactly; the second is small.
    """
    parts = 2.0 ** (24 - int(-LONGEST_DECAY * LOG2_E * size).bit_length())
    coarse = (decay * parts).round() / parts
    return coarse.cumsum(-1), (decay - coarse).cumsum(-1)


def by_group(tokens: Tensor, groups: int) -> Tensor:
    """(B, K, Q, ...) as (B, K, G, Q, width of a group), so that a group is one matrix."""
    return tokens.flatten(3).unflatten(3, (groups, -1)).transpose(2, 3).contiguous()


def _per_token(factor: Tensor, groups: int) -> Tensor:
    """A factor (B, K, H, Q) as (B, K, G, Q, R, 1)."""
    return factor.unflatten(2, (groups, -1)).transpose(3, 4).unsqueeze(-1)


def _heads(tokens: Tensor, left: Decays) -> Tensor:
    """(B, K, G, Q, R P) as (B, K, G, R, Q, P)."""
    return tokens.unflatten(4, (left.within.shape[3], -1)).transpose(3, 4)


def _joined(heads: Tensor) -> Tensor:
    """(B, K, G, R, Q, P) as (B, K, G, Q, R P)."""
    return heads.transpose(3, 4).flatten(4)


def _scaled(tokens: Tensor, factor: Tensor) -> Tensor:
    """Tokens (B, K, G, Q, R P), of each head times its factor (B, K, G, Q, R, 1)."""
    return (tokens.unflatten(4, (factor.shape[4], -1)) * factor).flatten(4)


def _head_sums(tokens: Tensor, left: Decays) -> Tensor:
    """Sums over P of (B, K, G, Q, R P), as (B, K, G, R, Q)."""
    return tokens.unflatten(4, (left.within.shape[3], -1)).sum(-1).transpose(3, 4)


def _left(new: Tensor, state: Tensor, factor: Tensor) -> Tensor:
    """The sum of one state (B, G, R P, N) and what is left of another, by a factor (B, G, R, 1, 1)."""
    new, state = (m.unflatten(2, (factor.shape[2], -1)) for m in (new, state))
    return torch.addcmul(new, state, factor).flatten(2, 3)
