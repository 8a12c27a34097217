"""Weights of linear layers in 8 or 4 bits, packed once, in the order in which the kernels read them.

Symmetric, without a zero point: with the scale that fits each group best, the error is that of the 16 levels
between the group's least and largest value, and a group costs 16 bits less. Scales are rounded to how they
are stored before the weights are divided by them, so that their rounding is no error.

A word of 32 bits holds 8 or 4 columns of a row, as signed integers: in its lower half, lowest bits first, the
even columns, in its upper half the odd ones. Words and scales of 16 rows lie side by side (as do those of the
last rows % 16 rows), so a packed tensor has the shape (rows, words), but its rows are not the weight's.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels import huge_pages

GROUPS = (32, 64, 128)
BLOCK_ROWS = 16
# columns a word
W8_COLUMNS, W4_COLUMNS = 4, 8

# The largest value of a group in steps: at 8, all of -8 to 7 is used; at more, it is clipped.
_W4_STEPS = (8.0, 7.0, 7.5, 8.5, 9.0)
# Packing reads the same weights many times over.
_ELEMENTS_AT_A_TIME = 2**18


def pack_w8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Packed int32 (N, ceil(K / 4)) and scales fp32 (N,) of a weight (N, K).

    A weight changes by at most 1 / 254 of the largest in its row.

    Raises:
        ValueError: if `weight` is not a finite floating matrix.
    """
    return _by_blocks(_checked(weight), _pack_w8)


def unpack_w8(packed: Tensor, scales: Tensor) -> Tensor:
    """The weight (N, 4 * words) that a packed one stands for, in the dtype of `scales`."""
    return _scaled_w8(_separate(packed), scales)


def unpack_rows_w8(packed: Tensor, scales: Tensor, rows: Tensor) -> Tensor:
    """Some rows (R,) of what `unpack_w8` gives, without unpacking the others."""
    return _scaled_w8(_select(packed, rows), scales[rows])


def pack_w4(weight: Tensor, group: int = 32) -> tuple[Tensor, Tensor]:
    """Packed int32 (N, K / 8) and scales bf16 (N, K / group) of a weight (N, K).

    The root mean square error of a group is at most 1 / 14 of its largest weight (and 1/256 of that).

    Raises:
        ValueError: if `weight` is not finite and floating, or its K no multiple of `group` (32, 64, 128).
    """
    check_group(group, _checked(weight).shape[1])
    return _by_blocks(weight, partial(_pack_w4, group=group))


def unpack_w4(packed: Tensor, scales: Tensor, group: int) -> Tensor:
    """The weight (N, K) that a packed one stands for, in fp32 (fp64 if the scales are)."""
    return _scaled_w4(_separate(packed), _separate(scales), group)


def unpack_rows_w4(packed: Tensor, scales: Tensor, group: int, rows: Tensor) -> Tensor:
    """Some rows (R,) of what `unpack_w4` gives, without unpacking the others."""
    return _scaled_w4(_select(packed, rows), _select(scales, rows), group)


def check_group(group: int, width: int) -> None:
    """Refuse a group that the 4-bit format does not have, or that K is no multiple of, with a ValueError."""
    if group not in GROUPS:
        raise ValueError(f"group is {group} but must be 32, 64 or 128: choose one of these")
    if width % group:
        raise ValueError(
            f"K {width} must be a multiple of group {group}: pad both with zeros, or use a smaller group"
        )


def _checked(weight: Tensor) -> Tensor:
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(
            f"weight is {weight.dtype} {tuple(weight.shape)} but must be floating (N, K): cast or reshape it"
        )
    return weight


def _by_blocks(weight: Tensor, pack: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What `pack` makes of whole blocks of rows in fp32, few at a time so that they stay in cache."""
    at_a_time = weight.numel() if weight.is_meta else _ELEMENTS_AT_A_TIME
    rows = max(1, at_a_time // (BLOCK_ROWS * max(1, weight.shape[1]))) * BLOCK_ROWS
    whole: list[Tensor] = []
    for number, part in enumerate(weight.split(rows)):
        packed = pack(part.detach().float())
        # not joined at the end, which would take all of it twice
        whole = whole or [huge_pages.zeros((len(weight), *x.shape[1:]), x.dtype, x.device) for x in packed]
        for one, other in zip(whole, packed, strict=True):
            one[number * rows : (number + 1) * rows] = other
    return whole[0], whole[1]


def _pack_w8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = _finite(weight.abs().amax(-1)) / 127.0  # (N,)
    integers = (weight / _or_one(scales)[:, None]).round()
    return _interleave(_to_words(F.pad(integers, (0, -weight.shape[1] % W8_COLUMNS)), bits=8)), scales


def _pack_w4(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    grouped = weight.unflatten(-1, (-1, group))  # (N, K / group, group)
    least, largest = (_finite(extreme) for extreme in grouped.aminmax(dim=-1, keepdim=True))
    # there is a -8, but no 8: the scale has the sign that makes the largest weight negative
    extreme = torch.where(largest > -least, largest, least)
    scales, error = torch.zeros_like(extreme), torch.full_like(extreme, torch.inf)
    for steps in _W4_STEPS:
        scale = (-extreme / steps).bfloat16().float()
        candidate = torch.addcmul(grouped, _integers(grouped, scale), scale, value=-1)
        squares = candidate.square_().sum(-1, keepdim=True)
        scales, error = torch.where(squares < error, scale, scales), torch.minimum(squares, error)
    words = _to_words(_integers(grouped, scales).flatten(1), bits=4)
    return _interleave(words), _interleave(scales.squeeze(-1).bfloat16())


def _integers(grouped: Tensor, scale: Tensor) -> Tensor:
    return (grouped / _or_one(scale)).round_().clamp_(-8, 7)


def _finite(extremes: Tensor) -> Tensor:
    """The largest or least of the weights, which are not finite if one weight is not."""
    if not (extremes.is_meta or extremes.isfinite().all()):
        raise ValueError("weight holds NaN or infinity, which have no integer: repair it before packing")
    return extremes


def _scaled_w8(words: Tensor, scales: Tensor) -> Tensor:
    return _from_words(words, bits=8).to(scales.dtype) * scales[:, None]


def _scaled_w4(words: Tensor, scales: Tensor, group: int) -> Tensor:
    dtype = torch.promote_types(scales.dtype, torch.float32)
    integers = _from_words(words, bits=4).to(dtype)
    return (integers.unflatten(-1, (-1, group)) * scales.to(dtype)[..., None]).flatten(1)


def _or_one(scales: Tensor) -> Tensor:
    """Scales to divide by: a group of zeros has the scale 0."""
    return torch.where(scales == 0, 1.0, scales)


def _to_words(integers: Tensor, bits: int) -> Tensor:
    """Signed integers (N, K) as words (N, K bits / 32)."""
    columns = 32 // bits
    # column 2 j + half is at bit 16 half + bits j
    shifts = 16 * (torch.arange(columns) % 2) + bits * (torch.arange(columns) // 2)
    fields = integers.unflatten(-1, (-1, columns)).to(torch.int32) & ((1 << bits) - 1)
    return (fields << shifts.to(fields)).sum(-1, dtype=torch.int32)


def _from_words(words: Tensor, bits: int) -> Tensor:
    """What `_to_words` packed, int32."""
    columns = 32 // bits
    shifts = 16 * (torch.arange(columns) % 2) + bits * (torch.arange(columns) // 2)
    # up to the sign bit, then down with the sign
    return (words[..., None] << (32 - bits - shifts).to(words) >> (32 - bits)).flatten(1)


def _interleave(rows: Tensor) -> Tensor:
    """(N, W), stored as blocks of (W, 16)."""
    whole = len(rows) // BLOCK_ROWS * BLOCK_ROWS
    blocks = rows[:whole].unflatten(0, (-1, BLOCK_ROWS)).transpose(1, 2)  # (N // 16, W, 16)
    return torch.cat([blocks.flatten(), rows[whole:].t().flatten()]).view(rows.shape)


def _separate(stored: Tensor) -> Tensor:
    """What `_interleave` stored."""
    whole, width = len(stored) // BLOCK_ROWS * BLOCK_ROWS, stored.shape[1]
    blocks = stored[:whole].reshape(-1, width, BLOCK_ROWS).transpose(1, 2)  # (N // 16, 16, W)
    return torch.cat([blocks.flatten(0, 1), stored[whole:].reshape(width, -1).t()])


def _select(stored: Tensor, rows: Tensor) -> Tensor:
    """The rows (R,) of what `_separate` gives."""
    count, width = stored.shape
    first = rows // BLOCK_ROWS * BLOCK_ROWS
    height = (count - first).clamp(max=BLOCK_ROWS)  # of each row's block
    columns = torch.arange(width, device=rows.device)
    return stored.flatten()[(first * width + rows - first)[:, None] + columns * height[:, None]]  # (R, W)
