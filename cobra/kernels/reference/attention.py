"""Attention of one query a sequence over the keys and values of its past."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.precision import without_autocast


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
