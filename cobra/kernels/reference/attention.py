"""Attention of one query a sequence over the keys and values of its past."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.precision import accumulator, without_autocast


@without_autocast
def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None, scale: float | None
) -> Tensor:
    """softmax(scale q keys^T) values, one query a sequence and head; as `ops.decode_attention`."""
    dtype = torch.promote_types(q.dtype, keys.dtype)
    seen = None
    if lengths is not None:
        index = torch.arange(keys.shape[2], device=q.device)
        seen = (index < lengths.clamp(min=1)[:, None])[:, None, None]  # (B, 1, 1, T)
        # a weight of 0 does not undo what is not finite
        keys, values = (x.masked_fill(~seen.mT, 0) for x in (keys, values))
    # heads that share keys are so many queries of one head: nothing is repeated
    together = q.to(dtype).unflatten(1, (keys.shape[1], -1))  # (B, G, H / G, P)
    y = F.scaled_dot_product_attention(
        together, keys.to(dtype), values.to(dtype), attn_mask=seen, scale=scale
    )
    return y.flatten(1, 2).to(q.dtype)


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
    """One token between the linears of an attention layer; as `ops.attention_step`."""
    rows, (end, ends) = torch.arange(len(q), device=q.device), _ends(lengths, keys.shape[2])
    # 1. rotate
    turns = rotation[lengths].unsqueeze(1)  # (B, 1, R)
    q, k = rotate(q, turns), rotate(k, turns)
    # 2. write; a copy, because autograd saves it and the lengths count on
    places = lengths.clone()
    keys[rows, :, places] = k.to(keys.dtype)
    values[rows, :, places] = v.to(values.dtype)
    # 3. attend, to nothing behind the longest row
    return decode_attention(q, keys[:, :, :end], values[:, :, :end], ends, scale)


def _ends(lengths: Tensor, room: int) -> tuple[int, Tensor | None]:
    """Tokens that the longest row then has, and how many each has, where they differ."""
    if not _is_read_at_once(lengths):
        # instead all that there is room for is read
        return room, lengths + 1
    had = lengths.tolist()
    if not all(0 <= length < room for length in had):
        raise ValueError(f"lengths are {had} but keys hold {room} tokens: allocate more")
    end = max(had, default=0) + 1
    return end, None if min(had, default=0) + 1 == end else lengths + 1


def _is_read_at_once(x: Tensor) -> bool:
    """Whether no device has to be waited for, as it would be in every layer."""
    return x.device.type == "cpu"


def advance(lengths: Tensor) -> None:
    """Add 1 to each of `lengths`, in place."""
    lengths += 1


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """x (..., P) with channel i turned with channel i + R / 2; turns: R / 2 cosines, then as many sines."""
    turned, rest = x[..., : turns.shape[-1]], x[..., turns.shape[-1] :]
    cos, sin = turns.to(accumulator(x)).chunk(2, dim=-1)
    first, second = turned.to(cos.dtype).chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(x.dtype), rest], dim=-1)
