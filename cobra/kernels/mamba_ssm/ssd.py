"""Mamba-2's scan by mamba_ssm's Triton kernels.

In fp32 these multiply in TF32, and they keep the states between chunks in the dtype of C.
"""

from torch import Tensor

from cobra.kernels.call import Function, Limit, limited
from cobra.kernels.initial_rows import of_rows
from cobra.kernels.mamba_ssm.limits import NO_MASK, not_empty, one_dtype
from cobra.kernels.mamba_ssm.sequences import numbered
from cobra.kernels.scan_order import Grid, ScanOrder, unvisit, visit

# what their block sizes are tuned for
_CHUNK_SIZE = 256


# it makes negative steps 0, and lets no state grow
_DECAYS = Limit(lambda call: call.option("dt_softplus"), "takes steps through softplus only")


@limited(NO_MASK, _DECAYS, not_empty("x"), one_dtype("x", "B", "C"))
def ssd_chunk_scan(
    mamba_chunk_scan_combined: Function,
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
    """y (B, L, H, P) and the final state (B, H, P, N); as `ops.ssd_chunk_scan`."""
    x, dt, B, C = (visit(m, scan_order, grid) for m in (x, dt, B, C))
    results = mamba_chunk_scan_combined(
        x,
        dt,
        A,
        B,
        C,
        _CHUNK_SIZE,
        D=D,
        dt_bias=dt_bias,
        initial_states=of_rows(initial_state, initial_rows),
        seq_idx=numbered(visit(seq_idx, scan_order, grid)),
        dt_softplus=dt_softplus,
        return_final_states=return_final_state,
    )
    y, state = results if return_final_state else (results, x.new_empty(0))
    return unvisit(y, scan_order, grid), state
