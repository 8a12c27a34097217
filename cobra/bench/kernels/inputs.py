"""Inputs of the scans, the same for our kernels and for transformers' path."""

from typing import Any

import torch
from torch import Tensor

from cobra.bench.timing.case import normal


def ssd_inputs(length: int, heads: int, head_dim: int, d_state: int, dtype: str) -> dict[str, Any]:
    """x, B and C as a trained Mamba-2's projection gives them, dt before its bias and softplus.

    x (1, L, H, P), dt (1, L, H), A (H), B and C (1, L, 1, N), D and dt_bias (H). x, dt, B and C are views of
    one projection, as in the model.
    """
    inner = heads * head_dim
    widths = (inner, d_state, d_state, heads)
    x, B, C, dt = normal(1, length, sum(widths), dtype=dtype).split(widths, dim=-1)
    return {
        "x": x.unflatten(-1, (heads, head_dim)),  # (1, L, H, P)
        "dt": dt,
        "A": -torch.linspace(1, 16, heads),
        "B": B.unflatten(-1, (1, d_state)),  # (1, L, 1, N)
        "C": C.unflatten(-1, (1, d_state)),
        "D": torch.ones(heads),
        # dt of about 0.02, the middle of the published range
        "dt_bias": torch.full((heads,), -4.0),
    }


def selective_inputs(length: int, channels: int, d_state: int, dtype: str) -> dict[str, Any]:
    """u, delta and z (1, L, D), A (D, N), B and C (1, L, N), D and delta_bias (D)."""
    return {
        "u": normal(1, length, channels, dtype=dtype),
        "delta": normal(1, length, channels, dtype=dtype, seed=1),
        "A": -torch.arange(1, d_state + 1, dtype=torch.float32).repeat(channels, 1),
        "B": normal(1, length, d_state, dtype=dtype, seed=2),
        "C": normal(1, length, d_state, dtype=dtype, seed=3),
        "D": torch.ones(channels),
        "z": normal(1, length, channels, dtype=dtype, seed=4),
        "delta_bias": torch.full((channels,), -4.0),
    }


def independent(inputs: dict[str, Any]) -> dict[str, Any]:
    """Copies, so that each can have a gradient of its own."""
    return {name: tensor.clone() for name, tensor in inputs.items()}


def random_ids(length: int, vocabulary: int) -> Tensor:
    """Token ids (1, L)."""
    return torch.randint(0, vocabulary, (1, length), generator=torch.Generator().manual_seed(5))
