"""The kernels of Mamba-1's scan: a warp takes some channels, all N states of each, through visits in turn.

Its tile of states (BLOCK_D, BLOCK_N) lies in registers, four neighbouring n of a channel in a thread, so that
sums over n cross 4 threads and sums over channels 8. Visits are taken GROUP at a time; what a group reads is
asked for before the group ahead of it is computed. Inputs of visits come as (u, delta, z, B, C, dy), each
None or (B, L, ...), with the strides of its rows, tokens and groups.
"""

import triton
import triton.language as tl

from cobra.kernels.triton.formulas import sigmoid, silu, softplus
from cobra.kernels.triton.visits import flag_and_token

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def tile_of(width, channels, N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr):
    """Group of this program's channels, channels, n, which of both there are, where states lie in (D, N)."""
    blocks = tl.cdiv(channels, BLOCK_D)
    group, within = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    d, n = group * channels + within, tl.arange(0, BLOCK_N)
    return group, d, n, within < channels, n < N, d[:, None] * N + n[None, :]


@triton.jit
def read(inputs, strides, visits, row, group, first, step, span, lanes, REVERSED: tl.constexpr,
         GROUP: tl.constexpr):  # fmt: skip
    """Of each visit of a group, from the first one on, its flag and token and what it reads.

    The flag is as in `visits.py`, 0 also outside of the span. 0 stands for what is absent or not taken.
    """
    u, delta, z, B, C, dy = inputs
    us, ds, zs, Bs, Cs, ys = strides
    begin, end, length, height = span
    d, n, inside, real = lanes
    if B is not None:
        B += row * Bs[0] + group * Bs[2]
    if C is not None:
        C += row * Cs[0] + group * Cs[2]
    rows = ()
    for i in tl.static_range(GROUP):
        visit = first + i * step
        there = (visit >= begin) & (visit < end)
        flag, t = flag_and_token(visits, visit, there, length, height, REVERSED)
        own, shared = inside & (flag > 0), real & (flag > 0)
        rows += ((
            flag,
            t,
            0 if u is None else tl.load(u + row * us[0] + t * us[1] + d, mask=own, other=0.0),
            0 if delta is None else tl.load(delta + row * ds[0] + t * ds[1] + d, mask=own, other=0.0),
            0 if z is None else tl.load(z + row * zs[0] + t * zs[1] + d, mask=own, other=0.0),
            0 if B is None else tl.load(B + t * Bs[1] + n, mask=shared, other=0.0),
            0 if C is None else tl.load(C + t * Cs[1] + n, mask=shared, other=0.0),
            0 if dy is None else tl.load(dy + row * ys[0] + t * ys[1] + d, mask=own, other=0.0),
        ),)  # type: ignore[assignment]  # fmt: skip
    return rows


@triton.jit
def time_step(raw, bias, flag, SOFTPLUS: tl.constexpr):
    """dt, 0 of a visit that does not take place; and delta + bias, which its gradient needs."""
    raw = raw.to(tl.float32) + bias
    return tl.where(flag > 0, softplus(raw) if SOFTPLUS else raw, 0.0), raw


@triton.jit
def restarted(h, flag, visits):
    """Zeros where a sequence starts; not multiplied by 0, which NaN survives."""
    return h if visits is None else tl.where(flag == 3, 0.0, h)


@triton.jit
def visited(x, flag, visits):
    """x, or zeros of a token under the mask."""
    return x if visits is None else tl.where(flag > 0, x, 0.0)


@triton.jit
def gated(y, z, GATED: tl.constexpr):
    """y silu(z), or y without a gate."""
    if GATED:
        y = y * silu(z.to(tl.float32))
    return y


@triton.jit
def rates_of(A, at, tile):
    """A per power of 2."""
    return tl.load(A + at, mask=tile, other=0.0).to(tl.float32) * LOG2_E


@triton.jit
def per_channel(x, d, inside):
    """A row of parameters, 0 without them."""
    return 0.0 if x is None else tl.load(x + d, mask=inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["length", "chunk"])
def chunk_kernel(A, bias, visits, inputs, strides, ends, totals, length, height, chunk, width, channels,
                 ADJOINT: tl.constexpr, SOFTPLUS: tl.constexpr, GATED: tl.constexpr, REVERSED: tl.constexpr,
                 N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
                 GROUP: tl.constexpr):  # fmt: skip
    """What a chunk adds to the state behind it; the sum of its time steps, infinite if a sequence starts.

    ADJOINT: what it adds to the gradient of the state before it.
    """
    group, d, n, inside, real, at = tile_of(width, channels, N, BLOCK_D, BLOCK_N)
    tile, lanes = inside[:, None] & real[None, :], (d, n, inside, real)
    row = tl.cast(tl.program_id(2), tl.int64)
    visits = None if visits is None else visits + row * length
    rates, offset = rates_of(A, at, tile), per_channel(bias, d, inside)
    begin = tl.program_id(1) * chunk
    end = tl.minimum(begin + chunk, length)
    span = (begin, end, length, height)
    start, step = end - 1 if ADJOINT else begin, -1 if ADJOINT else 1
    h = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
    total = tl.zeros((BLOCK_D,), tl.float32)
    ahead = read(inputs, strides, visits, row, group, start, step, span, lanes, REVERSED, GROUP)
    for first in range(GROUP, end - begin + GROUP, GROUP):
        rows = ahead
        ahead = read(
            inputs, strides, visits, row, group, start + first * step, step, span, lanes, REVERSED, GROUP
        )
        for i in tl.static_range(GROUP):
            flag, _, u, delta, z, B, C, dy = rows[i]
            dt, _ = time_step(delta, offset, flag, SOFTPLUS)
            a = tl.exp2(dt[:, None] * rates)
            if ADJOINT:
                h += gated(dy.to(tl.float32), z, GATED)[:, None] * C.to(tl.float32)[None, :]
                h = restarted(a * h, flag, visits)
            else:
                h = a * restarted(h, flag, visits)
                h += (dt * u.to(tl.float32))[:, None] * B.to(tl.float32)[None, :]
            total = total + dt if visits is None else tl.where(flag == 3, float("inf"), total + dt)
    this = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(ends + this * width * N + at, h, mask=tile)
    tl.store(totals + this * width + d, total, mask=inside)


@triton.jit
def passed_on(first, ends, totals, rates, row, width, d, at, inside, tile, ADJOINT: tl.constexpr,
              N: tl.constexpr):  # fmt: skip
    """The state before this program's chunk, or its gradient behind it: through what all others there add."""
    h = tl.zeros(rates.shape, tl.float32)
    if first is not None:
        h += tl.load(first + row * width * N + at, mask=tile, other=0.0).to(tl.float32)
    if ends is not None:
        chunks, mine = tl.num_programs(1), tl.program_id(1)
        for i in range(0, chunks - 1 - mine if ADJOINT else mine):
            this = row * chunks + (chunks - 1 - i if ADJOINT else i)
            total = tl.load(totals + this * width + d, mask=inside, other=0.0)[:, None]
            h = tl.where(total == float("inf"), 0.0, tl.exp2(total * rates) * h)
            h += tl.load(ends + this * width * N + at, mask=tile, other=0.0)
    return h


@triton.jit(do_not_specialize=["length", "chunk"])
def scan_kernel(A, D, bias, visits, inputs, strides, initial, ends, totals, y, final, kept, length, height,
                chunk, width, channels, SOFTPLUS: tl.constexpr, GATED: tl.constexpr, REVERSED: tl.constexpr,
                N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
                KEPT_EVERY: tl.constexpr):  # fmt: skip
    """y of a chunk from the state before it; the state behind the last one, and those that are kept."""
    group, d, n, inside, real, at = tile_of(width, channels, N, BLOCK_D, BLOCK_N)
    tile, lanes = inside[:, None] & real[None, :], (d, n, inside, real)
    row = tl.cast(tl.program_id(2), tl.int64)
    visits = None if visits is None else visits + row * length
    rates, offset, skip = rates_of(A, at, tile), per_channel(bias, d, inside), per_channel(D, d, inside)
    begin = tl.program_id(1) * chunk
    end = tl.minimum(begin + chunk, length)
    span = (begin, end, length, height)
    h = passed_on(initial, ends, totals, rates, row, width, d, at, inside, tile, False, N)
    ahead = read(inputs, strides, visits, row, group, begin, 1, span, lanes, REVERSED, GROUP)
    for first in range(begin, end, GROUP):
        if kept is not None and first % KEPT_EVERY == 0:
            place = row * tl.cdiv(length, KEPT_EVERY) + first // KEPT_EVERY
            tl.store(kept + place * width * N + at, h, mask=tile)
        rows = ahead
        ahead = read(inputs, strides, visits, row, group, first + GROUP, 1, span, lanes, REVERSED, GROUP)
        for i in tl.static_range(GROUP):
            flag, token, u, delta, z, B, C, _ = rows[i]
            u = u.to(tl.float32)
            dt, _ = time_step(delta, offset, flag, SOFTPLUS)
            h = tl.exp2(dt[:, None] * rates) * restarted(h, flag, visits)
            h += (dt * u)[:, None] * B.to(tl.float32)[None, :]
            out = visited(gated(tl.sum(h * C.to(tl.float32)[None, :], 1) + skip * u, z, GATED), flag, visits)
            tl.store(y + (row * length + token) * width + d, out, mask=inside & (first + i < end))
    if tl.program_id(1) == tl.num_programs(1) - 1:
        tl.store(final + row * width * N + at, h, mask=tile)


@triton.jit(do_not_specialize=["length", "chunk"])
def backward_kernel(A, D, bias, visits, inputs, strides, last, ends, totals, kept, scratch, du, ddelta, dz,
                    dBC, dA, dchannels, dinitial, length, height, chunk, width, channels,
                    SOFTPLUS: tl.constexpr, GATED: tl.constexpr, REVERSED: tl.constexpr, N: tl.constexpr,
                    BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
                    KEPT_EVERY: tl.constexpr):  # fmt: skip
    """All gradients of a chunk, from the end; those of B, C and parameters are this program's part of a sum.

    States are computed again from those that were kept: once to note each group's first one in `scratch`,
    then group by group from the end, in registers.
    """
    group, d, n, inside, real, at = tile_of(width, channels, N, BLOCK_D, BLOCK_N)
    tile, lanes = inside[:, None] & real[None, :], (d, n, inside, real)
    row = tl.cast(tl.program_id(2), tl.int64)
    visits = None if visits is None else visits + row * length
    rates, offset, skip = rates_of(A, at, tile), per_channel(bias, d, inside), per_channel(D, d, inside)
    this, block = row * tl.num_programs(1) + tl.program_id(1), tl.program_id(0)
    begin = tl.program_id(1) * chunk
    end = tl.minimum(begin + chunk, length)
    blocks = tl.num_programs(0)
    noted = scratch + (this * blocks + block) * (KEPT_EVERY // GROUP * BLOCK_D * BLOCK_N)
    noted += tl.arange(0, BLOCK_D)[:, None] * BLOCK_N + n[None, :]
    dh = passed_on(last, ends, totals, rates, row, width, d, at, inside, tile, True, N)
    rates_sum = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
    skip_sum, bias_sum = tl.zeros((BLOCK_D,), tl.float32), tl.zeros((BLOCK_D,), tl.float32)
    for part in range(0, tl.cdiv(end - begin, KEPT_EVERY)):
        place = tl.cdiv(end, KEPT_EVERY) - 1 - part
        low = place * KEPT_EVERY
        high = tl.minimum(low + KEPT_EVERY, end)
        h = tl.load(kept + (row * tl.cdiv(length, KEPT_EVERY) + place) * width * N + at, mask=tile, other=0.0)
        span, groups = (low, high, length, height), tl.cdiv(high - low, GROUP)
        feeding = (inputs[0], inputs[1], None, inputs[3], None, None)
        for g in range(0, groups):
            tl.store(noted + g * (BLOCK_D * BLOCK_N), h)
            rows = read(
                feeding, strides, visits, row, group, low + g * GROUP, 1, span, lanes, REVERSED, GROUP
            )
            for i in tl.static_range(GROUP):
                flag, token, u, delta, z, B, C, dy = rows[i]
                dt, _ = time_step(delta, offset, flag, SOFTPLUS)
                h = tl.exp2(dt[:, None] * rates) * restarted(h, flag, visits)
                h += (dt * u.to(tl.float32))[:, None] * B.to(tl.float32)[None, :]
        tl.debug_barrier()
        for back in range(0, groups):
            g = groups - 1 - back
            h = tl.load(noted + g * (BLOCK_D * BLOCK_N))
            first = low + g * GROUP
            rows = read(inputs, strides, visits, row, group, first, 1, span, lanes, REVERSED, GROUP)
            states = ()
            for i in tl.static_range(GROUP):
                flag, token, u, delta, z, B, C, dy = rows[i]
                dt, _ = time_step(delta, offset, flag, SOFTPLUS)
                a, h = tl.exp2(dt[:, None] * rates), restarted(h, flag, visits)
                states += ((h, a),)  # type: ignore[assignment]
                h = a * h + (dt * u.to(tl.float32))[:, None] * B.to(tl.float32)[None, :]
            for i in tl.static_range(GROUP - 1, -1, -1):
                flag, token, u, delta, z, B, C, dy = rows[i]
                h, a = states[i]
                u, dy = u.to(tl.float32), dy.to(tl.float32)
                B, C = B.to(tl.float32)[None, :], C.to(tl.float32)[None, :]
                dt, raw = time_step(delta, offset, flag, SOFTPLUS)
                before = a * h  # type: ignore[var-annotated]
                fed = (dt * u)[:, None]
                h = before + fed * B
                there = inside & (first + i < high)
                out = (row * length + token) * width + d
                if GATED:
                    z = z.to(tl.float32)
                    s = sigmoid(z)
                    slope = dy * (tl.sum(h * C, 1) + skip * u) * (s * (1.0 + z * (1.0 - s)))
                    tl.store(dz + out, visited(slope, flag, visits), mask=there)
                    dy = dy * (z * s)
                dh += dy[:, None] * C
                dC, dB = tl.sum(dy[:, None] * h, 0), tl.sum(fed * dh, 0)
                line = ((block * tl.num_programs(2) + row) * length + token) * (2 * N) + n
                written = real & (first + i < high)
                tl.store(dBC + line, visited(dB, flag, visits), mask=written)
                tl.store(dBC + line + N, visited(dC, flag, visits), mask=written)
                along = tl.sum(dh * B, 1)
                decayed = dh * before
                slope = u * along + tl.sum(decayed * rates, 1) * LN_2
                if SOFTPLUS:
                    slope = tl.where(raw > 20.0, slope, slope * sigmoid(raw))
                slope = tl.where(flag > 0, slope, 0.0)
                tl.store(ddelta + out, slope, mask=there)
                tl.store(du + out, visited(dt * along + skip * dy, flag, visits), mask=there)
                rates_sum += decayed * dt[:, None]
                skip_sum += dy * u
                bias_sum += slope
                dh = restarted(a * dh, flag, visits)
        tl.debug_barrier()
    tl.store(dA + this * width * N + at, rates_sum, mask=tile)
    tl.store(dchannels + this * (2 * width) + d, skip_sum, mask=inside)
    tl.store(dchannels + this * (2 * width) + width + d, bias_sum, mask=inside)
    if dinitial is not None and tl.program_id(1) == 0:
        tl.store(dinitial + row * width * N + at, dh, mask=tile)
