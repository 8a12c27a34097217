"""The ops inside torch.export and torch.compile."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cobra.kernels.ops import causal_conv1d, mamba2_step, rms_norm, selective_scan, ssd_chunk_scan


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


CONV, NORM = normal(16, 4), normal(8)


def scan2(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mamba-2's convolution and scan in three chunks, the last one short: (B, 20, 20) to y and state."""
    xbc, dt = tokens.split([16, 4], dim=-1)
    xbc, _ = causal_conv1d(xbc, CONV, activation="silu")
    x, B, C = xbc.split([8, 4, 4], dim=-1)
    x, B, C = x.unflatten(2, (4, 2)), B.unsqueeze(2), C.unsqueeze(2)
    return ssd_chunk_scan(x, dt, -torch.ones(4), B, C, D=torch.ones(4), dt_softplus=True, chunk_size=8)


def scan1(tokens: Tensor) -> tuple[Tensor, Tensor]:
    B, C = tokens[..., None, 12:16], tokens[..., None, 16:20]
    return selective_scan(tokens[..., :6], tokens[..., 6:12], -torch.ones(6, 4), B, C, delta_softplus=True)


def step2(tokens: Tensor) -> tuple[Tensor, Tensor]:
    conv_state, state = torch.zeros(2, 16, 3), torch.zeros(2, 4, 2, 4)
    ones = torch.ones(4)
    token = torch.cat([tokens[:, 0], tokens[:, 1, :8]], dim=-1)
    y = mamba2_step(token, conv_state, state, CONV, None, ones, ones, ones, NORM, n_groups=1)
    return rms_norm(y, NORM), state


@pytest.mark.parametrize("function", [scan1, scan2, step2])
def test_an_exported_graph_gives_the_same(function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    class Module(nn.Module):
        def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
            return function(tokens)

    tokens = normal(2, 20, 20, seed=1)
    exported = torch.export.export(Module(), (tokens,)).module()
    for actual, expected in zip(exported(tokens), function(tokens), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("function", [scan1, scan2, step2])
def test_a_compiled_graph_is_whole_and_gives_the_same(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> None:
    torch.compiler.reset()
    tokens = normal(2, 20, 20, seed=1)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(compiled(tokens), function(tokens), strict=True):
        torch.testing.assert_close(actual, expected)
