"""Attention of one query a sequence in Triton: a launch for parts of the context, and one that combines them.

How far a row goes is read on the device, so that a captured step serves every token. A row without room is
therefore no ValueError here, as on other backends: nothing is written for it, and its y is NaN.
"""

import math

import torch
import triton
from torch import Tensor

from cobra.kernels.triton import OPERATORS
from cobra.kernels.triton.attention_kernels import advance_kernel, attention_kernel, combine_kernel
from cobra.kernels.triton.launch import launch
from cobra.kernels.triton.tensors import like_first, strides

# tokens of a part at least, parts of a row at most, and programs beyond which parts only cost
_SPAN, _PARTS, _PROGRAMS = 128, 128, 1024
# heads that share keys and are taken together at most
_HEADS = 32


def _attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor | None,
    scale: float | None,
    new: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:
    """y like q, of the tokens that lengths says and, behind them, of a `new` one: k, v and rotation."""
    y, (batch, heads, head_dim), (groups, room) = q.new_empty(q.shape), q.shape, keys.shape[1:3]
    together, columns = heads // groups, triton.next_power_of_2(head_dim)
    if together > 1:
        # the least that a tensor core multiplies
        together, columns = min(max(triton.next_power_of_2(together), 16), _HEADS), max(columns, 16)
    half = q.dtype == keys.dtype and q.element_size() == 2
    # 8 KiB of keys at once, 16 on tensor cores
    tile = 16384 if together > 1 and half else 8192
    tokens = max(min(tile // (columns * keys.element_size()), 128), 16)
    span = _span(room, batch * groups, tokens)
    # one where there is no room at all, which shows
    parts = max(1, -(-room // span))
    of_parts = 0 if parts == 1 else q.numel() * parts
    mixtures = q.new_empty(of_parts, dtype=torch.float32)
    sums = q.new_empty(2 * (of_parts // head_dim), dtype=torch.float32)
    k, v, rotation = (None, None, None) if new is None else new
    modes = {"STEPS": new is not None, "LIMITED": lengths is not None}
    launch(
        attention_kernel, (parts, groups * -(-(heads // groups) // together), batch),
        q, keys, values, lengths, k, v, rotation, y, mixtures, sums,
        *q.stride(), *keys.stride(), *values.stride(), *strides(lengths, 1), *strides(k, 3), *strides(v, 3),
        *strides(rotation, 2), heads, groups, head_dim, room,
        # powers of two are taken, not of e
        (head_dim**-0.5 if scale is None else scale) * math.log2(math.e), span,
        0 if rotation is None else rotation.shape[1] // 2, **modes, WHOLE=parts == 1,
        HALF=half,
        HEADS=together, P_BLOCK=columns, TOKENS=tokens, num_stages=3,
    )  # fmt: skip
    if parts > 1:
        launch(
            combine_kernel, (batch * heads, -(-head_dim // 32)), mixtures, sums,
            lengths, y, *strides(lengths, 1), heads, head_dim, room, span, parts,
            **modes, PARTS=triton.next_power_of_2(parts), BLOCK=32,
        )  # fmt: skip
    return y


def _span(room: int, rows: int, tokens: int) -> int:
    """Tokens of a part, whole tiles, as the shapes alone say: enough parts to fill a GPU, and no more."""
    span = max(_SPAN, -(-room * rows // _PROGRAMS), -(-room // _PARTS))
    return -(-span // tokens) * tokens


@OPERATORS.register(like_first)
def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None, scale: float | None
) -> Tensor:
    """softmax(scale q keys^T) values, one query a sequence and head."""
    return _attend(q, keys, values, lengths, scale, None)


@OPERATORS.register(like_first, changes=("keys", "values"))
def attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    rotation: Tensor,
    scale: float | None,
) -> Tensor:
    """One token between the linears of an attention layer; NaN where a row has no room."""
    return _attend(q, keys, values, lengths, scale, (k, v, rotation))


@OPERATORS.register(lambda _: None, changes=("lengths",))
def advance(lengths: Tensor) -> None:
    """Add 1 to each of `lengths`, in place."""
    rows = lengths.numel()
    launch(advance_kernel, (-(-rows // 1024),), lengths, lengths.stride(0), rows, BLOCK=1024)
