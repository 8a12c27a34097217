"""The scans on the native kernels; arguments as in `cobra.kernels.ops`."""

from typing import Any

import torch
from torch import Tensor

from cobra.kernels.call import needs_gradient
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import differentiate, refuse_second_derivative, register
from cobra.kernels.cpu.tensors import if_given, if_present, native, room_for_gradient
from cobra.kernels.huge_pages import unwritten
from cobra.kernels.reference.time_step import UNLIMITED
from cobra.kernels.scan_order import Grid, ScanOrder, for_kernels

_ssd = Kernel("ssd_chunk_scan", arrays=14, sizes=10, reals=2)
_ssd_backward = Kernel("ssd_chunk_scan_backward", arrays=22, sizes=10, reals=2)
_scan = Kernel("selective_scan", arrays=14, sizes=8)
_scan_backward = Kernel("selective_scan_backward", arrays=22, sizes=8)

# As in csrc/scan_abi.h: tokens between the states that are kept for the backward, the longest sequence that
# the SSD takes as one chunk, and what the states' widths are rounded up to.
SSD_CHUNK, SCAN_CHUNK, SSD_WHOLE, STATE_PAD = 64, 32, 128, 16


def ssd_chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = UNLIMITED,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    mask: Tensor | None = None,
    scan_order: ScanOrder = "forward",
    grid: Grid | None = None,
    chunk_size: int = 64,
    return_final_state: bool = True,
) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) and the final state (B, H, P, N); the kernel has its own chunk size."""
    inputs = [native(m) for m in (dt, A, B, C, D, z, dt_bias, initial_state)]
    keep = needs_gradient(x, *inputs)
    options = (dt_softplus, *for_kernels(scan_order, grid), *dt_limit)
    y, final, _ = _ssd_chunk_scan(x, *inputs, seq_idx, mask, *options, return_final_state, keep)
    return y, final


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
    """y (B, L, D) and the final state (B, D, N)."""
    inputs = [native(m) for m in (delta, A, B, C, D, z, delta_bias, initial_state)]
    keep = needs_gradient(u, *inputs)
    y, final, _ = _selective_scan(
        u, *inputs, seq_idx, mask, delta_softplus, *for_kernels(scan_order, grid), keep
    )
    return y, final


# Both operators take these, then options, then whether to keep the states between chunks for the backward,
# and return y, the final state and those states.
_INPUTS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? dt_bias"
_TOKENS = "Tensor? initial_state, Tensor? seq_idx, Tensor? mask"
_SCAN_ORDER = "bool softplus, bool reversed, SymInt grid_height"


def _zeros_if_absent(dy: Tensor | None, x: Tensor) -> Tensor:
    """The gradient of y, which is None if only the final state was used."""
    return x.new_zeros(x.shape) if dy is None else dy


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.initial_state = inputs[:9]
    ctx.options = inputs[11:-1]
    # zeros for the kept states' gradient would be as large as they are
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(*tensors, *inputs[9:11], output[2])


# ---- ssd_chunk_scan


def _ssd_run(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, softplus, from_end, grid_height, dt_min, dt_max, return_final, keep = arguments
    _, _, B, _, D, *_ = inputs
    y, final, states = map(unwritten, _ssd_fake(x, *arguments))
    arrays = (x, *inputs, y, final if return_final else None, states.view(-1) if keep else None)
    sizes = (*x.shape, *B.shape[2:], D is not None and D.dim() == 2, softplus, from_end, grid_height)
    _ssd(arrays, sizes, dt_min, dt_max)
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
    z: Tensor | None,
    dt_bias: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    states: Tensor,
    softplus: bool,
    from_end: bool,
    grid_height: int,
    dt_min: float,
    dt_max: float,
    continued: bool,
) -> list[Tensor]:
    inputs = (x, dt, A, B, C, D, z, dt_bias)
    gradients = _ssd_backward_fake(dy, dfinal, *inputs, continued)
    dx, ddt, dA, dB, dC, dD, dz, dbias, dinitial = gradients
    optional = (if_present(dD, D), if_present(dbias, dt_bias), dinitial if continued else None)
    results = (dx, ddt, dB, dC, if_present(dz, z), dA, *optional)
    arrays = (dy, dfinal, *inputs, seq_idx, mask, states.view(-1), *results)
    sizes = (*x.shape, *B.shape[2:], D is not None and D.dim() == 2, softplus, from_end, grid_height)
    _ssd_backward(arrays, sizes, dt_min, dt_max)
    return gradients


def _ssd_backward_fake(dy: Tensor, dfinal: Tensor | None, x: Tensor, *rest: Any) -> list[Tensor]:
    dt, A, B, C, D, z, dt_bias, *_ = rest
    half = [room_for_gradient(m, x) for m in (x, dt, B, C, z)]
    full = [room_for_gradient(m, x, torch.float32) for m in (A, D, dt_bias)]
    shape = (x.shape[0], *x.shape[2:], B.shape[3]) if rest[-1] else (0,)
    dinitial = x.new_empty(shape, dtype=torch.float32)
    dx, ddt, dB, dC, dz = half
    dA, dD, dbias = full
    return [dx, ddt, dA, dB, dC, dD, dz, dbias, dinitial]


def _ssd_gradients(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dy = _zeros_if_absent(dy, saved[0])
    continued = ctx.initial_state is not None
    gradients = _ssd_chunk_scan_backward(dy, dfinal, *saved, *ctx.options[:-1], continued)
    given = [if_given(g, x) for g, x in zip(gradients, (*saved[:8], ctx.initial_state), strict=True)]
    return *given, *[None] * 9


_ssd_chunk_scan = register(
    f"ssd_chunk_scan({_INPUTS}, {_TOKENS}, {_SCAN_ORDER}, float dt_min, float dt_max, bool return_final,"
    " bool keep) -> (Tensor, Tensor, Tensor)",
    _ssd_run,
    _ssd_fake,
)
_ssd_chunk_scan_backward = register(
    f"ssd_chunk_scan_backward(Tensor dy, Tensor? dfinal, {_INPUTS}, Tensor? seq_idx, Tensor? mask,"
    f" Tensor states, {_SCAN_ORDER}, float dt_min, float dt_max, bool continued) -> Tensor[]",
    _ssd_backward_run,
    _ssd_backward_fake,
)
refuse_second_derivative(_ssd_chunk_scan_backward)
differentiate(_ssd_chunk_scan, _ssd_gradients, _setup)


# ---- selective_scan


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
    dy = _zeros_if_absent(dy, saved[0])
    gradients = _selective_scan_backward(dy, dfinal, *saved, *ctx.options)
    given = [if_given(g, x) for g, x in zip(gradients, (*saved[:8], ctx.initial_state), strict=True)]
    return *given, *[None] * 6


_selective_scan = register(
    f"selective_scan({_INPUTS}, {_TOKENS}, {_SCAN_ORDER}, bool keep) -> (Tensor, Tensor, Tensor)",
    _scan_run,
    _scan_fake,
)
_selective_scan_backward = register(
    f"selective_scan_backward(Tensor dy, Tensor? dfinal, {_INPUTS}, Tensor? seq_idx, Tensor? mask,"
    f" Tensor states, {_SCAN_ORDER}) -> Tensor[]",
    _scan_backward_run,
    _scan_backward_fake,
)
refuse_second_derivative(_selective_scan_backward)
differentiate(_selective_scan, _scan_gradients, _setup)
