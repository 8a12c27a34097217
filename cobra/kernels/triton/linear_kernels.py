"""Kernels of the linear layers: a weight is read once, as it lies, and unpacked in registers.

Those of one row multiply and add up in fp32: tensor cores would share nothing, and in programs that have all
columns of a few of the weight's rows no second kernel has to add up. Those of up to 16 rows are products on
tensor cores, filled up with zeros: their programs have more of the weight's rows, which share what is read of
x, and where these are few, some of the columns.
"""

import triton
import triton.language as tl

from cobra.kernels.triton.packed import column, lifted, places


@triton.jit
def bf16_row_kernel(x, weight, bias, y, count, width, stride,
                    ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """One row of x and ROWS of the weight's a program."""
    row, lane = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)[None]
    at = weight + row.to(tl.int64)[:, None] * stride
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, width, COLUMNS):
        k = start + lane
        w = tl.load(at + k, mask=(row < count)[:, None] & (k < width), other=0.0).to(tl.float32)
        sums += w * tl.load(x + k, mask=k < width, other=0.0).to(tl.float32)
    total = tl.sum(sums, 1)
    if bias is not None:
        total += tl.load(bias + row, mask=row < count, other=0.0).to(tl.float32)
    tl.store(y + row, total, mask=row < count)


@triton.jit
def packed_row_kernel(x, packed, scales, bias, y, count, width, words, groups, BITS: tl.constexpr,
                      GROUP: tl.constexpr, HEIGHT: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr,
                      STAGES: tl.constexpr):  # fmt: skip
    """One row of x and ROWS of the weight's a program."""
    EACH: tl.constexpr = 32 // BITS
    row, lane = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WORDS)[:, None]
    sums = tl.zeros((WORDS, ROWS), tl.float32)
    # programs of few rows need several steps' bytes under way
    for start in tl.range(0, words, WORDS, num_stages=STAGES):
        word = start + lane
        inside = (word < words) & (row < count)[None]
        values = tl.load(packed + places(row[None], word, words, HEIGHT), mask=inside, other=0)
        part = tl.zeros((WORDS, ROWS), tl.float32)
        for c in tl.static_range(EACH):
            k = word * EACH + c
            value = tl.load(x + k, mask=k < width, other=0.0).to(tl.float32)
            part += column(values, c, BITS) * (value / lifted(c, BITS))
        if GROUP:
            at = places(row[None], word // (GROUP // EACH), groups, HEIGHT)
            part *= tl.load(scales + at, mask=inside, other=0.0).to(tl.float32)
        sums += part
    total = tl.sum(sums, 0)
    if not GROUP:
        total *= tl.load(scales + row, mask=row < count, other=0.0).to(tl.float32)
    if bias is not None:
        total += tl.load(bias + row, mask=row < count, other=0.0).to(tl.float32)
    tl.store(y + row, total, mask=row < count)


@triton.jit
def bf16_rows_kernel(x, weight, bias, y, rows, count, width, x_stride, stride, y_stride, each,
                     TYPE: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
                     COLUMNS: tl.constexpr):  # fmt: skip
    """All rows of x and ROWS of the weight's a program, `each` columns of them: y, or parts (parts, R, N)."""
    row, m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, 16)[None]
    lane, down = tl.arange(0, COLUMNS)[None], tl.arange(0, COLUMNS)[:, None]
    at, first = weight + row.to(tl.int64) * stride, tl.program_id(1) * each
    stop = tl.minimum(first + each, width)
    total = tl.zeros((ROWS, 16), tl.float32)
    for start in range(first, stop, COLUMNS):
        w = tl.load(at + start + lane, mask=(row < count) & (start + lane < stop), other=0.0)
        k = start + down
        value = tl.load(x + m * x_stride + k, mask=(m < rows) & (k < stop), other=0.0)
        total = tl.dot(w.to(TYPE), value.to(TYPE), total, input_precision=PRECISION)
    if bias is not None:
        total += tl.load(bias + row, mask=row < count, other=0.0).to(tl.float32)
    y += (tl.program_id(1) * rows + m).to(tl.int64) * y_stride
    tl.store(y + row, total, mask=(row < count) & (m < rows))


@triton.jit
def packed_rows_kernel(x, packed, scales, bias, y, rows, count, width, x_stride, y_stride, words, groups,
                       each, BITS: tl.constexpr, GROUP: tl.constexpr, HEIGHT: tl.constexpr,
                       TYPE: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
                       WORDS: tl.constexpr):  # fmt: skip
    """All rows of x and ROWS of the weight's a program, `each` words of them: y, or parts (parts, R, N)."""
    EACH: tl.constexpr = 32 // BITS
    row, m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, 16)[None]
    lane, down, first = tl.arange(0, WORDS)[None], tl.arange(0, WORDS)[:, None], tl.program_id(1) * each
    stop = tl.minimum(first + each, words)
    total = tl.zeros((ROWS, 16), tl.float32)
    for start in range(first, stop, WORDS):
        word = start + lane
        inside = (row < count) & (word < stop)
        values = tl.load(packed + places(row, word, words, HEIGHT), mask=inside, other=0)
        if GROUP:
            at = places(row, word // (GROUP // EACH), groups, HEIGHT)
            scale = tl.load(scales + at, mask=inside, other=0.0).to(tl.float32)
        for c in tl.static_range(EACH):
            k = (start + down) * EACH + c
            read = (m < rows) & (start + down < stop) & (k < width)
            value = tl.load(x + m * x_stride + k, mask=read, other=0.0)
            w = column(values, c, BITS) / lifted(c, BITS)
            if GROUP:
                w *= scale
            total = tl.dot(w.to(TYPE), value.to(TYPE), total, input_precision=PRECISION)
    if not GROUP:
        total *= tl.load(scales + row, mask=row < count, other=0.0).to(tl.float32)
    if bias is not None:
        total += tl.load(bias + row, mask=row < count, other=0.0).to(tl.float32)
    y += (tl.program_id(1) * rows + m).to(tl.int64) * y_stride
    tl.store(y + row, total, mask=(row < count) & (m < rows))


@triton.jit
def add_parts_kernel(parts, bias, y, count, columns, pieces, BLOCK: tl.constexpr):
    """y of the sums over some columns each (parts, R N), in order."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for piece in range(pieces):
        total += tl.load(parts + tl.cast(piece, tl.int64) * count + at, mask=at < count, other=0.0)
    if bias is not None:
        total += tl.load(bias + at % columns, mask=at < count, other=0.0).to(tl.float32)
    tl.store(y + at, total, mask=at < count)
