"""Kernels of attention for one query a sequence and head. A part of the context is a program's, for the heads
that share its keys; what one program writes no other of the same launch reads."""

import triton
import triton.language as tl

from cobra.kernels.triton.formulas import product

# below any score, and finite, so that a difference of two is a number
_LOWEST = tl.constexpr(-3.0e38)


@triton.jit
def tokens_of(lengths, at, room, STEPS: tl.constexpr, LIMITED: tl.constexpr):
    """How many tokens a row reads from memory, how many it attends to, and whether a new one has room."""
    fits = True
    past = room
    count = room
    if STEPS:
        position = tl.load(lengths + at)
        fits = (position >= 0) & (position < room)
        past = tl.where(fits, position, 0).to(tl.int32)
        count = past + 1
    elif LIMITED:
        count = tl.minimum(tl.maximum(tl.load(lengths + at), 1), room).to(tl.int32)
        past = count
    return past, count, fits


@triton.jit
def turned(x, stride, rotation, rotation_r, place, inside, half):
    """x's channels turned: place i with place i + half, below 2 half; rounded as x is."""
    first, turns = place < half, inside & (place < 2 * half)
    partner, angle = tl.where(first, place + half, place - half), tl.where(first, place, place - half)
    own = tl.load(x + place * stride, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(x + partner * stride, mask=turns, other=0.0).to(tl.float32)
    cos = tl.load(rotation + angle * rotation_r, mask=turns, other=0.0).to(tl.float32)
    sin = tl.load(rotation + (angle + half) * rotation_r, mask=turns, other=0.0).to(tl.float32)
    after = tl.where(turns, own * cos + tl.where(first, -other, other) * sin, own)
    return after.to(x.dtype.element_ty).to(tl.float32)


@triton.jit
def attention_kernel(q, keys, values, lengths, k, v, rotation, y, mixtures, sums,
                     q_b, q_h, q_p, keys_b, keys_g, keys_t, keys_p, values_b, values_g, values_t, values_p,
                     lengths_b, k_b, k_g, k_p, v_b, v_g, v_p, rotation_t, rotation_r,
                     heads, groups, head_dim, room, scale, span, half,
                     STEPS: tl.constexpr, LIMITED: tl.constexpr, WHOLE: tl.constexpr, HALF: tl.constexpr,
                     HEADS: tl.constexpr, P_BLOCK: tl.constexpr, TOKENS: tl.constexpr):  # fmt: skip
    """A part of a row's tokens for some heads a program: y, or, unless WHOLE, what combines to it."""
    # 1. what is read
    part, batch, of_group = tl.program_id(0), tl.program_id(2).to(tl.int64), heads // groups
    past, count, fits = tokens_of(lengths, batch * lengths_b, room, STEPS, LIMITED)
    first = part * span
    if first >= count:
        return
    blocks = tl.cdiv(of_group, HEADS)
    group, block = (tl.program_id(1) // blocks).to(tl.int64), tl.program_id(1) % blocks
    number, place = block * HEADS + tl.arange(0, HEADS)[:, None], tl.arange(0, P_BLOCK)[None, :]
    inside = place < head_dim
    head, ours = group * of_group + number, inside & (number < of_group)
    keys += batch * keys_b + group * keys_g
    values += batch * values_b + group * values_g
    query = q + batch * q_b + head * q_h
    highest = tl.full((HEADS,), _LOWEST, tl.float32)
    total, mixture = tl.zeros((HEADS,), tl.float32), tl.zeros((HEADS, P_BLOCK), tl.float32)
    # 2. the new token, which is attended to where it comes from
    if STEPS:
        angles = rotation + past.to(tl.int64) * rotation_t
        asked = turned(query, q_p, angles, rotation_r, place, ours & fits, half)
        if past < first + span:
            key = turned(k + batch * k_b + group * k_g, k_p, angles, rotation_r, place, inside & fits,
                         half)  # fmt: skip
            key = key.to(keys.dtype.element_ty)
            value = tl.load(v + batch * v_b + group * v_g + place * v_p, mask=inside, other=0.0)
            value = value.to(values.dtype.element_ty)
            writes = inside & fits & (block == 0)
            tl.store(keys + past.to(tl.int64) * keys_t + place * keys_p, key, mask=writes)
            tl.store(values + past.to(tl.int64) * values_t + place * values_p, value, mask=writes)
            score = tl.sum(asked * key.to(tl.float32), 1) * scale
            highest = tl.maximum(score, highest)
            total = tl.exp2(score - highest)
            mixture = total[:, None] * value.to(tl.float32)
            # no room: an error that shows
            mixture = tl.where(fits, mixture, float("nan"))
        asked = asked.to(q.dtype.element_ty)
    else:
        asked = tl.load(query + place * q_p, mask=ours, other=0.0)
    # 3. those before
    end = tl.minimum(first + span, past)
    for start in range(first, end, TOKENS):
        token = start + tl.arange(0, TOKENS)
        seen, row = token < end, token[:, None].to(tl.int64)
        read = seen[:, None] & inside
        key = tl.load(keys + row * keys_t + place * keys_p, mask=read, other=0.0)
        value = tl.load(values + row * values_t + place * values_p, mask=read, other=0.0)
        if HEADS == 1:
            score = tl.sum(key.to(tl.float32) * asked.to(tl.float32), 1)[None, :]
        else:
            score = product(asked, tl.trans(key), tl.zeros((HEADS, TOKENS), tl.float32))
        score = tl.where(seen[None, :], score * scale, float("-inf"))
        before, highest = highest, tl.maximum(highest, tl.max(score, 1))
        fade, weight = tl.exp2(before - highest), tl.exp2(score - highest[:, None])
        total = total * fade + tl.sum(weight, 1)
        mixture *= fade[:, None]
        if HEADS == 1:
            mixture += tl.sum(tl.trans(weight) * value.to(tl.float32), 0)[None, :]
        else:
            mixture = product(weight.to(value.dtype) if HALF else weight, value, mixture)
    # 4. normalize, or leave that to the kernel that knows all parts
    at = batch * heads + head
    if WHOLE:
        tl.store(y + at * head_dim + place, mixture / total[:, None], mask=ours)
    else:
        at = at * tl.num_programs(0) + part
        tl.store(mixtures + at * head_dim + place, mixture, mask=ours)
        of_head = number < of_group
        tl.store(sums + 2 * at, highest[:, None], mask=of_head)
        tl.store(sums + 2 * at + 1, total[:, None], mask=of_head)


@triton.jit
def combine_kernel(mixtures, sums, lengths, y, lengths_b, heads, head_dim, room, span, parts,
                   STEPS: tl.constexpr, LIMITED: tl.constexpr,
                   PARTS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Some channels of a head a program: y of the parts that hold tokens."""
    at = tl.program_id(0).to(tl.int64)
    _, count, _ = tokens_of(lengths, at // heads * lengths_b, room, STEPS, LIMITED)
    part, place = tl.arange(0, PARTS), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    seen, inside = part * span < count, place < head_dim
    highest = tl.load(sums + 2 * (at * parts + part), mask=seen, other=_LOWEST)
    total = tl.load(sums + 2 * (at * parts + part) + 1, mask=seen, other=0.0)
    weight = tl.exp2(highest - tl.max(highest, 0))
    mixture = tl.load(mixtures + (at * parts + part)[:, None] * head_dim + place[None, :],
                      mask=seen[:, None] & inside[None, :], other=0.0)  # fmt: skip
    mixture = tl.sum(weight[:, None] * mixture, 0) / tl.sum(weight * total, 0)
    tl.store(y + at * head_dim + place, mixture, mask=inside)


@triton.jit
def advance_kernel(lengths, stride, count, BLOCK: tl.constexpr):
    """Some lengths a program, raised by 1."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = lengths + row.to(tl.int64) * stride
    tl.store(at, tl.load(at, mask=row < count) + 1, mask=row < count)
