"""Kernels of one token of decoding. What one program writes no other of the same launch reads. A tile of a
state has an element for each thread at least, so that none is loaded by one thread and stored by another."""

import triton
import triton.language as tl

from cobra.kernels.triton.formulas import product, silu, softplus


@triton.jit
def window_of(x, state, channel, inside, state_c, state_k, TAPS: tl.constexpr, SLOTS: tl.constexpr):
    """The last inputs of some channels (channels, SLOTS) in fp32, the new one behind those of the state."""
    slot, row, inside = tl.arange(0, SLOTS)[None, :], channel[:, None], inside[:, None]
    past = tl.load(state + row * state_c + slot * state_k, mask=inside & (slot < TAPS - 1), other=0.0)
    new = tl.load(x + row + 0 * slot, mask=inside & (slot == TAPS - 1), other=0.0)
    return past.to(tl.float32) + new.to(tl.float32)


@triton.jit
def convolved(window, weight, bias, channel, inside, BIASED: tl.constexpr, TAPS: tl.constexpr,
              SLOTS: tl.constexpr):  # fmt: skip
    """silu of the convolution of a window (channels, SLOTS), in fp32."""
    slot = tl.arange(0, SLOTS)[None, :]
    taps = tl.load(weight + channel[:, None] * TAPS + slot, mask=inside[:, None] & (slot < TAPS), other=0.0)
    total = tl.sum(window * taps.to(tl.float32), 1)
    if BIASED:
        total += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    return silu(total)


@triton.jit
def keep(window, state, channel, inside, state_c, state_k, TAPS: tl.constexpr, SLOTS: tl.constexpr):
    """Store a window as the state of its channels, without its oldest input."""
    slot = tl.arange(0, SLOTS)[None, :]
    at = state + channel[:, None] * state_c + (slot - 1) * state_k
    # until here other threads may read what is written now
    tl.debug_barrier()
    tl.store(at, window, mask=inside[:, None] & (slot > 0) & (slot < TAPS))


@triton.jit
def advanced(state, inside, decay, fed, B, C):
    """C times the state (rows, N) after a token, which is stored in its own dtype."""
    after = decay * tl.load(state, mask=inside, other=0.0).to(tl.float32) + fed * B
    tl.store(state, after, mask=inside)
    return tl.sum(after * C, 1)


@triton.jit
def state_update_kernel(state, x, dt, A, B, C, D, z, dt_bias, y, state_b, state_h, state_p, state_n,
                        x_b, x_h, x_p, dt_b, dt_h, A_h, A_n, B_b, B_g, B_n, C_b, C_g, C_n, z_b, z_h, z_p,
                        heads, head_dim, d_state, group_heads,
                        OF_CHANNELS: tl.constexpr, ONE_GROUP: tl.constexpr, SKIPS: tl.constexpr,
                        GATES: tl.constexpr, BIASED: tl.constexpr, SOFTPLUS: tl.constexpr,
                        ROWS: tl.constexpr, N_BLOCK: tl.constexpr):  # fmt: skip
    """Some rows of the state a program, (head, place in it); Mamba-1's channels are heads of one place."""
    row, n = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, N_BLOCK)[None, :]
    batch, inside = tl.program_id(1).to(tl.int64), row < heads * head_dim
    both, head, place = inside[:, None] & (n < d_state), (row // head_dim).to(tl.int64), row % head_dim
    # 1. the time step, and what it makes of the state before and of the token
    step = tl.load(dt + batch * dt_b + head * dt_h, mask=inside, other=0.0).to(tl.float32)
    if BIASED:
        step += tl.load(dt_bias + head, mask=inside, other=0.0).to(tl.float32)
    if SOFTPLUS:
        step = softplus(step)
    value = tl.load(x + batch * x_b + head * x_h + place * x_p, mask=inside, other=0.0).to(tl.float32)
    if OF_CHANNELS:
        rate = tl.load(A + head[:, None] * A_h + n * A_n, mask=both, other=0.0).to(tl.float32)
    else:
        rate = tl.load(A + head * A_h, mask=inside, other=0.0).to(tl.float32)[:, None]
    # 2. update the state
    if ONE_GROUP:
        group, seen = 0, n < d_state
    else:
        group, seen = (head // group_heads)[:, None], both
    b = tl.load(B + batch * B_b + group * B_g + n * B_n, mask=seen, other=0.0).to(tl.float32)
    c = tl.load(C + batch * C_b + group * C_g + n * C_n, mask=seen, other=0.0).to(tl.float32)
    at = state + batch * state_b + (head * state_h + place * state_p)[:, None] + n * state_n
    total = advanced(at, both, tl.exp(step[:, None] * rate), (step * value)[:, None], b, c)
    # 3. skip and gate
    if SKIPS:
        total += value * tl.load(D + head, mask=inside, other=0.0).to(tl.float32)
    if GATES:
        gate = tl.load(z + batch * z_b + head * z_h + place * z_p, mask=inside, other=0.0).to(tl.float32)
        total *= silu(gate)
    tl.store(y + batch * heads * head_dim + row, total, mask=inside)


@triton.jit
def mamba2_update_kernel(zxbcdt, conv, ssm, conv_weight, conv_bias, dt_bias, A_log, D, y,
                         zxbcdt_b, conv_b, conv_c, conv_k, ssm_b, ssm_h, ssm_p, ssm_n,
                         heads, head_dim, d_state, groups,
                         BIASED: tl.constexpr, TAPS: tl.constexpr, SLOTS: tl.constexpr,
                         P_BLOCK: tl.constexpr, N_BLOCK: tl.constexpr):  # fmt: skip
    """Some places of a head a program: they, B and C convolved, and the state updated; conv is only read."""
    parts, batch = tl.cdiv(head_dim, P_BLOCK), tl.program_id(1).to(tl.int64)
    head, place = tl.program_id(0) // parts, tl.program_id(0) % parts * P_BLOCK + tl.arange(0, P_BLOCK)
    n, inner, here = tl.arange(0, N_BLOCK), heads * head_dim, place < head_dim
    row, past = zxbcdt + batch * zxbcdt_b, conv + batch * conv_b
    # 1. convolve
    channel, seen = head * head_dim + place, n < d_state
    first = inner + head // (heads // groups) * d_state + n
    second = first + groups * d_state
    window = window_of(row + inner, past, channel, here, conv_c, conv_k, TAPS, SLOTS)
    x = convolved(window, conv_weight, conv_bias, channel, here, BIASED, TAPS, SLOTS)
    window = window_of(row + inner, past, first, seen, conv_c, conv_k, TAPS, SLOTS)
    B = convolved(window, conv_weight, conv_bias, first, seen, BIASED, TAPS, SLOTS)
    window = window_of(row + inner, past, second, seen, conv_c, conv_k, TAPS, SLOTS)
    C = convolved(window, conv_weight, conv_bias, second, seen, BIASED, TAPS, SLOTS)
    # 2. update the state
    dt = tl.load(row + 2 * inner + 2 * groups * d_state + head).to(tl.float32)
    dt = softplus(dt + tl.load(dt_bias + head).to(tl.float32))
    decay = tl.exp(-dt * tl.exp(tl.load(A_log + head).to(tl.float32)))
    at = ssm + batch * ssm_b + head.to(tl.int64) * ssm_h + place[:, None] * ssm_p + n[None, :] * ssm_n
    both = here[:, None] & seen[None, :]
    total = advanced(at, both, decay, dt * x[:, None], B[None, :], C[None, :])
    total += x * tl.load(D + head).to(tl.float32)
    tl.store(y + batch * inner + head * head_dim + place, total, mask=here)


@triton.jit
def mamba2_norm_kernel(before, zxbcdt, conv, weight, y, zxbcdt_b, conv_b, conv_c, conv_k,
                       inner, channels, groups, eps, TAPS: tl.constexpr, SLOTS: tl.constexpr,
                       BLOCK: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """A group of y gated and normed a program; those behind the groups shift some channels of conv each."""
    program, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = zxbcdt + batch * zxbcdt_b
    if program < groups:
        size = inner // groups
        place = tl.arange(0, BLOCK)
        inside, column = place < size, program * size + place
        value = tl.load(before + batch * inner + column, mask=inside, other=0.0).to(tl.float32)
        value *= silu(tl.load(row + column, mask=inside, other=0.0).to(tl.float32))
        scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / size + eps)
        w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(y + batch * inner + column, value * scale * w, mask=inside)
    else:
        channel = (program - groups) * CHANNELS + tl.arange(0, CHANNELS)
        here, past = channel < channels, conv + batch * conv_b
        window = window_of(row + inner, past, channel, here, conv_c, conv_k, TAPS, SLOTS)
        keep(window, past, channel, here, conv_c, conv_k, TAPS, SLOTS)


@triton.jit
def mamba_conv_kernel(xz, conv, weight, bias, x, xz_b, conv_b, conv_c, conv_k, inner,
                      BIASED: tl.constexpr, TAPS: tl.constexpr, SLOTS: tl.constexpr,
                      CHANNELS: tl.constexpr):  # fmt: skip
    """Some channels a program, convolved, and their part of conv shifted."""
    channel, batch = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS), tl.program_id(1).to(tl.int64)
    row, past, inside = xz + batch * xz_b, conv + batch * conv_b, channel < inner
    window = window_of(row, past, channel, inside, conv_c, conv_k, TAPS, SLOTS)
    total = convolved(window, weight, bias, channel, inside, BIASED, TAPS, SLOTS)
    tl.store(x + batch * inner + channel, total, mask=inside)
    keep(window, past, channel, inside, conv_c, conv_k, TAPS, SLOTS)


@triton.jit
def mamba_project_kernel(x, weight, sums, batch, inner, rows, span, ROWS: tl.constexpr,
                         BATCH: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Products of some rows of the weight with some of x a program, over `span` columns of each."""
    row, b = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(2) * BATCH + tl.arange(0, BATCH)
    start = tl.program_id(1) * span
    end = tl.minimum(start + span, inner)
    total = tl.zeros((ROWS, BATCH), tl.float32)
    for first in range(start, end, BLOCK):
        column = first + tl.arange(0, BLOCK)
        w_inside, x_inside = (row < rows)[:, None], (b < batch)[None, :]
        w = tl.load(weight + row[:, None] * inner + column[None, :],
                    mask=w_inside & (column < end)[None, :], other=0.0)  # fmt: skip
        value = tl.load(x + b[None, :] * inner + column[:, None],
                        mask=x_inside & (column < end)[:, None], other=0.0)  # fmt: skip
        total = product(w, value.to(w.dtype), total)
    at = sums + (tl.program_id(1) * batch + b[None, :]) * rows + row[:, None]
    tl.store(at, total, mask=(row < rows)[:, None] & (b < batch)[None, :])


@triton.jit
def summed(sums, column, inside, stride, SPLITS: tl.constexpr):
    """Columns of a row of x_proj's result, from its parts."""
    part = tl.arange(0, SPLITS)[:, None]
    return tl.sum(tl.load(sums + part * stride + column[None, :], mask=inside[None, :], other=0.0), 0)


@triton.jit
def mamba_update_kernel(xz, x, sums, ssm, dt_weight, dt_bias, A_log, D, y, xz_b, ssm_b, ssm_d, ssm_n,
                        batch, inner, d_state, rank, per_program, SPLITS: tl.constexpr,
                        CHANNELS: tl.constexpr, R_BLOCK: tl.constexpr, N_BLOCK: tl.constexpr):  # fmt: skip
    """Some channels of some rows a program: dt_proj, the state's update and the gate."""
    channel, r, n = (
        tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS),
        tl.arange(0, R_BLOCK),
        tl.arange(0, N_BLOCK),
    )
    inside, rows = channel < inner, rank + 2 * d_state
    both = inside[:, None] & (n < d_state)[None, :]
    weight = tl.load(dt_weight + channel[:, None] * rank + r[None, :],
                     mask=inside[:, None] & (r < rank)[None, :], other=0.0)  # fmt: skip
    bias = tl.load(dt_bias + channel, mask=inside, other=0.0).to(tl.float32)
    skip = tl.load(D + channel, mask=inside, other=0.0).to(tl.float32)
    rate = tl.load(A_log + channel[:, None] * d_state + n[None, :], mask=both, other=0.0).to(tl.float32)
    rate = -tl.exp(rate)
    for b in range(tl.program_id(1) * per_program, tl.minimum((tl.program_id(1) + 1) * per_program, batch)):
        at, row = tl.cast(b, tl.int64), sums + b * rows
        low = summed(row, r, r < rank, batch * rows, SPLITS)
        B = summed(row, rank + n, n < d_state, batch * rows, SPLITS)[None, :]
        C = summed(row, rank + d_state + n, n < d_state, batch * rows, SPLITS)[None, :]
        dt = softplus(tl.sum(weight.to(tl.float32) * low[None, :], 1) + bias)
        value = tl.load(x + at * inner + channel, mask=inside, other=0.0).to(tl.float32)
        gate = tl.load(xz + at * xz_b + inner + channel, mask=inside, other=0.0).to(tl.float32)
        state = ssm + at * ssm_b + channel[:, None].to(tl.int64) * ssm_d + n[None, :] * ssm_n
        total = advanced(state, both, tl.exp(dt[:, None] * rate), (dt * value)[:, None], B, C)
        tl.store(y + at * inner + channel, (total + skip * value) * silu(gate), mask=inside)
