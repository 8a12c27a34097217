"""Mamba-2's scan on the native kernels; arguments as in `cobra.kernels.ops`."""

from typing import Any

import torch
from torch import Tensor

from cobra.kernels.call import needs_gradient
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import differentiate, refuse_second_derivative, register
from cobra.kernels.cpu.scans import SCAN_ORDER, TOKENS, setup, zeros_if_absent
from cobra.kernels.cpu.tensors import if_given, if_present, native, room_for_gradient
from cobra.kernels.huge_pages import unwritten
from cobra.kernels.scan_order import Grid, ScanOrder, for_kernels

_ssd = Kernel("ssd_chunk_scan", arrays=13, sizes=9)
_ssd_backward = Kernel("ssd_chunk_scan_backward", arrays=20, sizes=9)

_INPUTS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? dt_bias"

# As in csrc/scan_abi.h: tokens between the states that are kept for the backward, the longest sequence that
# the SSD takes as one chunk, and what the states' widths are rounded up to.
SSD_CHUNK, SSD_WHOLE, STATE_PAD = 64, 128, 16


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
    """y (B, L, H, P) and the final state (B, H, P, N); the kernel has its own chunk size."""
    inputs = [native(m) for m in (dt, A, B, C, D, dt_bias, initial_state)]
    keep = needs_gradient(x, *inputs)
    options = (dt_softplus, *for_kernels(scan_order, grid))
    y, final, _ = _ssd_chunk_scan(x, *inputs, seq_idx, mask, *options, return_final_state, keep)
    return y, final


def _ssd_run(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, softplus, from_end, grid_height, return_final, keep = arguments
    _, _, B, *_ = inputs
    y, final, states = map(unwritten, _ssd_fake(x, *arguments))
    arrays = (x, *inputs, y, final if return_final else None, states.view(-1) if keep else None)
    sizes = (*x.shape, *B.shape[2:], softplus, from_end, grid_height)
    _ssd(arrays, sizes)
    return y, final, states


def _ssd_fake(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, head_dim = x.shape
    d_state, (return_final, keep) = B.shape[3], rest[-2:]
    final = (batch, heads, head_dim, d_state) if return_final else (0,)
    chunks = -(-length // SSD_CHUNK) if length > SSD_WHOLE else min(length, 1)
    size = [-(-width // STATE_PAD) * STATE_PAD for width in (d_state, head_dim)]
    kept = (batch, heads, chunks, *size) if keep else (0,)
    results = x.new_empty(final, dtype=torch.float32), x.new_empty(kept, dtype=torch.float32)
    return x.new_empty(x.shape), *results


def _ssd_backward_run(
    dy: Tensor,
    dfinal: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    states: Tensor,
    softplus: bool,
    from_end: bool,
    grid_height: int,
    continued: bool,
) -> list[Tensor]:
    inputs = (x, dt, A, B, C, D, dt_bias)
    gradients = _ssd_backward_fake(dy, dfinal, *inputs, continued)
    dx, ddt, dA, dB, dC, dD, dbias, dinitial = gradients
    optional = (if_present(dD, D), if_present(dbias, dt_bias), dinitial if continued else None)
    results = (dx, ddt, dB, dC, dA, *optional)
    arrays = (dy, dfinal, *inputs, seq_idx, mask, states.view(-1), *results)
    sizes = (*x.shape, *B.shape[2:], softplus, from_end, grid_height)
    _ssd_backward(arrays, sizes)
    return gradients


def _ssd_backward_fake(dy: Tensor, dfinal: Tensor | None, x: Tensor, *rest: Any) -> list[Tensor]:
    dt, A, B, C, D, dt_bias, *_ = rest
    half = [room_for_gradient(m, x) for m in (x, dt, B, C)]
    full = [room_for_gradient(m, x, torch.float32) for m in (A, D, dt_bias)]
    shape = (x.shape[0], *x.shape[2:], B.shape[3]) if rest[-1] else (0,)
    dinitial = x.new_empty(shape, dtype=torch.float32)
    dx, ddt, dB, dC = half
    dA, dD, dbias = full
    return [dx, ddt, dA, dB, dC, dD, dbias, dinitial]


def _ssd_gradients(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dy = zeros_if_absent(dy, saved[0])
    continued = ctx.initial_state is not None
    gradients = _ssd_chunk_scan_backward(dy, dfinal, *saved, *ctx.options[:-1], continued)
    given = [if_given(g, x) for g, x in zip(gradients, (*saved[:7], ctx.initial_state), strict=True)]
    return *given, *[None] * 7


_ssd_chunk_scan = register(
    f"ssd_chunk_scan({_INPUTS}, {TOKENS}, {SCAN_ORDER}, bool return_final,"
    " bool keep) -> (Tensor, Tensor, Tensor)",
    _ssd_run,
    _ssd_fake,
)
_ssd_chunk_scan_backward = register(
    f"ssd_chunk_scan_backward(Tensor dy, Tensor? dfinal, {_INPUTS}, Tensor? seq_idx, Tensor? mask,"
    f" Tensor states, {SCAN_ORDER}, bool continued) -> Tensor[]",
    _ssd_backward_run,
    _ssd_backward_fake,
)
refuse_second_derivative(_ssd_chunk_scan_backward)
differentiate(_ssd_chunk_scan, _ssd_gradients, setup)
