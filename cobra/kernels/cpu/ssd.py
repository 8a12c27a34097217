"""Mamba-2's scan on the native kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cobra.kernels.call import needs_gradient
from cobra.kernels.cpu import OPERATORS
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.tensors import full_room, if_present, native_room, natives
from cobra.kernels.huge_pages import unwritten
from cobra.kernels.scan_order import for_kernels

_ssd = Kernel("ssd_chunk_scan", arrays=14, sizes=9)
_ssd_backward = Kernel("ssd_chunk_scan_backward", arrays=20, sizes=9)

# As in csrc/scan_abi.h: tokens between the states that are kept for the backward, the longest sequence that
# the SSD takes as one chunk, and what the states' widths are rounded up to.
SSD_CHUNK, SSD_WHOLE, STATE_PAD = 64, 128, 16


def ssd_chunk_scan(*inputs: Any) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) and the final state (B, H, P, N); states are kept where a gradient will be asked for."""
    y, final_state, _ = _ssd_chunk_scan(*inputs, needs_gradient(*inputs))  # type: ignore[call-arg]
    return y, final_state


def _fake(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, head_dim = x.shape
    d_state, (return_final_state, keep) = B.shape[3], rest[-2:]
    final = (batch, heads, head_dim, d_state) if return_final_state else (0,)
    chunks = -(-length // SSD_CHUNK) if length > SSD_WHOLE else min(length, 1)
    size = [-(-width // STATE_PAD) * STATE_PAD for width in (d_state, head_dim)]
    kept = (batch, heads, chunks, *size) if keep else (0,)
    results = x.new_empty(final, dtype=torch.float32), x.new_empty(kept, dtype=torch.float32)
    return x.new_empty(x.shape), *results


@OPERATORS.register(_fake)
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
    """Also the states between chunks if they are to be kept; the kernel has its own chunk size."""
    y, final, states = map(unwritten, _fake(x, dt, A, B, return_final_state, keep))
    if initial_rows is not None:
        _check_rows(initial_rows, initial_state)
    inputs = (x, *natives(dt, A, B, C, D, dt_bias, initial_state), initial_rows, seq_idx, mask)
    results = (y, final if return_final_state else None, states.view(-1) if keep else None)
    _ssd((*inputs, *results), (*x.shape, *B.shape[2:], dt_softplus, *for_kernels(scan_order, grid)))
    return y, final, states


@OPERATORS.gradient(
    _ssd_chunk_scan,
    "y final_state states",
    of=("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state"),
)
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
) -> list[Tensor]:
    """Gradients of x to the bias and of the first state."""
    dy = x.new_zeros(x.shape) if dy is None else dy
    inputs = (x, *natives(dt, A, B, C, D, dt_bias), seq_idx, mask, states.view(-1))
    dx, ddt, dB, dC = (native_room(m, x) for m in (x, dt, B, C))
    dA, dD, dbias, dinitial = (full_room(m, x) for m in (A, D, dt_bias, initial_state))
    optional = (if_present(dD, D), if_present(dbias, dt_bias), if_present(dinitial, initial_state))
    sizes = (*x.shape, *B.shape[2:], dt_softplus, *for_kernels(scan_order, grid))
    _ssd_backward((dy, dfinal_state, *inputs, dx, ddt, dB, dC, dA, *optional), sizes)
    return [dx, ddt, dA, dB, dC, dD, dbias, dinitial]


def _check_rows(rows: Tensor, state: Tensor | None) -> None:
    """Refuse rows that are not there, as indexing does elsewhere."""
    assert state is not None
    if rows.numel() and not 0 <= rows.amin() <= rows.amax() < len(state):
        raise IndexError(f"initial_rows {rows.tolist()} are not all rows of an initial_state of {len(state)}")
