"""The causal depthwise convolution in Triton: a program takes some channels of some visits.

Windows run over visits, so a token under the mask is in none. They end at a token that starts a sequence.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cobra.kernels.call import Call, Limit
from cobra.kernels.registration import room_for_gradient
from cobra.kernels.triton import OPERATORS
from cobra.kernels.triton.formulas import sigmoid, silu
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.tensors import dense, like_first, row_major
from cobra.kernels.triton.visits import flag_and_token, visit_list, visit_order


@triton.jit
def window(
    x, initial, visits, first, rank, c, inside, x_stride, order, K: tl.constexpr, REVERSED: tl.constexpr
):
    """Inputs of the taps of visits `rank` (T,), each (T, C), the last tap's first; flags and tokens (T,).

    Zeros for visits that there are not and for inputs of other sequences. `first` is the first of the visits.
    """
    flag, token = flag_and_token(visits, rank, (rank >= 0) & (rank < order[0]), order[0], order[1], REVERSED)
    seen, at, mark, inputs = flag > 0, token, flag, ()
    for s in tl.static_range(K):
        before = rank - s
        if s > 0:
            # what lies behind a start is another sequence's
            seen = seen & (mark != 3)
            mark, at = flag_and_token(visits, before, seen & (before >= 0), order[0], order[1], REVERSED)
        taken = (seen & (before >= 0))[:, None] & inside[None, :]
        value = tl.load(x + at[:, None] * x_stride + c[None, :], mask=taken, other=0.0).to(tl.float32)
        if initial is not None and first < s:
            held = (seen & (before < 0))[:, None] & inside[None, :]
            place = c[None, :] * (K - 1) + (before + K - 1)[:, None]
            value += tl.load(initial + place, mask=held, other=0.0).to(tl.float32)
        inputs += (value,)  # type: ignore[assignment]
    return inputs, flag, token


@triton.jit
def filters(weight, c, inside, K: tl.constexpr):
    """The K taps of channels, each (C,), the last one first."""
    taps = ()
    for s in tl.static_range(K):
        taps += (tl.load(weight + c * K + (K - 1 - s), mask=inside, other=0.0).to(tl.float32),)  # type: ignore[assignment]
    return taps


@triton.jit
def convolved(inputs, taps, offset, K: tl.constexpr):
    """The sum over a window (T, C)."""
    total = inputs[0] * taps[0][None, :] + offset
    for s in tl.static_range(1, K):
        total += inputs[s] * taps[s][None, :]
    return total


@triton.jit(do_not_specialize=["length"])
def conv_kernel(x, weight, bias, initial, visits, counts, y, final, x_row, x_stride, length, height, width,
                SILU: tl.constexpr, REVERSED: tl.constexpr, K: tl.constexpr, BLOCK_T: tl.constexpr,
                BLOCK_D: tl.constexpr):  # fmt: skip
    """y of some visits; with the first of them also the final state."""
    row, order = tl.cast(tl.program_id(2), tl.int64), (length, height)
    c = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    first = tl.program_id(1) * BLOCK_T
    rank, inside = first + tl.arange(0, BLOCK_T), c < width
    x += row * x_row
    visits = None if visits is None else visits + row * length
    initial = None if initial is None else initial + row * width * (K - 1)
    offset = 0.0 if bias is None else tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    inputs, flag, token = window(x, initial, visits, first, rank, c, inside, x_stride, order, K, REVERSED)
    out = convolved(inputs, filters(weight, c, inside, K), offset, K)
    if SILU:
        out = silu(out)
    if visits is not None:
        out = tl.where((flag > 0)[:, None], out, 0.0)
    place = (row * length + token)[:, None] * width + c[None, :]
    tl.store(y + place, out, mask=(rank < length)[:, None] & inside[None, :])
    if tl.program_id(1) == 0:
        count = length if counts is None else tl.load(counts + row).to(tl.int32)
        seen = count >= 0
        for s in tl.static_range(K - 1):
            last = count - 1 - s
            mark, at = flag_and_token(visits, last, seen & (last >= 0), length, height, REVERSED)
            value = tl.load(x + at * x_stride + c, mask=inside & seen & (last >= 0), other=0.0).to(tl.float32)
            if initial is not None:
                held = inside & seen & (last < 0)
                value += tl.load(initial + c * (K - 1) + (last + K - 1), mask=held, other=0.0).to(tl.float32)
            tl.store(final + (row * width + c) * (K - 1) + (K - 2 - s), value, mask=inside)
            seen = seen & (mark != 3)


@triton.jit(do_not_specialize=["length"])
def conv_backward_kernel(x, weight, bias, initial, visits, counts, dy, dfinal, dx, dinitial, sums, x_row,
                         x_stride, dy_row, dy_stride, length, height, width, SILU: tl.constexpr,
                         REVERSED: tl.constexpr, K: tl.constexpr, BLOCK_T: tl.constexpr,
                         BLOCK_D: tl.constexpr, TILES: tl.constexpr):  # fmt: skip
    """Gradients of some visits' inputs, and their part of those of the filter and the bias, (K + 1, C)."""
    row, order = tl.cast(tl.program_id(2), tl.int64), (length, height)
    c = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = c < width
    x += row * x_row
    dy += row * dy_row
    visits = None if visits is None else visits + row * length
    initial = None if initial is None else initial + row * width * (K - 1)
    count = length if counts is None else tl.load(counts + row).to(tl.int32)
    offset = 0.0 if bias is None else tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    taps = filters(weight, c, inside, K)
    totals = ()
    for _ in tl.static_range(K + 1):
        totals += (tl.zeros((BLOCK_T, BLOCK_D), tl.float32),)  # type: ignore[assignment]
    begin = tl.program_id(1) * (TILES * BLOCK_T)
    end = tl.minimum(begin + TILES * BLOCK_T, length)
    if initial is not None:
        # the first state as visits before the first one
        begin = tl.where(tl.program_id(1) == 0, -BLOCK_T, begin)
    for first in range(begin, end, BLOCK_T):
        rank = first + tl.arange(0, BLOCK_T)
        seen, gradient = rank < count, tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        token = tl.cast(rank, tl.int64)
        for s in tl.static_range(K):
            # what the visit s behind these gives back to them
            inputs, flag, at = window(
                x, initial, visits, first + s, rank + s, c, inside, x_stride, order, K, REVERSED
            )
            taken = (flag > 0)[:, None] & inside[None, :]
            slope = tl.load(dy + at[:, None] * dy_stride + c[None, :], mask=taken, other=0.0).to(tl.float32)
            if SILU:
                before = convolved(inputs, taps, offset, K)
                open_by = sigmoid(before)
                slope = slope * (open_by * (1.0 + before * (1.0 - open_by)))
            if s == 0:
                token, old, totals = at, totals, ()
                for k in tl.static_range(K):
                    totals += (old[k] + slope * inputs[k],)  # type: ignore[assignment]
                totals += (old[K] + slope,)  # type: ignore[assignment]
            else:
                seen = seen & (flag != 3)
            gradient += tl.where(seen[:, None], slope * taps[s][None, :], 0.0)
        if dfinal is not None and first + BLOCK_T >= count - K:
            held = (seen & (rank >= count - (K - 1)))[:, None] & inside[None, :]
            place = (row * width + c)[None, :] * (K - 1) + (rank - count + K - 1)[:, None]
            gradient += tl.load(dfinal + place, mask=held, other=0.0).to(tl.float32)
        place = (row * length + token)[:, None] * width + c[None, :]
        tl.store(dx + place, gradient, mask=((rank >= 0) & (rank < length))[:, None] & inside[None, :])
        if initial is not None and first < 0:
            held = ((rank < 0) & (rank >= 1 - K))[:, None] & inside[None, :]
            place = (row * width + c)[None, :] * (K - 1) + (rank + K - 1)[:, None]
            tl.store(dinitial + place, gradient, mask=held)
    this = (row * tl.num_programs(1) + tl.program_id(1)) * (K + 1)
    for k in tl.static_range(K):
        tl.store(sums + (this + K - 1 - k) * width + c, tl.sum(totals[k], 0), mask=inside)
    tl.store(sums + (this + K) * width + c, tl.sum(totals[K], 0), mask=inside)


@triton.jit
def conv_update_kernel(x, state, weight, bias, y, x_row, state_row, state_stride, state_column, width,
                       SILU: tl.constexpr, K: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """y of one more token a row; its state moves on by one."""
    row, c = tl.cast(tl.program_id(1), tl.int64), tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = c < width
    taps = filters(weight, c, inside, K)
    value = tl.load(x + row * x_row + c, mask=inside, other=0.0).to(tl.float32)
    out = value * taps[0]
    if bias is not None:
        out += tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    state += row * state_row + c * state_stride
    for s in tl.static_range(1, K):
        held = tl.load(state + (K - 1 - s) * state_column, mask=inside, other=0.0).to(tl.float32)
        tl.store(state + (K - 1 - s) * state_column, value, mask=inside)
        out += held * taps[s]
        value = held
    if SILU:
        out = silu(out)
    tl.store(y + row * width + c, out, mask=inside)


# channels of a program and visits of its tile, 16 elements a thread, and 4 in the backward, which keeps K + 1
# sums of each; tiles that a program of the backward sums over
_CHANNELS, _VISITS = 128, 16
_CHANNELS_BACK, _VISITS_BACK, _TILES = 64, 8, 8
_TAPS = 8


def taken_taps(weight: str) -> Limit:
    """The filters (C, K), an argument, that the kernels take."""

    def accepts(call: Call) -> bool:
        shape = call.shape(weight)
        return shape is not None and 1 <= shape[1] <= _TAPS

    return Limit(accepts, f"takes filters of at most {_TAPS} taps")


def _fake(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], x.shape[2], weight.shape[1] - 1)


@OPERATORS.register(_fake, limits=[taken_taps("weight")])
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    """y (B, L, C) and the last K - 1 inputs (B, C, K - 1)."""
    x = row_major(x)
    y, final = _fake(x, weight)
    batch, length, width = x.shape
    block = min(_CHANNELS, triton.next_power_of_2(width))
    # the empty row has a final state, too
    programs = -(-width // block), max(1, -(-length // _VISITS)), batch
    visits = _visits(x, weight, bias, initial_state, seq_idx, mask, scan_order, grid)
    from_end, height = visit_order(scan_order, grid)
    launch(
        conv_kernel, programs, x, *visits, y, final, *x.stride()[:2], length, height, width,
        SILU=activation is not None, REVERSED=from_end, K=weight.shape[1], BLOCK_T=_VISITS, BLOCK_D=block,
        num_warps=4,
    )  # fmt: skip
    return y, final


@OPERATORS.gradient(causal_conv1d, "y final_state", of=("x", "weight", "bias", "initial_state"))
def causal_conv1d_backward(
    dy: Tensor | None,
    dfinal_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, the filter, the bias and the first state."""
    x, (batch, length, width), taps = row_major(x), x.shape, weight.shape[1]
    dy = x.new_zeros(x.shape) if dy is None else row_major(dy)
    dfinal = None if dfinal_state is None or taps == 1 else dfinal_state.contiguous()
    block = min(_CHANNELS_BACK, triton.next_power_of_2(width))
    programs = -(-width // block), max(1, -(-length // (_TILES * _VISITS_BACK))), batch
    visits = _visits(x, weight, bias, initial_state, seq_idx, mask, scan_order, grid)
    dx, dinitial = x.new_empty(x.shape), room_for_gradient(initial_state, x)
    from_end, height = visit_order(scan_order, grid)
    sums = x.new_empty(batch, programs[1], taps + 1, width, dtype=torch.float32)
    launch(
        conv_backward_kernel, programs, x, *visits, dy, dfinal, dx, dinitial, sums,
        *x.stride()[:2], *dy.stride()[:2], length, height, width,
        SILU=activation is not None, REVERSED=from_end, K=taps, BLOCK_T=_VISITS_BACK, BLOCK_D=block,
        TILES=_TILES, num_warps=4,
    )  # fmt: skip
    total = sums.sum((0, 1))
    dbias = total.new_empty(0) if bias is None else total[taps].clone()
    return dx, total[:taps].t().contiguous(), dbias, dinitial


def _visits(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> tuple[Tensor | None, ...]:
    """What both kernels take behind x: filter, bias, first state, the visits and how many there are."""
    first = None if weight.shape[1] == 1 else initial_state
    visits = visit_list(x.shape[1], seq_idx, mask, scan_order, grid)
    counts = None if mask is None else mask.sum(1)
    return *dense(weight, bias, first), visits, counts


@OPERATORS.register(like_first, changes=("state",), limits=[taken_taps("weight")])
def causal_conv1d_update(
    x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """y (B, C) of one more token; `state` (B, C, K - 1) drops its oldest input and takes x (B, C)."""
    (batch, width), y = x.shape, x.new_empty(x.shape)
    x, block = row_major(x), min(_CHANNELS, triton.next_power_of_2(width))
    launch(
        conv_update_kernel, (-(-width // block), batch), x, state, *dense(weight, bias), y, x.stride(0),
        *state.stride(), width,
        SILU=activation is not None, K=weight.shape[1], BLOCK_D=block, num_warps=4,
    )  # fmt: skip
    return y
