"""Mamba-2's scan in Triton: a program takes a head through a segment of a row, its state in registers."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cobra.kernels.call import Limit
from cobra.kernels.initial_rows import of_rows
from cobra.kernels.triton import OPERATORS
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.ssd_backward import run_backward
from cobra.kernels.triton.ssd_chunk import (
    decays_within,
    describe,
    find_place,
    find_sequences,
    find_tokens,
    load_rows,
    load_sums,
    programs_for,
    write_steps,
)
from cobra.kernels.triton.ssd_states import pass_on, run_segments


@triton.jit(do_not_specialize=["length", "segments", "per_segment"])
def ssd_scan_kernel(y, final, ends, decays, steps, initial, segments, per_segment, inputs,
                    strides, length, height, heads, per_group, head_dim: tl.constexpr,
                    d_state: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSED: tl.constexpr,
                    COLUMNS: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
                    EXACT: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr):  # fmt: skip
    """y of a tile of a head in a segment of a row, and the final state at the end of the last one."""
    x, B, C, D, seq_idx, mask = inputs[0], inputs[3], inputs[4], inputs[5], inputs[7], inputs[8]
    x_row, x_token, x_head = strides[0], strides[1], strides[2]
    B_row, B_token, B_group = strides[6], strides[7], strides[8]
    C_row, C_token, C_group = strides[9], strides[10], strides[11]
    row, head, tile, segment = find_place(tl.program_id(0), heads, head_dim, segments, P)
    x += row * x_row + head * x_head + tile * P
    y += (row * length * heads + head) * head_dim + tile * P
    B += row * B_row + head // per_group * B_group
    C += row * C_row + head // per_group * C_group
    chunks = tl.cdiv(length, Q)
    begin, end, span = segment * per_segment, tl.minimum((segment + 1) * per_segment, chunks), chunks * Q
    steps += ((row * heads + head) * tl.cdiv(head_dim, P) + tile) * (4 if EXACT else 3) * span
    write_steps(steps, begin, end, span, inputs, strides, row, head, length, height, SOFTPLUS,
                REVERSED, COLUMNS, Q, EXACT)  # fmt: skip
    skip = 0.0
    if D is not None:
        skip = tl.load(D + head).to(tl.float32)
    channel, column = tile * P + tl.arange(0, P), tl.arange(0, N)
    inside = (channel < head_dim)[:, None] & (column < d_state)[None, :]
    at = channel[:, None] * d_state + column[None, :]
    size = head_dim * d_state
    state = tl.zeros((P, N), tl.float32)
    # 1. the state before the segment: of the first the given one is part of what it leaves
    if initial is not None:  # noqa: SIM102  (known when it is compiled)
        if segment == 0:
            state += tl.load(initial + (row * heads + head) * size + at, mask=inside, other=0.0)
    if ends is not None:
        for before_it in range(0, segment):
            place = (row * (segments - 1) + before_it) * heads + head
            decay = tl.load(decays + place)
            left = tl.load(ends + place * size + at, mask=inside, other=0.0)
            # a state that is left behind may be NaN
            state = tl.where(decay == 0.0, 0.0, state) * decay + left
    visit, channels = tl.arange(0, Q), tl.arange(0, P)
    for chunk in range(begin, end):
        first = chunk * Q
        token, live = find_tokens(first + visit, length, height, row, mask, REVERSED, COLUMNS)
        X = load_rows(x, token, x_token, live, head_dim - tile * P, TYPE, P)
        Bs = load_rows(B, token, B_token, live, d_state, TYPE, N)
        Cs = load_rows(C, token, C_token, live, d_state, TYPE, N)
        step = tl.load(steps + first + visit)
        coarse, fine, total = load_sums(steps, first, span, Q, EXACT)
        seq, before, last = find_sequences(first, token, length, height, row, seq_idx, REVERSED, COLUMNS, Q)
        # 2. what each token hears of its own chunk; D is what it hears of itself
        scores = tl.dot(Cs, tl.trans(Bs), input_precision=PRECISION)
        # of this chunk, and as floats: masks that are the same everywhere are kept in registers, 32 a thread
        at_visit = (first + visit).to(tl.float32)
        hears = at_visit[:, None] >= at_visit[None, :]
        if seq_idx is not None:
            hears = hears & (seq[:, None] == seq[None, :])
        heard = scores * decays_within(coarse, fine, hears, EXACT) * step[None, :]
        if D is not None:
            heard = tl.where(at_visit[:, None] == at_visit[None, :], heard + skip, heard)
        # 3. and of the chunks before
        Y = tl.dot(Cs, tl.trans(state.to(TYPE)), input_precision=PRECISION) * tl.exp2(coarse + fine)[:, None]
        if seq_idx is not None:
            Y = tl.where((seq == before)[:, None], Y, 0.0)
            state = tl.where(last == before, state, 0.0)
        Y = tl.dot(heard.to(TYPE), X, acc=Y, input_precision=PRECISION)
        if mask is not None:
            Y = tl.where(live[:, None], Y, 0.0)
        rows = y + token[:, None] * (heads * head_dim) + channels[None, :]
        there = (first + visit < length)[:, None] & (channel < head_dim)[None, :]
        tl.store(rows, Y, mask=there)
        # 4. what the chunk leaves behind
        fed_by = tl.load(steps + first + visit) * tl.load(steps + span + first + visit)
        state = pass_on(state, X, Bs, fed_by, tl.exp2(total), seq == last, seq_idx is not None, PRECISION)
    if final is not None:  # noqa: SIM102  (known when it is compiled)
        if segment == segments - 1:
            tl.store(final + (row * heads + head) * size + at, state, mask=inside)


# chunks of a segment at least: what a segment saves must outweigh the second launch and the states read again
_SEGMENT = 8


def segments_of(programs: int, chunks: int) -> tuple[int, int]:
    """Into how many segments rows are cut, and the chunks of each, where `programs` take them whole."""
    wanted = max(1, min(programs_for(programs), chunks // _SEGMENT))
    per_segment = max(1, -(-chunks // wanted))
    return max(1, -(-chunks // per_segment)), per_segment


def _fake(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    batch, _, heads, head_dim = x.shape
    final = (batch, heads, head_dim, B.shape[3]) if rest[-1] else (0,)
    return x.new_empty(x.shape), x.new_empty(final, dtype=torch.float32)


@OPERATORS.register(
    _fake,
    limits=[
        Limit(lambda call: (call.shape("x") or (0,))[-1] <= 128, "takes head widths up to 128"),
        Limit(lambda call: (call.shape("B") or (0,))[-1] <= 256, "takes states up to 256"),
    ],
)
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
    initial_rows: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
    chunk_size: int,
    return_final_state: bool,
) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) and the final state (B, H, P, N); the kernels have a chunk size of their own.

    NaN and infinity reach all tokens of their row in their chunk, and later ones of their sequence.
    """
    y, final = _fake(x, dt, A, B, return_final_state)
    scan = describe(x, dt, A, B, C, D, dt_bias, dt_softplus, seq_idx, mask, scan_order, grid)
    initial = of_rows(initial_state, initial_rows)
    initial = None if initial is None else initial.contiguous()
    programs = x.shape[0] * x.shape[2] * scan.tiles
    segments, per_segment = segments_of(programs, scan.chunks)
    ends, decays, steps = None, None, scan.room_for_steps()
    if segments > 1:
        ends, decays = run_segments(scan, steps, initial, segments - 1, per_segment)
    launch(
        ssd_scan_kernel, (programs * segments,), y, final if return_final_state else None, ends, decays,
        steps, initial, segments, per_segment, *scan.arguments, **scan.constants, P=scan.tile,
    )  # fmt: skip
    return y, final


@OPERATORS.gradient(
    ssd_chunk_scan,
    "y final_state",
    of=("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state"),
)
def ssd_chunk_scan_backward(
    dy: Tensor | None,
    dfinal_state: Tensor | None,
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
    """Gradients of x to the bias and of the first state; the states are found again, none was kept."""
    dy = x.new_zeros(x.shape) if dy is None else dy.contiguous()
    initial = None if initial_state is None else initial_state.contiguous()
    dfinal = dfinal_state.contiguous() if dfinal_state is not None and dfinal_state.numel() else None
    scan = describe(x, dt, A, B, C, D, dt_bias, dt_softplus, seq_idx, mask, scan_order, grid, True)
    return run_backward(scan, dy, dfinal, initial)
