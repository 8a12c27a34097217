"""Kernels of the norms. Each group of channels of a row is normed by itself; a plain norm has one group."""

import triton
import triton.language as tl

from cobra.kernels.triton.formulas import sigmoid, silu


@triton.jit
def rms_norm_kernel(x, other, weight, y, total, x_stride, other_stride, width, size, eps,
                    ADDS: tl.constexpr, GATES: tl.constexpr, KEEPS: tl.constexpr,
                    BLOCK: tl.constexpr):  # fmt: skip
    """A group of a row a program: y of x, of x and a residual, whose sum may be kept, or of x and a gate."""
    row, place = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, column = place < size, tl.program_id(1) * size + place
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        value += tl.load(other + row * other_stride + column, mask=inside, other=0.0).to(tl.float32)
    if GATES:
        value *= silu(tl.load(other + row * other_stride + column, mask=inside, other=0.0).to(tl.float32))
    if KEEPS:
        tl.store(total + row * width + column, value, mask=inside)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / size + eps)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, value * scale * w, mask=inside)


@triton.jit
def row_sums_kernel(dy, x, z, weight, sums, dy_stride, x_stride, z_stride, size, eps,
                    GATES: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """A group of a row a program, too wide to be held: its two numbers that each channel's gradient needs."""
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    squares, products = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        inside, column = place < size, group * size + place
        value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
        if GATES:
            value *= silu(tl.load(z + row * z_stride + column, mask=inside, other=0.0).to(tl.float32))
        g = tl.load(dy + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
        w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
        squares += value * value
        products += g * w * value
    scale = 1.0 / tl.sqrt(tl.sum(squares, 0) / size + eps)
    at = sums + 2 * (row * tl.num_programs(1) + group)
    tl.store(at, scale)
    tl.store(at + 1, scale * scale * tl.sum(products, 0) / size)


@triton.jit
def rms_norm_backward_kernel(dy, dtotal, x, z, weight, sums, dx, dz, dweight,
                             dy_stride, dtotal_stride, x_stride, z_stride, rows, width, size, eps,
                             per_program, KEPT: tl.constexpr, GATES: tl.constexpr, WHOLE: tl.constexpr,
                             BLOCK: tl.constexpr):  # fmt: skip
    """Some rows a program, of a group or, unless WHOLE, of a part of one: dx and dz, and a row of dweight."""
    program, parts = tl.program_id(0), tl.cdiv(size, BLOCK)
    group, place = tl.program_id(1) // parts, tl.program_id(1) % parts * BLOCK + tl.arange(0, BLOCK)
    inside, column = place < size, group * size + place
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for row in range(program * per_program, tl.minimum((program + 1) * per_program, rows)):
        at = tl.cast(row, tl.int64)
        value = tl.load(x + at * x_stride + column, mask=inside, other=0.0).to(tl.float32)
        if GATES:
            gate = tl.load(z + at * z_stride + column, mask=inside, other=0.0).to(tl.float32)
            ungated, opened = value, sigmoid(gate)
            value = ungated * gate * opened
        g = tl.load(dy + at * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
        if WHOLE:
            scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / size + eps)
            pull = scale * scale * (tl.sum(g * w * value, 0) / size)
        else:
            number = sums + 2 * (at * (width // size) + group)
            scale, pull = tl.load(number), tl.load(number + 1)
        total += g * value * scale
        gradient = scale * (g * w - value * pull)
        if KEPT:
            gradient += tl.load(dtotal + at * dtotal_stride + column, mask=inside, other=0.0).to(tl.float32)
        if GATES:
            slope = opened * (1.0 + gate * (1.0 - opened))
            tl.store(dz + at * width + column, gradient * ungated * slope, mask=inside)
            gradient *= gate * opened
        tl.store(dx + at * width + column, gradient, mask=inside)
    tl.store(dweight + program.to(tl.int64) * width + column, total, mask=inside)


@triton.jit
def add_layer_norm_kernel(x, parallel, residual, weight, bias, y, total,
                          x_stride, parallel_stride, residual_stride, width, eps,
                          PARALLEL: tl.constexpr, ADDS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """A row a program: y, and the sum that is normed."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    if PARALLEL:
        value += tl.load(parallel + row * parallel_stride + column, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        value += tl.load(residual + row * residual_stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(total + row * width + column, value, mask=inside)
    value = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / width + eps)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, value * scale * w + b, mask=inside)
