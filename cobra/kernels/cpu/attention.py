"""Attention of one query a sequence on the native kernels."""

from torch import Tensor

from cobra.kernels.cpu import OPERATORS
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.tensors import keep, like_first, native, writable

_attention = Kernel("decode_attention", arrays=8, sizes=6, reals=1)
_step = Kernel("attention_step", arrays=8, sizes=6, reals=1)
_advance = Kernel("advance", arrays=1, sizes=1)


@OPERATORS.register(like_first)
def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None, scale: float | None
) -> Tensor:
    """softmax(scale q keys^T) values, one query a sequence and head."""
    y, (batch, heads, head_dim) = q.new_empty(q.shape), q.shape
    if y.numel():
        lengths = None if lengths is None else lengths.long()
        arrays = (q, native(keys), native(values), lengths, y, None, None, None)
        sizes = (batch, heads, *keys.shape[1:3], head_dim, 0)
        _attention(arrays, sizes, head_dim**-0.5 if scale is None else scale)
    return y


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
    """One token between the linears of an attention layer."""
    y, (batch, heads, head_dim) = q.new_empty(q.shape), q.shape
    if y.numel():
        past = writable(keys), writable(values)
        arrays = (q, *past, lengths, y, native(k), native(v), native(rotation))
        sizes = (batch, heads, *keys.shape[1:3], head_dim, rotation.shape[1])
        _step(arrays, sizes, head_dim**-0.5 if scale is None else scale)
        keep(keys, past[0])
        keep(values, past[1])
    return y


@OPERATORS.register(lambda _: None, changes=("lengths",))
def advance(lengths: Tensor) -> None:
    """Add 1 to each of `lengths`, in place."""
    dense = lengths.contiguous()
    _advance((dense,), lengths.shape)
    keep(lengths, dense)
