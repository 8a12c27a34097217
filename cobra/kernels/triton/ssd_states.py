"""States between the chunks of Mamba-2's scan and their gradients, each found by going through a row once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.ssd_chunk import (
    Scan,
    find_place,
    find_sequences,
    find_tokens,
    load_rows,
    load_sums,
    write_steps,
)


@triton.jit
def pass_on(state, x, B, fed_by, decay, left, PACKED: tl.constexpr, PRECISION: tl.constexpr):
    """The state (P, N) after a chunk. What is of other sequences than the last one, and NaN perhaps, is not
    multiplied by 0 but left out."""
    fed = tl.trans(x.to(tl.float32)) * fed_by[None, :]
    if PACKED:
        fed = tl.where(left[None, :], fed, 0.0)
        B = tl.where(left[:, None], B, 0.0).to(B.dtype)
    return tl.dot(fed.to(B.dtype), B, acc=state * decay, input_precision=PRECISION)


@triton.jit
def _states(kept, ends, decays, steps, initial, place, segments, per_segment, inputs, strides,
            length, height, heads, per_group, head_dim: tl.constexpr, d_state: tl.constexpr,
            SOFTPLUS: tl.constexpr, REVERSED: tl.constexpr, COLUMNS: tl.constexpr,
            TYPE: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr, Q: tl.constexpr,
            P: tl.constexpr, N: tl.constexpr):  # fmt: skip
    """States (P, N) of a tile of a head: before each chunk of the row, or after a segment of it."""
    x, B, seq_idx, mask = inputs[0], inputs[3], inputs[7], inputs[8]
    x_row, x_token, x_head = strides[0], strides[1], strides[2]
    B_row, B_token, B_group = strides[6], strides[7], strides[8]
    row, head, tile, segment = place
    x += row * x_row + head * x_head + tile * P
    B += row * B_row + head // per_group * B_group
    chunks = tl.cdiv(length, Q)
    begin, end, span = segment * per_segment, tl.minimum((segment + 1) * per_segment, chunks), chunks * Q
    steps += ((row * heads + head) * tl.cdiv(head_dim, P) + tile) * (4 if EXACT else 3) * span
    write_steps(steps, begin, end, span, inputs, strides, row, head, length, height, SOFTPLUS,
                REVERSED, COLUMNS, Q, EXACT)  # fmt: skip
    channel, column = tile * P + tl.arange(0, P), tl.arange(0, N)
    inside = (channel < head_dim)[:, None] & (column < d_state)[None, :]
    at = channel[:, None] * d_state + column[None, :]
    size, visit = head_dim * d_state, tl.arange(0, Q)
    state, passed = tl.zeros((P, N), tl.float32), 1.0
    if initial is not None:  # noqa: SIM102  (known when it is compiled)
        if segment == 0:
            state += tl.load(initial + (row * heads + head) * size + at, mask=inside, other=0.0)
    for chunk in range(begin, end):
        first = chunk * Q
        if kept is not None:
            where = ((row * chunks + chunk) * heads + head) * size
            tl.store(kept + where + at, state, mask=inside)
        token, live = find_tokens(first + visit, length, height, row, mask, REVERSED, COLUMNS)
        X = load_rows(x, token, x_token, live, head_dim - tile * P, TYPE, P)
        Bs = load_rows(B, token, B_token, live, d_state, TYPE, N)
        sums = load_sums(steps, first, span, Q, EXACT)
        seq, before, last = find_sequences(first, token, length, height, row, seq_idx, REVERSED, COLUMNS, Q)
        decay = tl.exp2(sums[2])
        if seq_idx is not None:
            # a state that is left behind may be NaN
            state = tl.where(last == before, state, 0.0)
            decay = tl.where(last == before, decay, 0.0)
        passed *= decay
        fed_by = tl.load(steps + first + visit) * tl.load(steps + span + first + visit)
        state = pass_on(state, X, Bs, fed_by, decay, seq == last, seq_idx is not None, PRECISION)
    if ends is not None:
        place = (row * segments + segment) * heads + head
        tl.store(ends + place * size + at, state, mask=inside)
        tl.store(decays + place, passed)


@triton.jit
def _gradients(dy, dfinal, kept, dkept, across, dinitial, steps, place, inputs, strides, length,
               height, heads, per_group, head_dim, d_state, SOFTPLUS: tl.constexpr,
               REVERSED: tl.constexpr, COLUMNS: tl.constexpr, TYPE: tl.constexpr,
               PRECISION: tl.constexpr, EXACT: tl.constexpr, Q: tl.constexpr, P: tl.constexpr,
               N: tl.constexpr, STAGES: tl.constexpr):  # fmt: skip
    """From the end on, gradients (P, N) of a tile of a head's state after each chunk, and of its first."""
    C, seq_idx, mask = inputs[4], inputs[7], inputs[8]
    C_row, C_token, C_group = strides[9], strides[10], strides[11]
    row, head, tile = place[0], place[1], place[2]
    dy += (row * length * heads + head) * head_dim + tile * P
    C += row * C_row + head // per_group * C_group
    tiles, chunks = tl.cdiv(head_dim, P), tl.cdiv(length, Q)
    span = chunks * Q
    across += ((row * heads + head) * tiles + tile) * chunks
    steps += ((row * heads + head) * tiles + tile) * (4 if EXACT else 3) * span
    channel, column = tile * P + tl.arange(0, P), tl.arange(0, N)
    inside = (channel < head_dim)[:, None] & (column < d_state)[None, :]
    at = channel[:, None] * d_state + column[None, :]
    size, visit = head_dim * d_state, tl.arange(0, Q)
    gradient = tl.zeros((P, N), tl.float32)
    if dfinal is not None:
        gradient += tl.load(dfinal + (row * heads + head) * size + at, mask=inside, other=0.0)
    # stages of all loads, also of those that no product takes
    for back in tl.range(chunks, num_stages=STAGES):
        chunk = chunks - 1 - back
        first = chunk * Q
        where = ((row * chunks + chunk) * heads + head) * size
        tl.store(dkept + where + at, gradient, mask=inside)
        before_it = tl.load(kept + where + at, mask=inside, other=0.0).to(tl.float32)
        token, live = find_tokens(first + visit, length, height, row, mask, REVERSED, COLUMNS)
        dY = load_rows(dy, token, heads * head_dim, live, head_dim - tile * P, TYPE, P)
        Cs = load_rows(C, token, C_token, live, d_state, TYPE, N)
        coarse, fine, total = load_sums(steps, first, span, Q, EXACT)
        seq, before, last = find_sequences(first, token, length, height, row, seq_idx, REVERSED, COLUMNS, Q)
        decay = tl.exp2(total)
        if seq_idx is not None:
            gradient = tl.where(last == before, gradient, 0.0)
        gradient *= decay
        tl.store(across + chunk, tl.sum(tl.sum(before_it * gradient, 1), 0))
        heard = tl.trans(dY.to(tl.float32)) * tl.exp2(coarse + fine)[None, :]
        if seq_idx is not None:
            heard = tl.where((seq == before)[None, :], heard, 0.0)
            Cs = tl.where((seq == before)[:, None], Cs, 0.0).to(TYPE)
        gradient = tl.dot(heard.to(TYPE), Cs, acc=gradient, input_precision=PRECISION)
    if dinitial is not None:
        tl.store(dinitial + (row * heads + head) * size + at, gradient, mask=inside)


@triton.jit(do_not_specialize=["length", "segments", "per_segment"])
def ssd_segments_kernel(ends, decays, steps, initial, segments, per_segment, inputs, strides,
                        length, height, heads, per_group, head_dim: tl.constexpr,
                        d_state: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSED: tl.constexpr,
                        COLUMNS: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
                        EXACT: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr):  # fmt: skip
    """What each segment but the last makes of no state, and the decay of one through it."""
    place = find_place(tl.program_id(0), heads, head_dim, segments, P)
    _states(None, ends, decays, steps, initial, place, segments, per_segment, inputs, strides,
            length, height, heads, per_group, head_dim, d_state, SOFTPLUS, REVERSED, COLUMNS,
            TYPE, PRECISION, EXACT, Q, P, N)  # fmt: skip


@triton.jit(do_not_specialize=["length"])
def ssd_sweeps_kernel(kept, dkept, across, steps, dy, dfinal, initial, dinitial, inputs,
                      strides, length, height, heads, per_group, head_dim: tl.constexpr,
                      d_state: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSED: tl.constexpr,
                      COLUMNS: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
                      EXACT: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
                      STAGES: tl.constexpr):  # fmt: skip
    """States before all chunks, then on the way back gradients of those after them, and what a state and its
    gradient weigh together, with the decay in between."""
    place = find_place(tl.program_id(0), heads, head_dim, 1, P)
    _states(kept, None, None, steps, initial, place, 1, tl.cdiv(length, Q), inputs, strides,
            length, height, heads, per_group, head_dim, d_state, SOFTPLUS, REVERSED, COLUMNS,
            TYPE, PRECISION, EXACT, Q, P, N)  # fmt: skip
    # other threads read the states
    tl.debug_barrier()
    _gradients(dy, dfinal, kept, dkept, across, dinitial, steps, place, inputs, strides, length,
               height, heads, per_group, head_dim, d_state, SOFTPLUS, REVERSED, COLUMNS, TYPE,
               PRECISION, EXACT, Q, P, N, STAGES)  # fmt: skip


def run_segments(
    scan: Scan, steps: Tensor, initial_state: Tensor | None, segments: int, per_segment: int
) -> tuple[Tensor, Tensor]:
    """The state that each of some segments leaves (B, segments, H, P, N), and the decays through them."""
    batch, _, heads, head_dim, d_state, _ = scan.sizes
    like = scan.inputs[2]
    ends = like.new_empty(batch, segments, heads, head_dim, d_state, dtype=torch.float32)
    decays = like.new_empty(batch, segments, heads, dtype=torch.float32)
    launch(
        ssd_segments_kernel, (batch * segments * heads * scan.tiles,), ends, decays, steps,
        initial_state, segments, per_segment, *scan.arguments, **scan.constants, P=scan.tile,
    )  # fmt: skip
    return ends, decays


def run_sweeps(
    scan: Scan, dy: Tensor, dfinal: Tensor | None, initial: Tensor | None, dinitial: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States before all chunks (B, chunks, H, P, N), gradients of those after them, in the products' dtype;
    their sums of products (B, H, tiles, chunks); and the steps that each tile wrote."""
    batch, _, heads, head_dim, d_state, _ = scan.sizes
    size = (batch, scan.chunks, heads, head_dim, d_state)
    kept, dkept = dy.new_empty(size, dtype=scan.kind), dy.new_empty(size, dtype=scan.kind)
    across = dy.new_empty(batch, heads, scan.tiles, scan.chunks, dtype=torch.float32)
    steps = scan.room_for_steps()
    launch(
        ssd_sweeps_kernel, (batch * heads * scan.tiles,), kept, dkept, across, steps, dy, dfinal, initial,
        dinitial if dinitial.numel() else None, *scan.arguments, **scan.constants, P=scan.tile,
        STAGES=scan.constants["num_stages"],
    )  # fmt: skip
    return kept, dkept, across, steps
