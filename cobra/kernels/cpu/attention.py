"""Attention of one query a sequence on the native kernels; arguments as in `cobra.kernels.ops`."""

from torch import Tensor

from cobra.kernels.call import NO_GRADIENT, limited
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import register
from cobra.kernels.cpu.tensors import native, writable

_attention = Kernel("decode_attention", arrays=8, sizes=6, reals=1)
_step = Kernel("attention_step", arrays=8, sizes=6, reals=1)
_advance = Kernel("advance", arrays=1, sizes=1)


@limited(NO_GRADIENT)
def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None, scale: float | None
) -> Tensor:
    """softmax(scale q keys^T) values, one query a sequence and head."""
    lengths = None if lengths is None else lengths.long()
    return _decode_attention(
        q, native(keys), native(values), lengths, q.shape[-1] ** -0.5 if scale is None else scale
    )


@limited(NO_GRADIENT)
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
    past = [writable(keys), writable(values)]
    y = _attention_step(
        q, native(k), native(v), *past, lengths, native(rotation),
        q.shape[-1] ** -0.5 if scale is None else scale,
    )  # fmt: skip
    for state, changed in zip((keys, values), past, strict=True):
        if changed is not state:
            state.copy_(changed)
    return y


def advance(lengths: Tensor) -> None:
    """Add 1 to each of `lengths`, in place."""
    dense = lengths.contiguous()
    _count_up(dense)
    if dense is not lengths:
        lengths.copy_(dense)


def _run(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None, scale: float) -> Tensor:
    y = q.new_empty(q.shape)
    if y.numel():
        batch, heads, head_dim = q.shape
        sizes = (batch, heads, *keys.shape[1:3], head_dim, 0)
        _attention((q, keys, values, lengths, y, None, None, None), sizes, scale)
    return y


_decode_attention = register(
    "decode_attention(Tensor q, Tensor keys, Tensor values, Tensor? lengths, float scale) -> Tensor",
    _run,
    lambda q, *_: q.new_empty(q.shape),
)


def _run_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    rotation: Tensor,
    scale: float,
) -> Tensor:
    y = q.new_empty(q.shape)
    if y.numel():
        batch, heads, head_dim = q.shape
        sizes = (batch, heads, *keys.shape[1:3], head_dim, rotation.shape[1])
        _step((q, keys, values, lengths, y, k, v, rotation), sizes, scale)
    return y


_attention_step = register(
    "attention_step(Tensor q, Tensor k, Tensor v, Tensor(a!) keys, Tensor(b!) values, Tensor lengths,"
    " Tensor rotation, float scale) -> Tensor",
    _run_step,
    lambda q, *_: q.new_empty(q.shape),
)
_count_up = register(
    "advance(Tensor(a!) lengths) -> ()", lambda lengths: _advance((lengths,), (len(lengths),)), lambda _: None
)
