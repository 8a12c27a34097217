"""Mamba-1's selective scan (arXiv 2312.00752, algorithm 2), token by token."""

import torch
from torch import Tensor

from cobra.kernels.reference.masks import blank, join_sequences
from cobra.kernels.reference.precision import accumulator, without_autocast
from cobra.kernels.reference.time_step import skip_and_gate, time_step
from cobra.kernels.scan_order import Grid, ScanOrder, unvisit, visit


@without_autocast
def selective_scan(
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
    scan_order: ScanOrder,
    grid: Grid | None,
) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the final state (B, D, N); arguments as in `cobra.kernels.ops.selective_scan`."""
    dtype, groups = accumulator(u), B.shape[2]
    u, delta, B, C = (visit(m, scan_order, grid) for m in (u, delta, B, C))
    z, seq_idx, mask = (visit(m, scan_order, grid) for m in (z, seq_idx, mask))
    if mask is not None:
        u, delta, B, C = (blank(m, mask) for m in (u, delta, B, C))
        z, seq_idx = blank(z, mask), join_sequences(seq_idx, mask)
    # 1. discretise: A exactly, B by Euler's step, as the published kernels do
    dt = time_step(delta, delta_bias, delta_softplus, dtype, mask)  # (B, L, D)
    fed = (dt * u.to(dtype)).unflatten(2, (groups, -1)).unsqueeze(-1)  # (B, L, G, D / G, 1)
    dt = dt.unflatten(2, (groups, -1)).unsqueeze(-1)
    A = A.to(dtype).unflatten(0, (groups, -1))  # (G, D / G, N)
    B, C = B.to(dtype).unsqueeze(3), C.to(dtype).unsqueeze(-1)  # (B, L, G, 1, N) and (B, L, G, N, 1)
    state = u.new_zeros(u.shape[0], u.shape[2], A.shape[-1], dtype=dtype)
    if initial_state is not None:
        state = state + initial_state.to(dtype)
    state = state.unflatten(1, (groups, -1))  # (B, G, D / G, N)

    # 2. h = exp(dt A) h + dt B u,  y = C h; unbind, because its gradient is a single stack
    outputs = []
    for t, (dt_t, fed_t, B_t, C_t) in enumerate(zip(*(m.unbind(1) for m in (dt, fed, B, C)), strict=True)):
        if seq_idx is not None and t > 0:
            # not multiplied by 0, which infinity and NaN survive
            state = state.masked_fill((seq_idx[:, t] != seq_idx[:, t - 1])[:, None, None, None], 0.0)
        state = torch.addcmul(torch.exp(dt_t * A) * state, fed_t, B_t)
        outputs.append((state @ C_t).flatten(1))  # (B, D)
    y = torch.stack(outputs, dim=1) if outputs else torch.empty_like(u, dtype=dtype)
    # 3. y += D u,  y *= silu(z),  y = 0 under the mask
    return unvisit(skip_and_gate(y, u, D, z, mask), scan_order, grid), state.flatten(1, 2)
