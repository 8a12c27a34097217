"""Packed weights on prompts, whose products torch makes."""

from unittest.mock import Mock

import pytest
import torch

from cobra.kernels import product_rates
from cobra.models import packed


@pytest.mark.parametrize("speed", [0.5, 2.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_prompt_in_bf16_is_multiplied_in_whatever_is_faster(
    monkeypatch: pytest.MonkeyPatch, speed: float, with_bias: bool
) -> None:
    monkeypatch.setattr(packed, "bf16_speed", lambda: speed)
    in_fp32 = Mock(side_effect=packed._linear_in_fp32)
    monkeypatch.setattr(packed, "_linear_in_fp32", in_fp32)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 150, 24, generator=generator).bfloat16()
    weight = torch.randn(600, 24, generator=generator).bfloat16()
    bias = torch.randn(600, generator=generator) if with_bias else None
    y = packed.BF16Matrix(weight).linear(x, bias)
    exact = torch.nn.functional.linear(
        x.double(), weight.double(), None if bias is None else bias.bfloat16().double()
    )
    assert y.dtype == torch.bfloat16
    assert in_fp32.called == (speed < 1)
    torch.testing.assert_close(y.double(), exact, rtol=2**-7, atol=2**-7)


def test_a_graph_holds_no_timing() -> None:
    product_rates.bf16_speed.cache_clear()
    matrix = Linear(packed.BF16Matrix(torch.ones(32, 24)))
    x = torch.ones(150, 24).bfloat16()
    compiled = torch.compile(matrix, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), matrix(x))
    product_rates.bf16_speed.cache_clear()
    graph = torch.export.export(matrix, (x,), strict=False).graph
    assert not any("ones" in node.name for node in graph.nodes)
    assert product_rates.bf16_speed.cache_info().currsize == 0


class Linear(torch.nn.Module):
    """A matrix as a module that is called."""

    def __init__(self, matrix: packed.PackedMatrix) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.matrix.linear(x)
