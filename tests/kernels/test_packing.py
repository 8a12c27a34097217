"""Several sequences in one row against each alone: convolution and scan together."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cobra.kernels.ops import causal_conv1d, selective_scan, ssd_chunk_scan

Mix = Callable[..., tuple[Tensor, Tensor, Tensor]]
# one is longer than what the native SSD takes as one chunk
LENGTHS = (3, 140, 1, 9)
# the native kernels take fp32, plain PyTorch fp64
DTYPES = (torch.float64, torch.float32)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    tolerance = 1e-5 if expected.dtype == torch.float32 else 1e-7
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def mix2(tokens: Tensor, **rows: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mamba-2 between its linears without norm: (B, L, 20) to y (B, L, 4, 2) and both states."""
    xbc, dt = tokens.split([16, 4], dim=-1)
    xbc, conv_state = causal_conv1d(xbc, normal(16, 4, seed=1), normal(16, seed=2), activation="silu", **rows)
    x, B, C = xbc.split([8, 4, 4], dim=-1)
    x, B, C = x.unflatten(2, (4, 2)), B.unflatten(2, (2, 2)), C.unflatten(2, (2, 2))
    y, state = ssd_chunk_scan(
        x,
        dt,
        -normal(4, seed=3).exp(),
        B,
        C,
        dt_bias=normal(4, seed=4),
        dt_softplus=True,
        chunk_size=8,
        **rows,
    )
    return y, conv_state, state


def mix1(tokens: Tensor, **rows: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mamba-1 between its linears, all projections taken from the tokens: (B, L, 20) to y (B, L, 6)."""
    x, conv_state = causal_conv1d(tokens[..., :6], normal(6, 4, seed=1), activation="silu", **rows)
    delta, B, C = tokens[..., 6:12], tokens[..., None, 12:16], tokens[..., None, 16:20]
    y, state = selective_scan(x, delta, -normal(6, 4, seed=2).exp(), B, C, delta_softplus=True, **rows)
    return y, conv_state, state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mix", [mix1, mix2])
def test_packed_sequences_equal_separate_ones(mix: Mix, dtype: torch.dtype) -> None:
    parts = [normal(1, length, 20, seed=length, dtype=dtype) for length in LENGTHS]
    ids = torch.cat(
        [torch.full((1, len(part[0])), i, dtype=torch.int32) for i, part in enumerate(parts)], dim=1
    )
    packed, conv_state, state = mix(torch.cat(parts, dim=1), seq_idx=ids)
    alone = [mix(part) for part in parts]
    assert_close(packed, torch.cat([y for y, _, _ in alone], dim=1))
    assert_close(conv_state, alone[-1][1])
    assert_close(state, alone[-1][2])


def test_the_given_state_reaches_the_first_sequence_only() -> None:
    x, dt, B = normal(1, 10, 2, 3), normal(1, 10, 2, seed=1).abs(), normal(1, 10, 1, 4, seed=2)
    ids = torch.tensor([[5] * 6 + [7] * 4])
    arguments = (x, dt, -torch.ones(2).double(), B, B)
    with_state, _ = ssd_chunk_scan(
        *arguments, seq_idx=ids, initial_state=normal(1, 2, 3, 4, seed=3), chunk_size=4
    )
    without, _ = ssd_chunk_scan(*arguments, seq_idx=ids, chunk_size=4)
    assert (with_state[:, :6] - without[:, :6]).abs().amin() > 1e-6
    assert_close(with_state[:, 6:], without[:, 6:])
