"""Attention of one query a sequence over the keys and values of its past."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.precision import accumulator, without_autocast


@without_autocast
def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, starts: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """softmax(scale q keys^T) values, one query a sequence and head; as `ops.decode_attention`."""
    dtype, length = torch.promote_types(q.dtype, keys.dtype), keys.shape[2]
    seen = None
    if starts is not None:
        index = torch.arange(length, device=q.device)
        seen = (index >= starts.clamp(max=length - 1)[:, None])[:, None, None]  # (B, 1, 1, T)
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
    position: Tensor,
    rotation: Tensor,
    starts: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """One token between the linears of an attention layer; as `ops.attention_step`."""
    at = int(position)
    if not 0 <= at < keys.shape[2]:
        raise ValueError(f"position is {at} but keys hold {keys.shape[2]} tokens: allocate more")
    # 1. rotate
    places = torch.full((len(q),), at, device=q.device)
    places = places if starts is None else places - starts.clamp(0, at)
    turns = rotation[places].unsqueeze(1)  # (B, 1, R)
    q, k = rotate(q, turns), rotate(k, turns)
    # 2. write
    keys[:, :, at] = k.to(keys.dtype)
    values[:, :, at] = v.to(values.dtype)
    # 3. attend
    return decode_attention(q, keys[:, :, : at + 1], values[:, :, : at + 1], starts, scale=scale)


def advance(position: Tensor) -> None:
    """Raise `position` by 1, in place."""
    position += 1


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """x (..., P) with channel i turned with channel i + R / 2; turns: R / 2 cosines, then as many sines."""
    turned, rest = x[..., : turns.shape[-1]], x[..., turns.shape[-1] :]
    cos, sin = turns.to(accumulator(x)).chunk(2, dim=-1)
    first, second = turned.to(cos.dtype).chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(x.dtype), rest], dim=-1)
