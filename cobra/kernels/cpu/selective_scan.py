"""Mamba-1's scan on the native kernels."""

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

_scan = Kernel("selective_scan", arrays=14, sizes=8)
_scan_backward = Kernel("selective_scan_backward", arrays=22, sizes=8)

# tokens between the states that are kept for the backward, as in csrc/scan_abi.h
SCAN_CHUNK = 32


def selective_scan(*inputs: Any) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the final state (B, D, N); states are kept where a gradient will be asked for."""
    y, final_state, _ = _selective_scan(*inputs, needs_gradient(*inputs))  # type: ignore[call-arg]
    return y, final_state


def _fake(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, channels = u.shape
    final = u.new_empty(batch, *A.shape, dtype=torch.float32)
    shape = (batch, -(-length // SCAN_CHUNK), A.shape[1], channels) if rest[-1] else (0,)
    return u.new_empty(u.shape), final, u.new_empty(shape, dtype=torch.float32)


@OPERATORS.register(_fake)
def _selective_scan(
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
    scan_order: str,
    grid: Sequence[int] | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Also the states between chunks if they are to be kept."""
    y, final, states = map(unwritten, _fake(u, delta, A, keep))
    inputs = (u, *natives(delta, A, B, C, D, z, delta_bias, initial_state), seq_idx, mask)
    sizes = (*u.shape, *B.shape[2:], delta_softplus, *for_kernels(scan_order, grid))
    _scan((*inputs, y, final, states.view(-1) if keep else None), sizes)
    return y, final, states


@OPERATORS.gradient(
    _selective_scan,
    "y final_state states",
    of=("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"),
)
def selective_scan_backward(
    dy: Tensor | None,
    dfinal_state: Tensor | None,
    states: Tensor,
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
    scan_order: str,
    grid: Sequence[int] | None,
) -> list[Tensor]:
    """Gradients of u to the bias and of the first state."""
    dy = u.new_zeros(u.shape) if dy is None else dy
    inputs = (u, *natives(delta, A, B, C, D, z, delta_bias), seq_idx, mask, states.view(-1))
    du, ddelta, dB, dC, dz = (native_room(m, u) for m in (u, delta, B, C, z))
    dA, dD, dbias, dinitial = (full_room(m, u) for m in (A, D, delta_bias, initial_state))
    optional = (if_present(dD, D), if_present(dbias, delta_bias), if_present(dinitial, initial_state))
    sizes = (*u.shape, *B.shape[2:], delta_softplus, *for_kernels(scan_order, grid))
    _scan_backward((dy, dfinal_state, *inputs, du, ddelta, dB, dC, if_present(dz, z), dA, *optional), sizes)
    return [du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial]
