"""Attention of one query a sequence on the native kernels; arguments as in `cobra.kernels.ops`."""

from torch import Tensor

from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import register
from cobra.kernels.cpu.tensors import native

_attention = Kernel("decode_attention", arrays=5, sizes=5, reals=1)


def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, starts: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """softmax(scale q keys^T) values, one query a sequence and head."""
    starts = None if starts is None else starts.long()
    return _decode_attention(
        q, native(keys), native(values), starts, q.shape[-1] ** -0.5 if scale is None else scale
    )


def _run(q: Tensor, keys: Tensor, values: Tensor, starts: Tensor | None, scale: float) -> Tensor:
    y = q.new_empty(q.shape)
    if y.numel():
        batch, heads, head_dim = q.shape
        sizes = (batch, heads, *keys.shape[1:3], head_dim)
        _attention((q, keys, values, starts, y), sizes, scale)
    return y


_decode_attention = register(
    "decode_attention(Tensor q, Tensor keys, Tensor values, Tensor? starts, float scale) -> Tensor",
    _run,
    lambda q, *_: q.new_empty(q.shape),
)
