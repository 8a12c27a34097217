"""Attention of one new token over the keys and values of its past."""

from torch import Tensor

from cobra.kernels.call import needs_gradient
from cobra.kernels.checks import INTEGERS, check, check_divides, check_first
from cobra.kernels.dispatch import resolve


def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, starts: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """softmax(scale q keys^T) values, (B, H, P) in q's dtype, for one query a sequence and head.

    Reads keys and values once, where they lie: they may be views into longer buffers. Softmax and sums in
    fp32 or fp64. Source: arXiv 1706.03762, equation 1; heads share keys and values in groups as in
    arXiv 2305.13245.

    Args:
        q: (B, H, P).
        keys: (B, G, T, P), of T tokens, the query's own among them; head h reads group h // (H / G).
        values: (B, G, T, P).
        starts: (B,) int64, a row's first token; those before it are padding. At least the last token is read.
            None: 0.
        scale: 1 / sqrt(P) by default.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_first("q", q, "B, H, P")
    check_first("keys", keys, "B, G, T, P")
    (batch, heads, head_dim), (groups, length) = q.shape, keys.shape[1:3]
    check("keys", keys, "B, G, T, P", (batch, groups, length, head_dim), q)
    check("values", values, "B, G, T, P", tuple(keys.shape), q, (keys.dtype,))
    check("starts", starts, "B", (batch,), q, INTEGERS)
    check_divides("the G of keys", groups, "the H of q", heads)
    if length < 1:
        raise ValueError("keys hold no token: write the query's own before it attends")
    gradient = needs_gradient(q, keys, values)
    return resolve("decode_attention", q.device.type, q.dtype, gradient=gradient)(
        q, keys, values, starts, scale=head_dim**-0.5 if scale is None else scale
    )
