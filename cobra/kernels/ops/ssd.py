"""Mamba-2's scan over a sequence, channels last."""

import torch
from torch import Tensor

from cobra.kernels.checks import BOOLEANS, INTEGERS, check, check_divides, check_first, refuse_gradient
from cobra.kernels.dispatch import op
from cobra.kernels.scan_order import Grid, ScanOrder, check_scan_order


@op
def ssd_chunk_scan(
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
    initial_rows: Tensor | None = None,
    seq_idx: Tensor | None = None,
    mask: Tensor | None = None,
    scan_order: ScanOrder = "forward",
    grid: Grid | None = None,
    chunk_size: int = 64,
    return_final_state: bool = True,
) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) in x's dtype and the final state (B, H, P, N) in fp32 (fp64 for fp64 inputs).

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T,   y_t = S_t C_t + D x_t

    Source: Mamba-2 (arXiv 2405.21060), section 6 and listing 1. Differentiable; computes in fp32 or fp64.
    Inputs may be strided views and have dtypes of their own.

    Args:
        x: inputs (B, L, H, P), any L from 0.
        dt: time steps (B, L, H), before `dt_bias` and softplus.
        A: decay rates (H,), negative.
        B: input maps (B, L, G, N); head h uses group h // (H / G).
        C: output maps, as B.
        D: skip weights (H,).
        dt_bias: added to dt before the softplus (H,).
        dt_softplus: whether dt goes through softplus.
        initial_state: state before the first visit (B, H, P, N).
        initial_rows: the row of it (S, H, P, N) that each sequence goes on from instead, (B,) int64: many may
            go on from one. Without gradients only.
        seq_idx: the sequence of each token (B, L), int32 or int64; the state restarts where it changes from
            visit to visit. Equal values must be neighbours in this order. `initial_state` belongs to the
            sequence of the first visit, the final state to that of the last.
        mask: False at tokens (B, L) that leave no trace, wherever they are and whatever they hold: the
            others' y, the final state and all gradients are those of the row without them. y is finite there
            and otherwise unspecified, its gradient is not read.
        scan_order: the order in which tokens are visited, which is the order of t above: "forward",
            "reversed", or "columns" and "columns_reversed", down the columns of the grid one after the other.
            Inputs and y keep the order of the tokens: the four scan orders of an image (VMamba, arXiv
            2401.10166) are merged by adding their y, and a bidirectional scan by adding the first two.
        grid: (height, width) of the tokens, row after row; needed to go down columns.
        chunk_size: a hint; results differ by rounding only.
        return_final_state: without it the second result is empty, (0,), and a short sequence costs less.

    Raises:
        ValueError: if shapes, dtypes, devices or scan_order do not fit, naming the argument.
    """
    check_first("x", x, "B, L, H, P")
    check_first("B", B, "B, L, G, N")
    batch, length, heads, head_dim = x.shape
    groups, d_state = B.shape[2:]
    check("dt", dt, "B, L, H", (batch, length, heads), x)
    check("A", A, "H", (heads,), x)
    check("B", B, "B, L, G, N", (batch, length, groups, d_state), x)
    check("C", C, "B, L, G, N", (batch, length, groups, d_state), x)
    check_divides("the number of groups in B", groups, "the number of heads in x", heads)
    check("D", D, "H", (heads,), x)
    check("dt_bias", dt_bias, "H", (heads,), x)
    rows = batch
    if initial_rows is not None:
        if initial_state is None:
            raise ValueError("initial_rows are of no initial_state: give one, or leave them out")
        check("initial_rows", initial_rows, "B", (batch,), x, (torch.int64,))
        refuse_gradient(x, dt, A, B, C, D, dt_bias, initial_state)
        rows = initial_state.shape[0]
    check("initial_state", initial_state, "B, H, P, N", (rows, heads, head_dim, d_state), x)
    check("seq_idx", seq_idx, "B, L", (batch, length), x, INTEGERS)
    check("mask", mask, "B, L", (batch, length), x, BOOLEANS)
    check_scan_order(scan_order, grid, length)
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size} but must be at least 1: 64 is a good start")
