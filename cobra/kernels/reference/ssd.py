"""Mamba-2's state-space duality (arXiv 2405.21060): the chunked form, and the recurrence that is its spec."""

import torch
from torch import Tensor

from cobra.kernels.reference.masks import blank, join_sequences
from cobra.kernels.reference.precision import accumulator, without_autocast
from cobra.kernels.reference.time_step import skip_and_gate, time_step
from cobra.kernels.scan_order import Grid, ScanOrder, unvisit, visit

# exp(-80) is 2e-35, nothing; longer decays would only cost the running sums their digits
LONGEST_DECAY = -80.0


@without_autocast
def ssd_chunk_scan(
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
    scan_order: ScanOrder,
    grid: Grid | None,
    chunk_size: int,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) and the final state (B, H, P, N); arguments as in `cobra.kernels.ops.ssd_chunk_scan`.

    Section 6 of the paper: attention within a chunk, a state from chunk to chunk. What a token must not hear
    of is multiplied by 0, so NaN and infinity reach all tokens of their row from their chunk's first one on.
    """
    dtype, groups = accumulator(x), B.shape[2]
    if x.shape[1] == 0:
        final = _first_state(x, B, initial_state)
        return torch.empty_like(x), final if return_final_state else final.new_empty(0)
    x, dt, B, C = (visit(m, scan_order, grid) for m in (x, dt, B, C))
    seq_idx, mask = (visit(m, scan_order, grid) for m in (seq_idx, mask))
    if mask is not None:
        x, dt, B, C = (blank(m, mask) for m in (x, dt, B, C))
        seq_idx = join_sequences(seq_idx, mask)
    dt = time_step(dt, dt_bias, dt_softplus, dtype, mask)  # (B, L, H)
    decay = (dt * A.to(dtype)).clamp(min=LONGEST_DECAY).transpose(1, 2)  # (B, H, L)
    fed = _by_group(x.to(dtype) * dt.unsqueeze(-1), groups)  # (B, G, L, R * P), R heads to a group
    parts = (fed, decay, _by_group(B.to(dtype), groups), _by_group(C.to(dtype), groups))

    # the first chunk reads no state unless one is given
    state = (
        None if initial_state is None else initial_state.to(dtype).unflatten(1, (groups, -1)).flatten(2, 3)
    )
    # the given state belongs to the sequence of the first token
    before = None if seq_idx is None else seq_idx[:, :1]
    outputs = []
    # split, not slices: its gradient is a single concatenation
    chunks = zip(*(part.split(chunk_size, dim=2) for part in parts), strict=True)
    for i, (x_c, decay_c, B_c, C_c) in enumerate(chunks):
        seq = None if seq_idx is None else seq_idx[:, i * chunk_size : (i + 1) * chunk_size]
        y, state = _scan_chunk(x_c, _running_sums(decay_c, chunk_size), B_c, C_c, state, seq, before)
        before = None if seq is None else seq[:, -1:]
        outputs.append(y)
    y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)  # (B, L, H, P)
    y = skip_and_gate(y, x, None if D is None else D.unsqueeze(-1), mask=mask)
    assert state is not None
    final = state.reshape(x.shape[0], *x.shape[2:], B.shape[3])  # (B, H, P, N)
    return unvisit(y, scan_order, grid), final if return_final_state else final.new_empty(0)


def _first_state(x: Tensor, B: Tensor, initial_state: Tensor | None) -> Tensor:
    """A fresh (B, H, P, N): the given state or zeros."""
    state = x.new_zeros(x.shape[0], *x.shape[2:], B.shape[3], dtype=accumulator(x))
    return state if initial_state is None else state + initial_state.to(state.dtype)


def _by_group(m: Tensor, groups: int) -> Tensor:
    """(B, L, ...) to (B, G, L, width of a group), so that a product per group is one batched product."""
    return m.flatten(2).unflatten(2, (groups, -1)).transpose(1, 2).contiguous()


def _scan_chunk(
    x: Tensor,
    sums: tuple[Tensor, Tensor],
    B: Tensor,
    C: Tensor,
    state: Tensor | None,
    seq: Tensor | None,
    before: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """y (B, Q, H, P) and the state (B, G, R * P, N) after a chunk of Q tokens.

    x (B, G, Q, R * P) is already times dt, sums are those of dt A (B, H, Q), B and C (B, G, Q, N), state as
    returned, seq (B, Q) the tokens' sequences and before (B, 1) that of the token before the chunk.
    """
    groups, size = B.shape[1:3]
    coarse, fine = sums  # (B, H, Q)
    from_start = (coarse + fine).exp()
    to_end = (coarse[..., -1:] - coarse + (fine[..., -1:] - fine)).exp()
    gap = (fine.unsqueeze(-1) - fine.unsqueeze(-2)).add_(coarse.unsqueeze(-1) - coarse.unsqueeze(-2))
    hidden = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
    # masked before exp: above the diagonal the gap is positive and would overflow
    within = gap.masked_fill_(hidden, 0.0).exp_()  # (B, H, Q, Q)
    if seq is not None and before is not None:
        from_start = from_start * (seq == before).unsqueeze(1)
        to_end = to_end * (seq == seq[:, -1:]).unsqueeze(1)
        hidden = (hidden | torch.ne(seq.unsqueeze(2), seq.unsqueeze(1))).unsqueeze(1)  # (B, 1, Q, Q)

    # 1. what each token hears of its own chunk; C B^T once for all heads of a group
    scores = (C @ B.mT).masked_fill(hidden, 0.0).unsqueeze(2)  # (B, G, 1, Q, Q)
    heads = x.unflatten(3, (coarse.shape[1] // groups, -1))  # (B, G, Q, R, P)
    y = (scores * within.unflatten(1, (groups, -1))) @ heads.transpose(2, 3)  # (B, G, R, Q, P)
    y = y.transpose(2, 3)  # (B, G, Q, R, P)

    # 2. what the chunk leaves behind
    after = (heads * _per_token(to_end, groups)).flatten(3).mT @ B  # (B, G, R * P, N)

    # 3. what each token hears of the chunks before, and what of them is left
    if state is not None:
        start = _per_token(from_start, groups)  # (B, G, Q, R, 1)
        y = torch.addcmul(y, (C @ state.mT).unflatten(3, heads.shape[3:]), start)
        left = start[:, :, -1].unsqueeze(-1)  # (B, G, R, 1, 1)
        after = after + (state.unflatten(2, heads.shape[3:]) * left).flatten(2, 3)
    return y.transpose(1, 2).flatten(2, 3), after


def _running_sums(decay: Tensor, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Two parts (B, H, Q) of the running sum of `decay`, whose differences lose nothing to cancellation.

    The first sums multiples of a power of 2, such that fp32, which has 24 bits, holds a chunk of the longest
    decays exactly; the second is small.
    """
    parts = 2.0 ** (24 - int(-LONGEST_DECAY * chunk_size).bit_length())
    coarse = (decay.detach() * parts).round() / parts
    return coarse.cumsum(-1), (decay - coarse).cumsum(-1)


def _per_token(factor: Tensor, groups: int) -> Tensor:
    """A factor (B, H, Q) as (B, G, Q, R, 1)."""
    return factor.unflatten(1, (groups, -1)).transpose(2, 3).unsqueeze(-1)


@without_autocast
def ssd_recurrence(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    mask: Tensor | None = None,
    scan_order: ScanOrder = "forward",
    grid: Grid | None = None,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """What `ssd_chunk_scan` must return, token by token: S = exp(dt A) S + dt x B^T, y = S C + D x.

    The spec that every backend is tested against (section 2 of the paper); `chunk_size` changes nothing here.
    """
    dtype = accumulator(x)
    x, dt, B, C = (visit(m, scan_order, grid) for m in (x, dt, B, C))
    seq_idx, mask = (visit(m, scan_order, grid) for m in (seq_idx, mask))
    if mask is not None:
        x, dt, B, C = (blank(m, mask) for m in (x, dt, B, C))
        seq_idx = join_sequences(seq_idx, mask)
    dt = time_step(dt, dt_bias, dt_softplus, dtype, mask)
    decay = torch.exp(dt * A.to(dtype))[..., None, None]  # (B, L, H, 1, 1)
    fed = (x.to(dtype) * dt.unsqueeze(-1)).unsqueeze(-1)  # (B, L, H, P, 1)
    per_group = x.shape[2] // B.shape[2]
    state = _first_state(x, B, initial_state)
    B, C = (m.to(dtype).repeat_interleave(per_group, dim=2).unsqueeze(-2) for m in (B, C))  # (B, L, H, 1, N)
    outputs = []
    for t in range(x.shape[1]):
        if seq_idx is not None and t > 0:
            state = state.masked_fill((seq_idx[:, t] != seq_idx[:, t - 1])[:, None, None, None], 0.0)
        state = decay[:, t] * state + fed[:, t] * B[:, t]
        outputs.append((state * C[:, t]).sum(-1))  # (B, H, P)
    y = torch.stack(outputs, dim=1) if outputs else torch.empty_like(x, dtype=dtype)
    y = skip_and_gate(y, x, None if D is None else D.unsqueeze(-1), mask=mask)
    return unvisit(y, scan_order, grid), state
