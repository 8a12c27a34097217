"""Mamba-1's scan over a sequence, channels last."""

from torch import Tensor

from cobra.kernels.checks import BOOLEANS, INTEGERS, check, check_divides, check_first
from cobra.kernels.dispatch import op
from cobra.kernels.scan_order import Grid, ScanOrder, check_scan_order


@op
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    mask: Tensor | None = None,
    scan_order: ScanOrder = "forward",
    grid: Grid | None = None,
) -> tuple[Tensor, Tensor]:
    """y (B, L, D) in u's dtype and the final state (B, D, N) in fp32 (fp64 for fp64 inputs).

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,   y_t = C_t h_t + D u_t,   y_t *= silu(z_t)

    Source: Mamba (arXiv 2312.00752), algorithm 2, with B discretised by Euler's step as in
    state-spaces/mamba. Differentiable; computes in fp32 or fp64. Inputs may be strided views and have dtypes
    of their own.

    Args:
        u: inputs (B, L, D), any L from 0.
        delta: time steps (B, L, D), before `delta_bias` and softplus.
        A: decay rates (D, N), negative.
        B: input maps (B, L, G, N); channel d uses group d // (D / G).
        C: output maps, as B.
        D: skip weights (D,).
        z: gate (B, L, D).
        delta_bias: added to delta before the softplus (D,).
        delta_softplus: whether delta goes through softplus.
        initial_state: state before the first visit (B, D, N).
        seq_idx: as in `ssd_chunk_scan`.
        mask: as in `ssd_chunk_scan`.
        scan_order: as in `ssd_chunk_scan`.
        grid: as in `ssd_chunk_scan`.

    Raises:
        ValueError: if shapes, dtypes, devices or scan_order do not fit, naming the argument.
    """
    check_first("u", u, "B, L, D")
    check_first("B", B, "B, L, G, N")
    batch, length, channels = u.shape
    groups, d_state = B.shape[2:]
    check("delta", delta, "B, L, D", (batch, length, channels), u)
    check("A", A, "D, N", (channels, d_state), u)
    check("B", B, "B, L, G, N", (batch, length, groups, d_state), u)
    check("C", C, "B, L, G, N", (batch, length, groups, d_state), u)
    check_divides("the number of groups in B", groups, "the number of channels in u", channels)
    check("D", D, "D", (channels,), u)
    check("z", z, "B, L, D", (batch, length, channels), u)
    check("delta_bias", delta_bias, "D", (channels,), u)
    check("initial_state", initial_state, "B, D, N", (batch, channels, d_state), u)
    check("seq_idx", seq_idx, "B, L", (batch, length), u, INTEGERS)
    check("mask", mask, "B, L", (batch, length), u, BOOLEANS)
    check_scan_order(scan_order, grid, length)
