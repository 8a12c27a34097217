"""Mamba-2's scan (arXiv 2405.21060, section 2), token by token."""

import torch
from torch import Tensor

from cobra.kernels.initial_rows import of_rows
from cobra.kernels.reference.masks import blank, join_sequences
from cobra.kernels.reference.precision import accumulator, without_autocast
from cobra.kernels.reference.time_step import skip_and_gate, time_step
from cobra.kernels.scan_order import Grid, ScanOrder, unvisit, visit


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
    initial_rows: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: ScanOrder,
    grid: Grid | None,
    chunk_size: int,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) and the final state (B, H, P, N); arguments as in `cobra.kernels.ops.ssd_chunk_scan`.

    S = exp(dt A) S + dt x B^T, y = S C + D x; `chunk_size` changes nothing here.
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
    state = x.new_zeros(x.shape[0], *x.shape[2:], B.shape[3], dtype=dtype)
    if (given := of_rows(initial_state, initial_rows)) is not None:
        state = state + given.to(dtype)
    B, C = (m.to(dtype).repeat_interleave(per_group, dim=2).unsqueeze(-2) for m in (B, C))  # (B, L, H, 1, N)
    outputs = []
    for t in range(x.shape[1]):
        if seq_idx is not None and t > 0:
            state = state.masked_fill((seq_idx[:, t] != seq_idx[:, t - 1])[:, None, None, None], 0.0)
        state = decay[:, t] * state + fed[:, t] * B[:, t]
        outputs.append((state * C[:, t]).sum(-1))  # (B, H, P)
    y = torch.stack(outputs, dim=1) if outputs else torch.empty_like(x, dtype=dtype)
    y = skip_and_gate(y, x, None if D is None else D.unsqueeze(-1), mask=mask)
    return unvisit(y, scan_order, grid), state if return_final_state else state.new_empty(0)
