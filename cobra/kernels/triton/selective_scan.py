"""Mamba-1's scan in Triton, in parallel over chunks of visits where rows and channels alone are too few."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from cobra.kernels.call import needs_gradient
from cobra.kernels.registration import room_for_gradient
from cobra.kernels.triton import OPERATORS
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.selective_scan_kernels import (
    backward_kernel,
    chunk_kernel,
    scan_kernel,
)
from cobra.kernels.triton.tensors import dense, row_major
from cobra.kernels.triton.visits import visit_list, visit_order

# states of a warp, 16 a thread, and its channels at most
_TILE, _CHANNELS = 512, 64
# visits between the states that are kept for the backward
KEPT_EVERY = 32
# visits that a kernel takes at a time; the backward, whose states and decays of a group are in registers
_GROUP, _GROUP_BACK = 4, 2
# warps that chunks make where rows and channels alone are fewer: 8 on each of an H200's 132 multiprocessors,
# which is what the backward's registers allow. From half of that on nothing is cut, because chunks take each
# exponential once more
_WARPS = 1024
# chunks of a row at most: each goes through what all before it add
_CHUNKS = 64


@dataclass(frozen=True)
class _Plan:
    """How a call is cut up: the numbers that all of its kernels take.

    Attributes:
        blocks: of channels.
        chunk: visits of a chunk.
        chunks: of a row.
        height: of the grid whose columns are visited, or None.
        channels: of a group.
        constants: that choose the kernels' code.
    """

    batch: int
    length: int
    width: int
    blocks: int
    chunk: int
    chunks: int
    height: int | None
    channels: int
    constants: dict[str, int]

    def launch(self, kernel: Any, *arguments: Any, **constants: Any) -> None:
        """Run a kernel on every chunk."""
        grid = self.blocks, self.chunks, self.batch
        numbers = self.length, self.height, self.chunk, self.width, self.channels
        launch(kernel, grid, *arguments, *numbers, num_warps=1, **constants, **self.constants)


def _plan(
    u: Tensor, B: Tensor, z: Tensor | None, softplus: bool, scan_order: str, grid: Sequence[int] | None
) -> _Plan:
    (batch, length, width), (groups, d_state) = u.shape, B.shape[2:]
    channels, block_n = width // groups, triton.next_power_of_2(d_state)
    block_d = min(max(1, _TILE // block_n), _CHANNELS, triton.next_power_of_2(channels))
    blocks = groups * -(-channels // block_d)
    parts = min(max(1, _WARPS // max(1, batch * blocks)), _CHUNKS)
    chunk = max(1, -(-length // (parts * KEPT_EVERY))) * KEPT_EVERY
    from_end, height = visit_order(scan_order, grid)
    tile = {"N": d_state, "BLOCK_D": block_d, "BLOCK_N": block_n}
    constants = {"SOFTPLUS": softplus, "GATED": z is not None, "REVERSED": from_end, **tile}
    # the empty row has a chunk, too, which passes its state on
    chunks = max(1, -(-length // chunk))
    return _Plan(batch, length, width, blocks, chunk, chunks, height, channels, constants)


def selective_scan(*inputs: Any) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the final state (B, D, N); states are kept where a gradient will be asked for."""
    y, final_state, _ = _selective_scan(*inputs, needs_gradient(*inputs))  # type: ignore[call-arg]
    return y, final_state


def _fake(u: Tensor, delta: Tensor, A: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, _ = u.shape
    final = u.new_empty(batch, *A.shape, dtype=torch.float32)
    shape = (batch, -(-length // KEPT_EVERY), *A.shape) if rest[-1] else (0,)
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
    """Also the states that the backward starts from if they are to be kept."""
    y, final, kept = _fake(u, delta, A, keep)
    plan = _plan(u, B, z, delta_softplus, scan_order, grid)
    visits = visit_list(plan.length, seq_idx, mask, scan_order, grid)
    A, (skip, bias, initial) = A.contiguous(), dense(D, delta_bias, initial_state)
    ends = _ends(plan, A, bias, visits, (u, delta, None, B, None, None), adjoint=False)
    inputs = _addressed(u, delta, z, B, C, None)
    plan.launch(
        scan_kernel, A, skip, bias, visits, *inputs, initial, *ends, y, final, kept if keep else None,
        GROUP=_GROUP, KEPT_EVERY=KEPT_EVERY,
    )  # fmt: skip
    return y, final, kept


@OPERATORS.gradient(
    _selective_scan,
    "y final_state kept",
    of=("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"),
)
def selective_scan_backward(
    dy: Tensor | None,
    dfinal_state: Tensor | None,
    kept: Tensor,
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
    plan = _plan(u, B, z, delta_softplus, scan_order, grid)
    visits = visit_list(plan.length, seq_idx, mask, scan_order, grid)
    dy = u.new_zeros(u.shape) if dy is None else dy
    A, (skip, bias, last) = A.contiguous(), dense(D, delta_bias, dfinal_state)
    ends = _ends(plan, A, bias, visits, (None, delta, z, None, C, dy), adjoint=True)
    du, ddelta, dz = (room_for_gradient(x, u) for x in (u, delta, z))
    dinitial = room_for_gradient(initial_state, u, torch.float32)
    d_state, parts = B.shape[3], (plan.batch, plan.chunks)
    sums = {
        "BC": u.new_empty(plan.blocks, *u.shape[:2], 2, d_state, dtype=torch.float32),
        "A": u.new_empty(*parts, *A.shape, dtype=torch.float32),
        "channels": u.new_empty(*parts, 2, plan.width, dtype=torch.float32),
    }
    tile = plan.constants["BLOCK_D"] * plan.constants["BLOCK_N"]
    scratch = u.new_empty(*parts, plan.blocks, KEPT_EVERY // _GROUP_BACK * tile, dtype=torch.float32)
    plan.launch(
        backward_kernel, A, skip, bias, visits, *_addressed(u, delta, z, B, C, dy), last, *ends, kept,
        scratch, du, ddelta, dz, *sums.values(), None if initial_state is None else dinitial,
        GROUP=_GROUP_BACK, KEPT_EVERY=KEPT_EVERY,
    )  # fmt: skip
    # of all blocks of a group (B, L, G, 2, N)
    dBC = sums["BC"].unflatten(0, (B.shape[2], -1)).sum(1).permute(1, 2, 0, 3, 4)
    dD, dbias = sums["channels"].sum((0, 1)).unbind()
    dB, dC = (x.contiguous() for x in dBC.unbind(3))
    return [du, ddelta, sums["A"].sum((0, 1)), dB, dC, _of(D, dD), dz, _of(delta_bias, dbias), dinitial]


def _ends(
    plan: _Plan,
    A: Tensor,
    bias: Tensor | None,
    visits: Tensor | None,
    inputs: tuple[Tensor | None, ...],
    adjoint: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """What each chunk adds to the state behind it (B, chunks, D, N), or to the gradient of that before it,
    and the sums of its time steps (B, chunks, D); nothing if there is one chunk."""
    if plan.chunks == 1:
        return None, None
    ends = A.new_empty(plan.batch, plan.chunks, *A.shape, dtype=torch.float32)
    totals = A.new_empty(plan.batch, plan.chunks, plan.width, dtype=torch.float32)
    addressed = _addressed(*inputs)
    plan.launch(chunk_kernel, A, bias, visits, *addressed, ends, totals, ADJOINT=adjoint, GROUP=_GROUP)
    return ends, totals


def _addressed(*inputs: Tensor | None) -> tuple[tuple[Tensor | None, ...], tuple[tuple[int, ...], ...]]:
    """Inputs of visits, and their strides of row, token and group."""
    rows = tuple(None if x is None else row_major(x) for x in inputs)
    return rows, tuple((0, 0, 0) if x is None else (*x.stride()[:-1], 0)[:3] for x in rows)


def _of(x: Tensor | None, gradient: Tensor) -> Tensor:
    """The gradient if there is x; else the empty one that stands for it."""
    return gradient if x is not None else gradient.new_empty(0)
