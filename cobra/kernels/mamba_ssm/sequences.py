"""The sequence of each token, as upstream's kernels read it."""

import torch
from torch import Tensor


def numbered(seq_idx: Tensor | None) -> Tensor | None:
    """seq_idx (B, L), int32, counted from 0: upstream takes a negative one for padding, and the sequence
    that the initial state belongs to for number 0."""
    if seq_idx is None:
        return None
    changes = seq_idx.diff(dim=1, prepend=seq_idx[:, :1]) != 0
    return changes.cumsum(1, dtype=torch.int32)
