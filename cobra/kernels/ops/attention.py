"""Attention of one new token over the keys and values of its past, alone and with what comes before it."""

import torch
from torch import Tensor

from cobra.kernels.checks import INTEGERS, check, check_divides, check_first, check_state
from cobra.kernels.dispatch import op


@op
def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """softmax(scale q keys^T) values, (B, H, P) in q's dtype, for one query a sequence and head.

    Reads keys and values once, where they lie: they may be views into longer buffers. Softmax and sums in
    fp32 or fp64. Source: arXiv 1706.03762, equation 1; heads share keys and values in groups as in
    arXiv 2305.13245.

    Args:
        q: (B, H, P).
        keys: (B, G, T, P), of T tokens, the query's own among them; head h reads group h // (H / G).
        values: (B, G, T, P).
        lengths: (B,) int64, how many tokens a row reads, its first ones, 1 at least and T at most; what lies
            behind them is not read. None: T.
        scale: 1 / sqrt(P) by default.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_first("q", q, "B, H, P")
    check_first("keys", keys, "B, G, T, P")
    (batch, heads, head_dim), (groups, length) = q.shape, keys.shape[1:3]
    check("keys", keys, "B, G, T, P", (batch, groups, length, head_dim), q)
    check("values", values, "B, G, T, P", tuple(keys.shape), q, (keys.dtype,))
    check("lengths", lengths, "B", (batch,), q, INTEGERS)
    check_divides("the G of keys", groups, "the H of q", heads)
    if length < 1:
        raise ValueError("keys hold no token: write the query's own before it attends")


@op(changes=("keys", "values"))
def attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    rotation: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """y (B, H, P) in q's dtype: one token a row between the linears of an attention layer.

    Turns q and k as the token's position says (rotary embedding, arXiv 2104.09864, halves of a head as in
    LLaMA), writes k and v behind the tokens that the row has, and attends as `decode_attention` to all of
    them. How many those are is in a tensor, so the same call serves every token.

    Args:
        q: (B, H, P).
        k: (B, G, P).
        v: (B, G, P).
        keys: (B, G, T, P), of room for T tokens, changed in place; head h reads group h // (H / G).
        values: as keys.
        lengths: (B,) int64, less than T: how many tokens a row has, which is the new one's position.
        rotation: (T', R), T' >= T: for each position of a sequence R / 2 cosines, then as many sines.
            Channels from R on are not turned.
        scale: 1 / sqrt(P) by default.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument, or a row has no room.
    """
    check_first("q", q, "B, H, P")
    check_first("k", k, "B, G, P")
    check_first("keys", keys, "B, G, T, P")
    (batch, heads, head_dim), groups, room = q.shape, k.shape[1], keys.shape[2]
    check("k", k, "B, G, P", (batch, groups, head_dim), q)
    check("v", v, "B, G, P", (batch, groups, head_dim), q)
    check("keys", keys, "B, G, T, P", (batch, groups, room, head_dim), q)
    check("values", values, "B, G, T, P", tuple(keys.shape), q, (keys.dtype,))
    check_state("keys", keys)
    check_state("values", values)
    check("lengths", lengths, "B", (batch,), q, (torch.int64,))
    check_first("rotation", rotation, "T', R")
    check("rotation", rotation, "T', R", (max(room, len(rotation)), rotation.shape[1]), q)
    if rotation.shape[1] % 2 or rotation.shape[1] > head_dim:
        raise ValueError(
            f"the R of rotation is {rotation.shape[1]} but must be even and at most P, {head_dim}"
        )
    check_divides("the G of keys", groups, "the H of q", heads)


@op
def advance(lengths: Tensor) -> None:
    """Add 1 to each of the `lengths` (B,) int64 of `attention_step`, in place: the last kernel of a step.

    Raises:
        ValueError: if shape or dtype does not fit.
    """
    check("lengths", lengths, "B", (lengths.numel(),), lengths, (torch.int64,))
    check_state("lengths", lengths)
