"""Gradients of Mamba-2's scan in Triton: two sweeps over the states in one launch, then all chunks at once."""

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
)
from cobra.kernels.triton.ssd_states import run_sweeps


@triton.jit(do_not_specialize=["length"])
def ssd_backward_kernel(dx, ddt, dB, dC, sums, dy, kept, dkept, steps, blocks, per_block, tiles, inputs, strides, length,
                        height, heads, head_dim, d_state, per_group, SOFTPLUS: tl.constexpr,
                        REVERSED: tl.constexpr, COLUMNS: tl.constexpr, TYPE: tl.constexpr,
                        PRECISION: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr):  # fmt: skip
    """All gradients of a chunk by a block of heads of a group, whose dB and dC are summed up in registers."""
    x, _, A, B, C, D, _, seq_idx, mask = inputs
    x_row, x_token, x_head, _, _, _, B_row, B_token, B_group, C_row, C_token, C_group = strides
    chunks, groups = tl.cdiv(length, Q), heads // per_group
    block, group = tl.program_id(0) % blocks, tl.program_id(0) // blocks % groups
    chunk, row = tl.program_id(0) // (blocks * groups) % chunks, tl.program_id(0) // (blocks * groups * chunks)
    row = row.to(tl.int64)
    first, visit, channel, column = chunk * Q, tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    token, live = find_tokens(first + visit, length, height, row, mask, REVERSED, COLUMNS)
    seq, before, last = find_sequences(first, token, length, height, row, seq_idx, REVERSED, COLUMNS, Q)
    Bs = load_rows(B + row * B_row + group * B_group, token, B_token, live, d_state, TYPE, N)
    Cs = load_rows(C + row * C_row + group * C_group, token, C_token, live, d_state, TYPE, N)
    there = first + visit < length
    hears, itself = visit[:, None] >= visit[None, :], visit[:, None] == visit[None, :]
    if seq_idx is not None:
        hears = hears & (seq[:, None] == seq[None, :])
    scores = tl.dot(Cs, tl.trans(Bs), input_precision=PRECISION)
    own_scores = tl.sum(tl.where(itself, scores, 0.0), 0)
    inside = (channel < head_dim)[:, None] & (column < d_state)[None, :]
    at, size = channel[:, None] * d_state + column[None, :], head_dim * d_state
    places = row * length + token
    dscores = tl.zeros((Q, Q), tl.float32)
    dBs, dCs = tl.zeros((Q, N), tl.float32), tl.zeros((Q, N), tl.float32)
    start = group * per_group + block * per_block
    for head in range(start, tl.minimum(start + per_block, (group + 1) * per_group)):
        where = ((row * chunks + chunk) * heads + head) * size
        X = load_rows(x + row * x_row + head * x_head, token, x_token, live, head_dim, TYPE, P)
        dY = load_rows(dy + head * head_dim, places, heads * head_dim, live, head_dim, TYPE, P)
        S = tl.load(kept + where + at, mask=inside, other=0.0)
        dE = tl.load(dkept + where + at, mask=inside, other=0.0)
        mine = steps + (row * heads + head) * tiles * 3 * chunks * Q
        step = tl.load(mine + first + visit)
        coarse, fine, coarse_total, fine_total = load_sums(mine, first, chunks * Q, Q)
        from_start, to_end = (
            tl.exp2(coarse + fine),
            tl.exp2((coarse_total - coarse) + (fine_total - fine)),
        )
        over = tl.exp2(coarse_total + fine_total)
        if seq_idx is not None:
            over = tl.where(last == before, over, 0.0)
        # 1. within the chunk
        within = decays_within(coarse, fine, hears)
        weights = scores * within
        dheard = tl.dot(dY, tl.trans(X), input_precision=PRECISION)
        own = tl.sum(tl.where(itself, dheard, 0.0), 0)
        dscores += dheard * within * step[None, :]
        # by the time step of the token that is heard; of itself nothing decays
        others = tl.where(itself, 0.0, dheard * weights)
        of_steps = tl.sum(others, 0)
        of_sums = tl.sum(others * step[None, :], 1) - of_steps * step
        heard = weights * step[None, :]
        if D is not None:
            heard = tl.where(itself, heard + tl.load(D + head).to(tl.float32), heard)
        # 2. from the state before the chunk
        from_state = tl.dot(dY, S, input_precision=PRECISION) * from_start[:, None]
        if seq_idx is not None:
            from_state = tl.where((seq == before)[:, None], from_state, 0.0)
        dCs += from_state
        of_sums += tl.sum(from_state * Cs, 1)
        # 3. into the state after it
        to_state = tl.dot(X, dE, input_precision=PRECISION) * to_end[:, None]
        dX = tl.dot(Bs, tl.trans(dE), input_precision=PRECISION) * (to_end * step)[:, None]
        if seq_idx is not None:
            to_state = tl.where((seq == last)[:, None], to_state, 0.0)
            dX = tl.where((seq == last)[:, None], dX, 0.0)
        dBs += to_state * step[:, None]
        of_input = tl.sum(to_state * Bs, 1)
        of_sums -= of_input * step
        dX = tl.dot(tl.trans(heard).to(TYPE), dY, acc=dX, input_precision=PRECISION)
        dx_rows = dx + head * head_dim + places[:, None] * (heads * head_dim) + channel[None, :]
        tl.store(dx_rows, dX, mask=there[:, None] & (channel < head_dim)[None, :])
        # 4. the decays: each weighs what passes over it, within the chunk, into it, out of it and across it
        across = over * tl.sum(tl.sum(S.to(tl.float32) * dE.to(tl.float32), 1), 0)
        ddecay = tl.cumsum(of_sums, 0, reverse=True) + (tl.sum(of_input * step, 0) + across)
        dstep = ddecay * tl.load(A + head).to(tl.float32) + of_steps + own * own_scores + of_input
        dstep = tl.where(live, dstep, 0.0)
        if SOFTPLUS:
            dstep /= 1.0 + tl.exp(-load_raw(inputs, strides, row, head, token, live))
        tl.store(ddt + places * heads + head, dstep, mask=there)
        part = (row * chunks + chunk) * heads + head
        parts = tl.num_programs(0).to(tl.int64) // (blocks * groups) * heads
        tl.store(sums + part, tl.sum(ddecay * step, 0))
        tl.store(sums + parts + part, tl.sum(own, 0))
        tl.store(sums + 2 * parts + part, tl.sum(dstep, 0))
    dscores = dscores.to(TYPE)
    dBs = tl.dot(tl.trans(dscores), Cs, acc=dBs, input_precision=PRECISION)
    dCs = tl.dot(dscores, Bs, acc=dCs, input_precision=PRECISION)
    tokens = (tl.num_programs(0) // (blocks * groups * chunks)).to(tl.int64) * length
    rows = ((block * tokens + places) * groups + group)[:, None] * d_state + column[None, :]
    inside = there[:, None] & (column < d_state)[None, :]
    tl.store(dB + rows, tl.where(live[:, None], dBs, 0.0), mask=inside)
    tl.store(dC + rows, tl.where(live[:, None], dCs, 0.0), mask=inside)


# bytes of states and of their gradients at most, of which as many rows of the batch are taken at once
_ROOM = 1 << 30
# programs that keep a GPU busy: two for each of 132 multiprocessors
_PROGRAMS = 264


def run_backward(scan: Scan, dy: Tensor, dfinal: Tensor | None, initial: Tensor | None) -> list[Tensor]:
    """Gradients of x, dt, A, B, C, D, dt_bias and the first state; of absent ones empty."""
    x, dt, A, B, C, D, dt_bias, *_ = scan.inputs
    assert x is not None and dt is not None and A is not None and B is not None and C is not None
    batch, length, heads, head_dim, d_state, per_group = scan.sizes
    dinitial = None if initial is None else dy.new_empty(initial.shape, dtype=torch.float32)
    if initial is not None:
        initial = initial.contiguous()
    kept, dkept, steps = run_sweeps(scan, dy, dfinal, initial, dinitial)
    groups = heads // max(per_group, 1)
    blocks, per_block = blocks_of(batch * scan.chunks * groups, per_group)
    # one block writes gradients as they are, several write parts of their sums
    dB, dC = (
        dy.new_empty(blocks, batch, length, groups, d_state, dtype=m.dtype if blocks == 1 else torch.float32)
        for m in (B, C)
    )
    dx, ddt = dy.new_empty(x.shape), dt.new_empty(dt.shape)
    sums = dy.new_empty(3, batch * scan.chunks, heads, dtype=torch.float32)
    launch(
        ssd_backward_kernel, (batch * scan.chunks * groups * blocks,), dx, ddt, dB, dC, sums, dy, kept, dkept,
        steps, blocks, per_block, scan.tiles, *scan.arguments, **scan.constants, P=scan.padded, num_warps=8,
    )  # fmt: skip
    dA, dD, dbias = sums.sum(1)
    dB, dC = (m[0] if blocks == 1 else m.sum(0) for m in (dB, dC))
    absent = dy.new_empty(0, dtype=torch.float32)
    return [
        dx,
        ddt,
        dA,
        dB,
        dC,
        absent if D is None else dD,
        absent if dt_bias is None else dbias,
        absent if dinitial is None else dinitial,
    ]


def blocks_of(programs: int, per_group: int) -> tuple[int, int]:
    """Into how many blocks the heads of a group are cut, and the heads of each, where `programs` take all."""
    wanted = max(1, min(-(-_PROGRAMS // max(programs, 1)), per_group))
    per_block = -(-per_group // wanted)
    return max(1, -(-per_group // max(per_block, 1))), per_block
