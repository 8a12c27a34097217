"""Mamba-1's scan on the native kernels; arguments as in `cobra.kernels.ops`."""

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

_scan = Kernel("selective_scan", arrays=14, sizes=8)
_scan_backward = Kernel("selective_scan_backward", arrays=22, sizes=8)

_INPUTS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? dt_bias"

# tokens between the states that are kept for the backward, as in csrc/scan_abi.h
SCAN_CHUNK = 32


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
    """y (B, L, D) and the final state (B, D, N)."""
    inputs = [native(m) for m in (delta, A, B, C, D, z, delta_bias, initial_state)]
    keep = needs_gradient(u, *inputs)
    y, final, _ = _selective_scan(
        u, *inputs, seq_idx, mask, delta_softplus, *for_kernels(scan_order, grid), keep
    )
    return y, final


def _scan_run(u: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, softplus, from_end, grid_height, keep = arguments
    y, final, states = map(unwritten, _scan_fake(u, *arguments))
    arrays = (u, *inputs, y, final, states.view(-1) if keep else None)
    _scan(arrays, (*u.shape, *inputs[2].shape[2:], softplus, from_end, grid_height))
    return y, final, states


def _scan_fake(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, channels = u.shape
    final = u.new_empty(batch, *A.shape, dtype=torch.float32)
    shape = (batch, -(-length // SCAN_CHUNK), A.shape[1], channels) if rest[-1] else (0,)
    return u.new_empty(u.shape), final, u.new_empty(shape, dtype=torch.float32)


def _scan_backward_run(
    dy: Tensor,
    dfinal: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    states: Tensor,
    softplus: bool,
    from_end: bool,
    grid_height: int,
) -> list[Tensor]:
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial = gradients = _scan_backward_fake(dy, dfinal, *inputs)
    optional = (if_present(dD, D), if_present(dbias, delta_bias), dinitial)
    results = (du, ddelta, dB, dC, if_present(dz, z), dA, *optional)
    arrays = (dy, dfinal, *inputs, seq_idx, mask, states.view(-1), *results)
    _scan_backward(arrays, (*u.shape, *B.shape[2:], softplus, from_end, grid_height))
    return gradients


def _scan_backward_fake(dy: Tensor, dfinal: Tensor | None, u: Tensor, *rest: Any) -> list[Tensor]:
    delta, A, B, C, D, z, delta_bias, *_ = rest
    du, ddelta, dB, dC, dz = (room_for_gradient(m, u) for m in (u, delta, B, C, z))
    dA, dD, dbias = (room_for_gradient(m, u, torch.float32) for m in (A, D, delta_bias))
    return [du, ddelta, dA, dB, dC, dD, dz, dbias, u.new_empty(u.shape[0], *A.shape, dtype=torch.float32)]


def _scan_gradients(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dy = zeros_if_absent(dy, saved[0])
    gradients = _selective_scan_backward(dy, dfinal, *saved, *ctx.options)
    given = [if_given(g, x) for g, x in zip(gradients, (*saved[:8], ctx.initial_state), strict=True)]
    return *given, *[None] * 6


_selective_scan = register(
    f"selective_scan({_INPUTS}, {TOKENS}, {SCAN_ORDER}, bool keep) -> (Tensor, Tensor, Tensor)",
    _scan_run,
    _scan_fake,
)
_selective_scan_backward = register(
    f"selective_scan_backward(Tensor dy, Tensor? dfinal, {_INPUTS}, Tensor? seq_idx, Tensor? mask,"
    f" Tensor states, {SCAN_ORDER}) -> Tensor[]",
    _scan_backward_run,
    _scan_backward_fake,
)
refuse_second_derivative(_selective_scan_backward)
differentiate(_selective_scan, _scan_gradients, setup)
