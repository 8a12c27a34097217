"""Chunks of visits as the kernels of Mamba-2's scan see them: their tokens, time steps and decays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cobra.kernels.reference.masks import join_sequences
from cobra.kernels.reference.time_step import LONGEST_DECAY
from cobra.kernels.scan_order import for_kernels, unvisit, visit
from cobra.kernels.triton import INTERPRETED
from cobra.kernels.triton.launch import architecture

# decays are powers of 2
LOG2E = tl.constexpr(1.4426950408889634)
LONGEST = tl.constexpr(LONGEST_DECAY * 1.4426950408889634)


@triton.jit
def find_place(program, heads, head_dim: tl.constexpr, segments, P: tl.constexpr):
    """Row, head, tile of P of its channels and segment of a program: neighbours share a group's B and C."""
    tiles = tl.cdiv(head_dim, P)
    head, segment = program // tiles % heads, program // (tiles * heads) % segments
    return (program // (tiles * heads * segments)).to(tl.int64), head, program % tiles, segment


@triton.jit
def find_tokens(visits, length, height, row, mask, REVERSED: tl.constexpr, COLUMNS: tl.constexpr):
    """The tokens of visits, and which of them there are and are not masked."""
    live = visits < length
    token = find_token(visits, length, height, REVERSED, COLUMNS)
    if mask is not None:
        live = live & (tl.load(mask + row * length + token, mask=live, other=0) != 0)
    return token, live


@triton.jit
def find_token(visits, length, height, REVERSED: tl.constexpr, COLUMNS: tl.constexpr):
    """The tokens of visits: from the last one on, down the columns of a grid, or as they are."""
    if REVERSED:
        visits = length - 1 - visits
    if COLUMNS:
        visits = visits % height * (length // height) + visits // height
    return visits.to(tl.int64)


@triton.jit
def find_sequences(first, token, length, height, row, seq_idx, REVERSED: tl.constexpr,
                   COLUMNS: tl.constexpr, Q: tl.constexpr):  # fmt: skip
    """Of Q visits from `first` on their sequences (Q,), the sequence before them and that of the last one;
    zeros if there is but one sequence."""
    if seq_idx is None:
        return tl.zeros((Q,), tl.int32), 0, 0
    else:
        at = seq_idx + row * length
        before = find_token(tl.maximum(first - 1, 0), length, height, REVERSED, COLUMNS)
        last = find_token(tl.minimum(first + Q, length) - 1, length, height, REVERSED, COLUMNS)
        there = first + tl.arange(0, Q) < length
        return tl.load(at + token, mask=there, other=0), tl.load(at + before), tl.load(at + last)


@triton.jit
def load_rows(pointer, token, token_stride, live, width, TYPE: tl.constexpr, WIDTH: tl.constexpr):
    """Rows (Q, WIDTH) of tokens; zeros where they are not live, whatever is there, and beyond the width."""
    column = tl.arange(0, WIDTH)
    inside = live[:, None] & (column < width)[None, :]
    rows = pointer + token[:, None] * token_stride + column[None, :]
    return tl.load(rows, mask=inside, other=0.0).to(TYPE)


@triton.jit
def load_raw(inputs, strides, row, head, token, live):
    """dt + dt_bias of tokens of a head in fp32, before the softplus."""
    raw = tl.load(inputs[1] + row * strides[3] + head * strides[5] + token * strides[4], mask=live, other=0.0)
    raw = raw.to(tl.float32)
    if inputs[6] is not None:
        raw += tl.load(inputs[6] + head).to(tl.float32)
    return raw


@triton.jit
def softplus(raw):
    """log(1 + exp(raw)), and raw itself above 20."""
    # by its quotient: log(1 + u) alone loses the digits of a small u
    u = tl.exp(tl.minimum(raw, 20.0))
    one = 1.0 + u
    small = one == 1.0
    log1p = tl.where(small, u, u * (tl.log(one) / tl.where(small, 1.0, one - 1.0)))
    return tl.where(raw > 20.0, raw, log1p)


@triton.jit
def write_steps(steps, begin, end, span, inputs, strides, row, head, length, height,
                SOFTPLUS: tl.constexpr, REVERSED: tl.constexpr, COLUMNS: tl.constexpr,
                Q: tl.constexpr, EXACT: tl.constexpr):  # fmt: skip
    """What the chunks of a head are multiplied with, in rows of `span` visits that this program alone reads:
    time steps, 0 where tokens are not live; what is left of them at the end of the chunk; and running sums of
    the decays in a chunk.

    If EXACT the sums are two rows, whose differences lose no digits: the first sums multiples of a power of
    2, such that fp32 holds a chunk of the longest decays exactly, and the second is small (as in
    reference/ssd.py). One row is off by 2^-11 where decays are longest, no more than half precision is.

    In memory and not in registers, where each layout of a matrix would compute its own.
    """
    ROWS: tl.constexpr = 512 // Q
    rate = tl.load(inputs[2] + head).to(tl.float32) * LOG2E
    for chunk in range(begin, end, ROWS):
        visits = (chunk + tl.arange(0, ROWS))[:, None] * Q + tl.arange(0, Q)[None, :]
        token, live = find_tokens(visits, length, height, row, inputs[8], REVERSED, COLUMNS)
        step = load_raw(inputs, strides, row, head, token, live)
        if SOFTPLUS:
            step = softplus(step)
        step = tl.where(live, step, 0.0)
        decay = step * rate
        decay = tl.where(decay < LONGEST, LONGEST, decay)
        inside = visits < end * Q
        tl.store(steps + visits, step, mask=inside)
        # the longest is below 2^7, and 24 bits hold the sum of Q
        PARTS: tl.constexpr = (1 << 17) // Q
        coarse = tl.floor(decay * PARTS + 0.5) / PARTS
        fine = decay - coarse
        sums, rest = tl.cumsum(coarse, 1), tl.cumsum(fine, 1)
        left = (tl.sum(coarse, 1)[:, None] - sums) + (tl.sum(fine, 1)[:, None] - rest)
        tl.store(steps + span + visits, tl.exp2(left), mask=inside)
        tl.store(steps + 2 * span + visits, sums if EXACT else sums + rest, mask=inside)
        if EXACT:
            tl.store(steps + 3 * span + visits, rest, mask=inside)
    # other threads read it
    tl.debug_barrier()


@triton.jit
def load_sums(steps, first, span, Q: tl.constexpr, EXACT: tl.constexpr):
    """Both parts of the running sums of a chunk (Q,), and the total."""
    at = steps + 2 * span + first
    visit = tl.arange(0, Q)
    if EXACT:
        total = tl.load(at + Q - 1) + tl.load(at + span + Q - 1)
        return tl.load(at + visit), tl.load(at + span + visit), total
    else:
        return tl.load(at + visit), 0.0, tl.load(at + Q - 1)


@triton.jit
def decays_within(coarse, fine, hears, EXACT: tl.constexpr):
    """What is left at visit i of visit j (Q, Q), and 0 where i does not hear j."""
    gap = coarse[:, None] - coarse[None, :]
    if EXACT:
        gap += fine[:, None] - fine[None, :]
    # masked before exp: above the diagonal the gap is positive and would overflow
    return tl.exp2(tl.where(hears, gap, float("-inf")))


@dataclass(frozen=True)
class Scan:
    """A call, as its kernels take it.

    Attributes:
        inputs: x, dt, A, B, C, D, dt_bias, seq_idx and mask, None if absent.
        sizes: batch, length, heads, head_dim, d_state, heads of a group.
        arguments: the parameters that all kernels end with.
        constants: and those known when they are compiled.
        chunk: visits of a chunk.
        tile: channels of a head that a program has where each has some of them.
        kind: the dtype of products.
    """

    inputs: tuple[Any, ...]
    sizes: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    chunk: int
    tile: int
    kind: torch.dtype

    @property
    def rows(self) -> int:
        """Rows that `write_steps` writes."""
        return 4 if self.constants["EXACT"] else 3

    @property
    def chunks(self) -> int:
        """Chunks of a row."""
        return -(-self.sizes[1] // self.chunk)

    @property
    def tiles(self) -> int:
        """Tiles of a head."""
        return -(-self.sizes[3] // self.tile)

    def room_for_steps(self) -> Tensor:
        """What `write_steps` needs for each tile of all heads."""
        batch, _, heads, *_ = self.sizes
        size = (batch, heads, self.tiles, self.rows, self.chunks * self.chunk)
        return self.inputs[2].new_empty(size, dtype=torch.float32)

    @property
    def padded(self) -> int:
        """Channels of a head, as many as a matrix of products has."""
        return _pad(self.sizes[3])


def describe(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
    backward: bool = False,
) -> Scan:
    """The kernels' arguments of a call, strided as it came."""
    batch, length, heads, head_dim = x.shape
    groups, d_state = B.shape[2:]
    reversed_, height = for_kernels(scan_order, grid)
    if mask is not None and seq_idx is not None:
        order: Any = (scan_order, grid)
        joined = join_sequences(visit(seq_idx, *order), visit(mask, *order))
        assert joined is not None
        seq_idx = unvisit(joined, *order)
    x, B, C = map(with_rows, (x, B, C))
    vectors = [None if v is None else v.contiguous() for v in (D, dt_bias, seq_idx, mask)]
    inputs = (x, dt, A.contiguous(), B, C, *vectors)
    strides = (*x.stride()[:3], *dt.stride(), *B.stride()[:3], *C.stride()[:3])
    per_group = heads // max(groups, 1)
    kind = torch.promote_types(torch.promote_types(x.dtype, B.dtype), C.dtype)
    if INTERPRETED and kind == torch.bfloat16:
        # whose bits the interpreter would multiply as integers
        kind = torch.float32
    exact, precision = kind == torch.float32, product_precision()
    # fp32 without tensor cores is unrolled, and must find room in registers
    chunk, tile, tensor_cores = 64, 64, True
    if exact and precision == "ieee":
        chunk, tile, tensor_cores = 16, 16, False
    elif exact or d_state > 128:
        chunk, tile = 32, 32
    elif backward and architecture() >= 100:
        # 64 rows go through tensor memory there, where Triton 3.6 and 3.7 fail to compile their sums
        chunk = 32
    constants = {
        "head_dim": head_dim,
        "d_state": d_state,
        "SOFTPLUS": dt_softplus,
        "REVERSED": reversed_,
        "COLUMNS": height > 1,
        "TYPE": _TYPES[kind],
        "PRECISION": precision,
        "EXACT": exact,
        "Q": chunk,
        "N": _pad(d_state),
        # a warpgroup of sm_90 has 64 rows; before it more warps share the registers
        "num_warps": 4 if tensor_cores and architecture() >= 90 else 8,
        "num_stages": 2 if tensor_cores else 1,
    }
    return Scan(
        inputs,
        (batch, length, heads, head_dim, d_state, per_group),
        (inputs, strides, length, height, heads, per_group),
        constants,
        chunk,
        min(_pad(head_dim), tile),
        kind,
    )


# programs that keep a GPU busy: two for each of 132 multiprocessors
_PROGRAMS = 264


def programs_for(programs: int) -> int:
    """How many programs should share the work of each of so many."""
    return -(-_PROGRAMS // max(programs, 1))


_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def with_rows(x: Tensor) -> Tensor:
    """x, its last dimension contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def product_precision() -> str:
    """How fp32 is multiplied, as torch.set_float32_matmul_precision says."""
    return {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}[torch.get_float32_matmul_precision()]


def _pad(width: int) -> int:
    """A width as products have it: a power of 2, 16 at least."""
    return max(16, triton.next_power_of_2(width))
