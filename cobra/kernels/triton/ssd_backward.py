"""Gradients of Mamba-2's scan in Triton: a sweep over the states and back, then all chunks."""

import torch
from torch import Tensor

import triton
import triton.language as tl
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


@triton.jit(do_not_specialize=["length", "blocks", "per_block"])
def ssd_backward_kernel(dx, ddt, dB, dC, sums, parts, dy, kept, dkept, across, steps, blocks,
                        per_block, inputs, strides, length, height, heads, per_group,
                        head_dim: tl.constexpr, d_state: tl.constexpr, SOFTPLUS: tl.constexpr,
                        REVERSED: tl.constexpr, COLUMNS: tl.constexpr, TYPE: tl.constexpr,
                        PRECISION: tl.constexpr, EXACT: tl.constexpr, Q: tl.constexpr,
                        P: tl.constexpr, N: tl.constexpr, TILES: tl.constexpr):  # fmt: skip
    """All gradients of a chunk by a block of heads of a group, whose dB and dC are summed up in registers.

    Its heads twice: first for what was heard (dx, dB), then for what hears (dC), and with both the decays.
    """
    x, A, B, C, D, seq_idx, mask = inputs[0], inputs[2], inputs[3], inputs[4], inputs[5], inputs[7], inputs[8]
    x_row, x_token, x_head = strides[0], strides[1], strides[2]
    B_row, B_token, B_group = strides[6], strides[7], strides[8]
    C_row, C_token, C_group = strides[9], strides[10], strides[11]
    chunks, groups = tl.cdiv(length, Q), heads // per_group
    block, group = tl.program_id(0) % blocks, tl.program_id(0) // blocks % groups
    of_chunk, all_chunks = tl.program_id(0) // (blocks * groups), tl.num_programs(0) // (blocks * groups)
    chunk, row = of_chunk % chunks, (of_chunk // chunks).to(tl.int64)
    first, visit, channel, column = chunk * Q, tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    token, live = find_tokens(first + visit, length, height, row, mask, REVERSED, COLUMNS)
    seq, before, last = find_sequences(first, token, length, height, row, seq_idx, REVERSED, COLUMNS, Q)
    there = first + visit < length
    Bs = load_rows(B + row * B_row + group * B_group, token, B_token, live, d_state, TYPE, N)
    Cs = load_rows(C + row * C_row + group * C_group, token, C_token, live, d_state, TYPE, N)
    itself = visit[:, None] == visit[None, :]
    inside = (channel < head_dim)[:, None] & (column < d_state)[None, :]
    at, size = channel[:, None] * d_state + column[None, :], head_dim * d_state
    places, span = row * length + token, chunks * Q
    start = group * per_group + block * per_block
    end = tl.minimum(start + per_block, (group + 1) * per_group)

    # 1. by what is heard, in rows, of what hears it, in columns
    scores = tl.dot(Bs, tl.trans(Cs), input_precision=PRECISION)
    own_scores = tl.sum(tl.where(itself, scores, 0.0), 1)
    dBs = tl.zeros((Q, N), tl.float32)
    for head in range(start, end):
        where = ((row * chunks + chunk) * heads + head) * size
        # of this head, and as floats: masks that are the same for all are kept in registers, 32 a thread each
        at_visit = (head + visit).to(tl.float32)
        itself, hears = at_visit[:, None] == at_visit[None, :], at_visit[:, None] <= at_visit[None, :]
        if seq_idx is not None:
            hears = hears & (seq[:, None] == seq[None, :])
        X = load_rows(x + row * x_row + head * x_head, token, x_token, live, head_dim, TYPE, P)
        dY = load_rows(dy + head * head_dim, places, heads * head_dim, live, head_dim, TYPE, P)
        dE = tl.load(dkept + where + at, mask=inside, other=0.0)
        mine = steps + (row * heads + head) * TILES * (4 if EXACT else 3) * span
        sums_of = load_sums(mine, first, span, Q, EXACT)
        coarse, fine = sums_of[0], sums_of[1]
        step, to_end = tl.load(mine + first + visit), tl.load(mine + span + first + visit)
        if seq_idx is not None:
            to_end = tl.where(seq == last, to_end, 0.0)
        dheard = tl.dot(X, tl.trans(dY), input_precision=PRECISION)
        within = decays_within(-coarse, -fine, hears, EXACT)
        dscores = (dheard * within * step[:, None]).to(TYPE)
        dBs = tl.dot(dscores, Cs, acc=dBs, input_precision=PRECISION)
        own = tl.sum(tl.where(itself, dheard, 0.0), 1)
        of_step = tl.sum(tl.where(itself, 0.0, dheard * within * scores), 1)
        dX = tl.dot(Bs, tl.trans(dE), input_precision=PRECISION) * to_end[:, None]
        into = tl.sum(dX * X, 1)
        heard = scores * within * step[:, None]
        if D is not None:
            heard = tl.where(itself, heard + tl.load(D + head).to(tl.float32), heard)
        dX = tl.dot(heard.to(TYPE), dY, acc=dX * step[:, None], input_precision=PRECISION)
        fed = (X * (to_end * step)[:, None]).to(TYPE)
        dBs = tl.dot(fed, dE, acc=dBs, input_precision=PRECISION)
        dx_rows = dx + head * head_dim + places[:, None] * (heads * head_dim) + channel[None, :]
        tl.store(dx_rows, dX, mask=there[:, None] & (channel < head_dim)[None, :])
        across_it = 0.0
        for tile in tl.static_range(TILES):
            across_it += tl.load(across + ((row * heads + head) * TILES + tile) * chunks + chunk)
        # a decay weighs all that passes over it: here what earlier tokens leave to later chunks
        here = parts + (row * heads + head) * 2 * span + first + visit
        tl.store(here, of_step + own * own_scores + into)
        tl.store(here + span, tl.cumsum(into * step, 0) - into * step + across_it)
        tl.store(sums + (all_chunks + of_chunk).to(tl.int64) * heads + head, tl.sum(own, 0))
    rows = ((block * (all_chunks // chunks) * length + places) * groups + group)[:, None] * d_state
    rows, wanted = rows + column[None, :], there[:, None] & (column < d_state)[None, :]
    tl.store(dB + rows, tl.where(live[:, None], dBs, 0.0), mask=wanted)
    # other threads read the parts
    tl.debug_barrier()

    later = tl.where(visit[:, None] <= visit[None, :], 1.0, 0.0).to(TYPE)
    # 2. by what hears, in rows, of what is heard, in columns
    scores = tl.dot(Cs, tl.trans(Bs), input_precision=PRECISION)
    dscores, dCs = tl.zeros((Q, Q), tl.float32), tl.zeros((Q, N), tl.float32)
    for head in range(start, end):
        where = ((row * chunks + chunk) * heads + head) * size
        at_visit = (head + visit).to(tl.float32)
        itself, hears = at_visit[:, None] == at_visit[None, :], at_visit[:, None] >= at_visit[None, :]
        if seq_idx is not None:
            hears = hears & (seq[:, None] == seq[None, :])
        X = load_rows(x + row * x_row + head * x_head, token, x_token, live, head_dim, TYPE, P)
        dY = load_rows(dy + head * head_dim, places, heads * head_dim, live, head_dim, TYPE, P)
        S = tl.load(kept + where + at, mask=inside, other=0.0)
        mine = steps + (row * heads + head) * TILES * (4 if EXACT else 3) * span
        sums_of = load_sums(mine, first, span, Q, EXACT)
        coarse, fine = sums_of[0], sums_of[1]
        step, from_start = tl.load(mine + first + visit), tl.exp2(coarse + fine)
        if seq_idx is not None:
            from_start = tl.where(seq == before, from_start, 0.0)
        dheard = tl.dot(dY, tl.trans(X), input_precision=PRECISION)
        dheard *= decays_within(coarse, fine, hears, EXACT) * step[None, :]
        dscores += dheard
        out_of = tl.sum(tl.dot(Cs, tl.trans(S), input_precision=PRECISION) * dY, 1) * from_start
        heard = (dY * from_start[:, None]).to(TYPE)
        dCs = tl.dot(heard, S, acc=dCs, input_precision=PRECISION)
        here = parts + (row * heads + head) * 2 * span + first + visit
        # of pairs in the chunk those on either side of it, so that no sums cancel
        pairs = tl.where(itself, 0.0, dheard * scores).to(TYPE)
        passed = tl.dot(later, pairs, input_precision=PRECISION)
        passed = tl.sum(tl.where(at_visit[:, None] > at_visit[None, :], passed, 0.0), 1)
        ddecay = tl.cumsum(out_of, 0, reverse=True) + passed + tl.load(here + span)
        dstep = ddecay * tl.load(A + head).to(tl.float32) + tl.load(here)
        dstep = tl.where(live, dstep, 0.0)
        if SOFTPLUS:
            dstep /= 1.0 + tl.exp(-load_raw(inputs, strides, row, head, token, live))
        tl.store(ddt + places * heads + head, dstep, mask=there)
        sum_at = sums + of_chunk.to(tl.int64) * heads + head
        tl.store(sum_at, tl.sum(ddecay * step, 0))
        tl.store(sum_at + all_chunks.to(tl.int64) * 2 * heads, tl.sum(dstep, 0))
    dCs = tl.dot(dscores.to(TYPE), Bs, acc=dCs, input_precision=PRECISION)
    tl.store(dC + rows, tl.where(live[:, None], dCs, 0.0), mask=wanted)


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
    launch(
        ssd_backward_kernel, (programs * blocks,), dx, ddt, dB, dC, sums, parts, dy, kept, dkept, across,
        steps, blocks, per_block, *scan.arguments, **scan.constants, P=scan.padded, TILES=scan.tiles,
    )  # fmt: skip
    dA, dD, dbias = sums.sum(1)
    dB, dC = (m[0] if blocks == 1 else m.sum(0) for m in (dB, dC))
    return [dx, ddt, dA, dB, dC, dD, dbias, dinitial]


def blocks_of(programs: int, per_group: int) -> tuple[int, int]:
    """Into how many blocks the heads of a group are cut, and the heads of each, where `programs` take all."""
    wanted = max(1, min(programs_for(programs), per_group))
    per_block = max(1, -(-per_group // wanted))
    return max(1, -(-per_group // per_block)), per_block
