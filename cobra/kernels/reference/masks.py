"""Tokens under a False mask (B, L), made to leave no trace."""

from typing import overload

import torch
from torch import Tensor


@overload
def blank(x: Tensor, mask: Tensor) -> Tensor: ...
@overload
def blank(x: None, mask: Tensor) -> None: ...
def blank(x: Tensor | None, mask: Tensor) -> Tensor | None:
    """x (B, L, ...) with zeros under the mask, which whatever is there reaches neither on nor back.

    The tokens may be in chunks in both, (B, K, Q, ...).
    """
    return None if x is None else x.masked_fill(~mask.view(*mask.shape, *[1] * (x.dim() - mask.dim())), 0.0)


def join_sequences(seq_idx: Tensor | None, mask: Tensor) -> Tensor | None:
    """seq_idx (B, L) with that of the token before under the mask, or of the first one that is not."""
    if seq_idx is None:
        return None
    first = seq_idx.scatter(1, places(mask), seq_idx)
    return first.gather(1, (mask.cumsum(1) - 1).clamp(min=0))


def places(mask: Tensor) -> Tensor:
    """Where each token goes when those under the mask go behind all others, (B, L); the order stays."""
    seen = mask.cumsum(1)
    return torch.where(mask, seen, seen[:, -1:] + (~mask).cumsum(1)) - 1
