"""Gradients of Mamba-2's scan in Triton: a sweep over the states and back, then all chunks twice."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.ssd_chunk import (
    Scan,
    decays_within,
    find_sequences,
    find_tokens,
    load_raw,
    load_rows,
    load_sums,
    programs_for,
)
from cobra.kernels.triton.ssd_states import run_sweeps


@triton.jit
def _find_block(blocks, per_block, length, heads, per_group, Q: tl.constexpr):
    """Group and block of heads of a program, its chunk, the row, the chunk in it; first head, and end."""
    groups, program = heads // per_group, tl.program_id(0)
    block, group, of_chunk = program % blocks, program // blocks % groups, program // (blocks * groups)
    chunks, start = tl.cdiv(length, Q), group * per_group + block * per_block
    end = tl.minimum(start + per_block, (group + 1) * per_group)
    return group, block, of_chunk, (of_chunk // chunks).to(tl.int64), of_chunk % chunks, start, end


@triton.jit(do_not_specialize=["length", "blocks", "per_block"])
def ssd_pairs_kernel(dx, dscores, parts, sums, dy, dkept, across, steps, blocks, per_block, inputs,
                     strides, length, height, heads, per_group, head_dim: tl.constexpr,
                     d_state: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSED: tl.constexpr,
                     COLUMNS: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
                     EXACT: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
                     TILES: tl.constexpr):  # fmt: skip
    """What hears each token, in its chunk and after it: dx, parts of ddt and of the gradients of decays, and
    those of C B^T, summed over a block of heads of a group in registers.

    Pairs of tokens have what is heard in rows and what hears it in columns.
    """
    x, B, C, D, seq_idx, mask = inputs[0], inputs[3], inputs[4], inputs[5], inputs[7], inputs[8]
    x_row, x_token, x_head = strides[0], strides[1], strides[2]
    B_row, B_token, B_group = strides[6], strides[7], strides[8]
    C_row, C_token, C_group = strides[9], strides[10], strides[11]
    group, _, of_chunk, row, chunk, start, end = _find_block(blocks, per_block, length, heads, per_group, Q)
    chunks, groups = tl.cdiv(length, Q), heads // per_group
    all_chunks = (tl.num_programs(0) // (blocks * groups)).to(tl.int64)
    first, visit, channel, column = chunk * Q, tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    token, live = find_tokens(first + visit, length, height, row, mask, REVERSED, COLUMNS)
    seq, _, last = find_sequences(first, token, length, height, row, seq_idx, REVERSED, COLUMNS, Q)
    Bs = load_rows(B + row * B_row + group * B_group, token, B_token, live, d_state, TYPE, N)
    Cs = load_rows(C + row * C_row + group * C_group, token, C_token, live, d_state, TYPE, N)
    inside = (channel < head_dim)[:, None] & (column < d_state)[None, :]
    at, size = channel[:, None] * d_state + column[None, :], head_dim * d_state
    places, span = row * length + token, chunks * Q
    scores = tl.dot(Bs, tl.trans(Cs), input_precision=PRECISION)
    earlier = tl.where(visit[:, None] > visit[None, :], 1.0, 0.0).to(TYPE)
    weights = tl.zeros((Q, Q), tl.float32)
    for head in range(start, end):
        # of this head, and as floats: masks that are the same for all are kept in registers, 32 a thread each
        at_visit = (head + visit).to(tl.float32)
        itself, hears = at_visit[:, None] == at_visit[None, :], at_visit[:, None] <= at_visit[None, :]
        if seq_idx is not None:
            hears = hears & (seq[:, None] == seq[None, :])
        X = load_rows(x + row * x_row + head * x_head, token, x_token, live, head_dim, TYPE, P)
        dY = load_rows(dy + head * head_dim, places, heads * head_dim, live, head_dim, TYPE, P)
        mine = steps + (row * heads + head) * TILES * (4 if EXACT else 3) * span
        sums_of = load_sums(mine, first, span, Q, EXACT)
        step, to_end = tl.load(mine + first + visit), tl.load(mine + span + first + visit)
        if seq_idx is not None:
            to_end = tl.where(seq == last, to_end, 0.0)
        # 1. gradients of pairs
        dheard = tl.dot(X, tl.trans(dY), input_precision=PRECISION)
        own = tl.sum(tl.sum(tl.where(itself, dheard, 0.0), 1), 0)
        tl.store(sums + (all_chunks + of_chunk) * heads + head, own)
        within = decays_within(-sums_of[0], -sums_of[1], hears, EXACT)
        dheard *= within
        heard = scores * within * step[:, None]
        if D is not None:
            heard = tl.where(itself, heard + tl.load(D + head).to(tl.float32), heard)
        heard = heard.to(TYPE)
        weights += dheard * step[:, None]
        dheard *= scores
        of_step = tl.sum(dheard, 1)
        # a decay weighs the pairs on either side of it: no sums cancel
        passed = tl.where(itself, 0.0, dheard * step[:, None]).to(TYPE)
        passed = tl.dot(earlier, passed, input_precision=PRECISION)
        # loaded no earlier: where tl.trans is done in registers it would be kept there
        where = ((row * chunks + chunk) * heads + head) * size
        dE = tl.load(dkept + where + at, mask=inside, other=0.0)
        passed = tl.sum(tl.where(at_visit[:, None] <= at_visit[None, :], passed, 0.0), 1)
        # 2. dx
        dX = tl.dot(Bs, tl.trans(dE), input_precision=PRECISION) * to_end[:, None]
        into = tl.sum(dX * X, 1)
        dX = tl.dot(heard, dY, acc=dX * step[:, None], input_precision=PRECISION)
        dx_rows = dx + head * head_dim + places[:, None] * (heads * head_dim) + channel[None, :]
        tl.store(dx_rows, dX, mask=(first + visit < length)[:, None] & (channel < head_dim)[None, :])
        # 3. and what earlier tokens leave to later chunks, or passes over the whole one
        passed += tl.cumsum(into * step, 0) - into * step
        for tile in tl.static_range(TILES):
            passed += tl.load(across + ((row * heads + head) * TILES + tile) * chunks + chunk)
        here = parts + (row * heads + head) * 2 * span + first + visit
        tl.store(here, of_step + into)
        tl.store(here + span, passed)
    pairs = tl.program_id(0).to(tl.int64) * (Q * Q) + visit[:, None] * Q + visit[None, :]
    tl.store(dscores + pairs, weights)


@triton.jit(do_not_specialize=["length", "blocks", "per_block"])
def ssd_rows_kernel(ddt, dB, dC, dscores, parts, sums, dy, kept, dkept, steps, blocks, per_block, inputs,
                    strides, length, height, heads, per_group, head_dim: tl.constexpr,
                    d_state: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSED: tl.constexpr,
                    COLUMNS: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
                    EXACT: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
                    TILES: tl.constexpr):  # fmt: skip
    """dB of a chunk, or its dC with ddt and the chunk's part of dA and of dt_bias's gradient. dB and dC are
    summed over a block of heads of a group in registers."""
    x, A, B, C, seq_idx, mask = inputs[0], inputs[2], inputs[3], inputs[4], inputs[7], inputs[8]
    x_row, x_token, x_head = strides[0], strides[1], strides[2]
    B_row, B_token, B_group = strides[6], strides[7], strides[8]
    C_row, C_token, C_group = strides[9], strides[10], strides[11]
    group, block, of_chunk, row, chunk, start, end = _find_block(
        blocks, per_block, length, heads, per_group, Q
    )
    chunks, groups = tl.cdiv(length, Q), heads // per_group
    all_chunks = (tl.num_programs(0) // (blocks * groups)).to(tl.int64)
    first, visit, channel, column = chunk * Q, tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    token, live = find_tokens(first + visit, length, height, row, mask, REVERSED, COLUMNS)
    seq, before, last = find_sequences(first, token, length, height, row, seq_idx, REVERSED, COLUMNS, Q)
    there = first + visit < length
    inside = (channel < head_dim)[:, None] & (column < d_state)[None, :]
    at, size = channel[:, None] * d_state + column[None, :], head_dim * d_state
    places, span = row * length + token, chunks * Q
    rows = ((block * (all_chunks // chunks) * length + places) * groups + group)[:, None] * d_state
    rows, wanted = rows + column[None, :], there[:, None] & (column < d_state)[None, :]
    pairs = tl.program_id(0).to(tl.int64) * (Q * Q) + visit[:, None] * Q + visit[None, :]
    Cs = load_rows(C + row * C_row + group * C_group, token, C_token, live, d_state, TYPE, N)
    weights = tl.load(dscores + pairs)
    if tl.program_id(1) == 0:
        total = tl.dot(weights, Cs, input_precision=PRECISION)
        for head in range(start, end):
            X = load_rows(x + row * x_row + head * x_head, token, x_token, live, head_dim, TYPE, P)
            where = ((row * chunks + chunk) * heads + head) * size
            dE = tl.load(dkept + where + at, mask=inside, other=0.0)
            mine = steps + (row * heads + head) * TILES * (4 if EXACT else 3) * span
            fed_by = tl.load(mine + first + visit) * tl.load(mine + span + first + visit)
            if seq_idx is not None:
                fed_by = tl.where(seq == last, fed_by, 0.0)
            total = tl.dot((X * fed_by[:, None]).to(TYPE), dE, acc=total, input_precision=PRECISION)
        tl.store(dB + rows, tl.where(live[:, None], total, 0.0), mask=wanted)
    else:
        Bs = load_rows(B + row * B_row + group * B_group, token, B_token, live, d_state, TYPE, N)
        total = tl.dot(tl.trans(weights), Bs, input_precision=PRECISION)
        for head in range(start, end):
            dY = load_rows(dy + head * head_dim, places, heads * head_dim, live, head_dim, TYPE, P)
            where = ((row * chunks + chunk) * heads + head) * size
            S = tl.load(kept + where + at, mask=inside, other=0.0)
            mine = steps + (row * heads + head) * TILES * (4 if EXACT else 3) * span
            sums_of = load_sums(mine, first, span, Q, EXACT)
            from_start = tl.exp2(sums_of[0] + sums_of[1])
            if seq_idx is not None:
                from_start = tl.where(seq == before, from_start, 0.0)
            total = tl.dot((dY * from_start[:, None]).to(TYPE), S, acc=total, input_precision=PRECISION)
            out_of = tl.sum(tl.dot(Cs, tl.trans(S), input_precision=PRECISION) * dY, 1) * from_start
            here = parts + (row * heads + head) * 2 * span + first + visit
            ddecay = tl.cumsum(out_of, 0, reverse=True) + tl.load(here + span)
            dstep = ddecay * tl.load(A + head).to(tl.float32) + tl.load(here)
            dstep = tl.where(live, dstep, 0.0)
            if SOFTPLUS:
                dstep /= 1.0 + tl.exp(-load_raw(inputs, strides, row, head, token, live))
            tl.store(ddt + places * heads + head, dstep, mask=there)
            sum_at = sums + of_chunk.to(tl.int64) * heads + head
            tl.store(sum_at, tl.sum(ddecay * tl.load(mine + first + visit), 0))
            tl.store(sum_at + all_chunks * 2 * heads, tl.sum(dstep, 0))
        tl.store(dC + rows, tl.where(live[:, None], total, 0.0), mask=wanted)


def run_backward(scan: Scan, dy: Tensor, dfinal: Tensor | None, initial: Tensor | None) -> list[Tensor]:
    """Gradients of x, dt, A, B, C, D, dt_bias and the first state; of absent ones empty."""
    dt, B, C = scan.inputs[1], scan.inputs[3], scan.inputs[4]
    batch, length, heads, head_dim, d_state, per_group = scan.sizes
    dinitial = dy.new_empty(0 if initial is None else initial.shape, dtype=torch.float32)
    kept, dkept, across, steps = run_sweeps(scan, dy, dfinal, initial, dinitial)
    groups = heads // max(per_group, 1)
    programs = batch * scan.chunks * groups
    blocks, per_block = blocks_of(programs, per_group)
    # one block writes gradients as they are, several write parts of their sums
    dB, dC = (
        dy.new_empty(blocks, batch, length, groups, d_state, dtype=m.dtype if blocks == 1 else torch.float32)
        for m in (B, C)
    )
    dx, ddt = dy.new_empty(batch, length, heads, head_dim), dt.new_empty(dt.shape)
    parts = dy.new_empty(batch, heads, 2, scan.chunks * scan.chunk, dtype=torch.float32)
    sums = dy.new_empty(3, batch * scan.chunks, heads, dtype=torch.float32)
    dscores = dy.new_empty(programs * blocks, scan.chunk, scan.chunk, dtype=scan.kind)
    options = {**scan.constants, "P": scan.padded, "TILES": scan.tiles}
    launch(
        ssd_pairs_kernel, (programs * blocks,), dx, dscores, parts, sums, dy, dkept, across, steps, blocks,
        per_block, *scan.arguments, **options,
    )  # fmt: skip
    launch(
        ssd_rows_kernel, (programs * blocks, 2), ddt, dB, dC, dscores, parts, sums, dy, kept, dkept, steps,
        blocks, per_block, *scan.arguments, **options,
    )  # fmt: skip
    dA, dD, dbias = sums.sum(1)
    dB, dC = (m[0] if blocks == 1 else m.sum(0) for m in (dB, dC))
    return [dx, ddt, dA, dB, dC, dD, dbias, dinitial]


def blocks_of(programs: int, per_group: int) -> tuple[int, int]:
    """Into how many blocks the heads of a group are cut, and the heads of each, where `programs` take all."""
    wanted = max(1, min(programs_for(programs), per_group))
    per_block = max(1, -(-per_group // wanted))
    return max(1, -(-per_group // per_block)), per_block
