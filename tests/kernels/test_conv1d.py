"""`causal_conv1d` against its definition, written out in loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.ops import causal_conv1d, causal_conv1d_update
from cobra.kernels.scan_order import ScanOrder

BATCH, CHANNELS = 2, 5


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def convolve_in_loops(x: Tensor, weight: Tensor, bias: Tensor, before: Tensor, seq_idx: Tensor) -> Tensor:
    """One row: x (L, C), before (C, K - 1), seq_idx (L,)."""
    taps = weight.shape[1]
    inputs = torch.cat([before.T, x])
    sequence = [seq_idx[0].item()] * (taps - 1) + seq_idx.tolist()
    y = bias.expand(len(x), CHANNELS).clone()
    for t in range(len(x)):
        for k in range(taps):
            if sequence[t + k] == sequence[t + taps - 1]:
                y[t] += weight[:, k] * inputs[t + k]
    return F.silu(y)


@pytest.mark.parametrize("length", [1, 2, 3, 9])
@pytest.mark.parametrize("taps", [2, 4])
@pytest.mark.parametrize("packed", [False, True])
def test_output_is_that_of_the_definition(length: int, taps: int, packed: bool) -> None:
    x, weight, bias = (
        normal(BATCH, length, CHANNELS),
        normal(CHANNELS, taps, seed=1),
        normal(CHANNELS, seed=2),
    )
    before = normal(BATCH, CHANNELS, taps - 1, seed=3)
    ids = (torch.arange(length) // 2).expand(BATCH, length) if packed else torch.zeros(BATCH, length).int()
    y, _ = causal_conv1d(
        x, weight, bias, initial_state=before, seq_idx=ids if packed else None, activation="silu"
    )
    for row in range(BATCH):
        torch.testing.assert_close(y[row], convolve_in_loops(x[row], weight, bias, before[row], ids[row]))


@pytest.mark.parametrize("taps", [2, 4])
def test_reversed_each_token_sees_those_behind_it(taps: int) -> None:
    x, weight = normal(BATCH, 6, CHANNELS), normal(CHANNELS, taps, seed=1)
    y, state = causal_conv1d(x, weight, scan_order="reversed")
    behind = F.pad(x, (0, 0, 0, taps - 1))  # zeros after the last token
    for t in range(6):
        seen = [weight[:, taps - 1 - k] * behind[:, t + k] for k in range(taps)]
        torch.testing.assert_close(y[:, t], torch.stack(seen).sum(0))
    # oldest first: the first token was visited last
    torch.testing.assert_close(state, x[:, : taps - 1].flip(1).transpose(1, 2))


@pytest.mark.parametrize("scan_order", ["columns", "columns_reversed"])
def test_columns_are_convolved_one_after_the_other(scan_order: ScanOrder) -> None:
    x, weight = normal(BATCH, 12, CHANNELS), normal(CHANNELS, 4, seed=1)
    y, state = causal_conv1d(x, weight, scan_order=scan_order, grid=(3, 4))
    columns = x.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)
    expected, expected_state = causal_conv1d(
        columns, weight, scan_order="forward" if scan_order == "columns" else "reversed"
    )
    torch.testing.assert_close(y.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2), expected)
    torch.testing.assert_close(state, expected_state)


@pytest.mark.parametrize("scan_order", ["forward", "reversed"])
@pytest.mark.parametrize("packed", [False, True])
def test_gradients_are_those_of_finite_differences(packed: bool, scan_order: ScanOrder) -> None:
    shapes = ((BATCH, 5, CHANNELS), (CHANNELS, 4), (CHANNELS,), (BATCH, CHANNELS, 3))
    leaves = tuple(normal(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes))
    ids = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 1, 2]]) if packed else None

    def convolve(x: Tensor, weight: Tensor, bias: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        return causal_conv1d(
            x, weight, bias, initial_state=before, seq_idx=ids, activation="silu", scan_order=scan_order
        )

    assert torch.autograd.gradcheck(convolve, leaves, fast_mode=True)


@pytest.mark.parametrize("first", [0, 1, 2, 3, 8])
def test_two_parts_equal_one(first: int) -> None:
    x, weight = normal(BATCH, 10, CHANNELS), normal(CHANNELS, 4, seed=1)
    whole, last = causal_conv1d(x, weight)
    head, state = causal_conv1d(x[:, :first], weight)
    tail, state = causal_conv1d(x[:, first:], weight, initial_state=state)
    torch.testing.assert_close(torch.cat([head, tail], dim=1), whole)
    torch.testing.assert_close(state, last)


def test_updates_token_by_token_equal_the_whole() -> None:
    x, weight, bias = normal(BATCH, 6, CHANNELS), normal(CHANNELS, 4, seed=1), normal(CHANNELS, seed=2)
    whole, last = causal_conv1d(x, weight, bias, activation="silu")
    state = torch.zeros(BATCH, CHANNELS, 3, dtype=torch.float64)
    for t in range(6):
        torch.testing.assert_close(causal_conv1d_update(x[:, t], state, weight, bias, "silu"), whole[:, t])
    torch.testing.assert_close(state, last)


def test_final_state_is_the_last_inputs_with_zeros_before_a_short_sequence() -> None:
    x, weight = normal(1, 2, CHANNELS), normal(CHANNELS, 4, seed=1)
    _, state = causal_conv1d(x, weight)
    torch.testing.assert_close(state[0], torch.cat([torch.zeros(CHANNELS, 1), x[0].T], dim=1).double())


def test_final_state_forgets_the_sequences_before_the_last() -> None:
    x, weight = normal(1, 7, CHANNELS), normal(CHANNELS, 4, seed=1)
    ids = torch.tensor([[0, 0, 0, 0, 0, 1, 1]])
    _, packed = causal_conv1d(x, weight, seq_idx=ids)
    _, alone = causal_conv1d(x[:, 5:], weight)
    torch.testing.assert_close(packed, alone)


def test_half_precision_sums_in_fp32() -> None:
    x, weight = (
        normal(1, 20, CHANNELS, dtype=torch.bfloat16),
        normal(CHANNELS, 4, seed=1, dtype=torch.bfloat16),
    )
    y, state = causal_conv1d(x, weight, activation="silu")
    exact, _ = causal_conv1d(x.double(), weight.double(), activation="silu")
    assert y.dtype == state.dtype == torch.bfloat16
    torch.testing.assert_close(y, exact.bfloat16(), rtol=1e-2, atol=1e-6)
