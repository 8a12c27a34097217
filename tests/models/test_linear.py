"""Linears by the faster library are F.linear: to rounding, with gradients, autocast and graphs left alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from cobra.kernels.product_rates import onednn_speed
from cobra.models import linear as linear_module
from cobra.models.linear import Linear, adopt_linears, linear

pytestmark = pytest.mark.skipif(not onednn_speed(), reason="torch has no oneDNN here")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of what oneDNN multiplied, on a CPU on which it is the faster one."""
    seen: list[torch.Size] = []
    by_onednn = linear_module.linear_by_onednn

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(x.shape)
        return by_onednn(x, weight, bias)

    monkeypatch.setattr(linear_module, "onednn_speed", lambda: 2.0)
    monkeypatch.setattr(linear_module, "linear_by_onednn", counted)
    return seen


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(16, 256), (3, 7, 256), (2, 3, 5, 256), (1, 40, 256)])
@torch.no_grad()
def test_a_product_is_the_same_to_rounding(
    calls: list[torch.Size], shape: tuple[int, ...], bias: bool
) -> None:
    x, weight, offset = drawn(*shape), drawn(512, 256), drawn(512) if bias else None
    expected = F.linear(x.double(), weight.double(), None if offset is None else offset.double())
    # nor does it matter how numbers lie in memory
    apart, turned = torch.cat([x, x], dim=-1)[..., :256], x.transpose(0, -2).contiguous().transpose(0, -2)
    part = torch.cat([weight, weight], dim=1)[:, 256:]
    for given, matrix in ((x, weight), (apart, weight), (turned, weight), (x, part)):
        with FlopCounterMode(display=False) as counter:
            product = linear(given, matrix, offset)
        assert counter.get_total_flops() == 2 * x.numel() * len(weight)
        torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-4)
    assert len(calls) == 4


def test_what_it_does_not_take_is_torchs(calls: list[torch.Size]) -> None:
    layer, x = Linear(256, 512), drawn(16, 256)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        layer(x[:15])
        Linear(256, 511)(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        layer.bfloat16()(x.bfloat16())
        layer.float()
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            layer(mode.from_tensor(x))
        graph = torch.export.export(nn.Sequential(layer), (x,), strict=False).graph
    assert "mkldnn" not in str(graph)
    assert calls == []
    # weights that are fixed, as where a frozen tower is trained behind, need no gradient
    layer.requires_grad_(False)(x)
    assert calls == [x.shape]


def test_linears_are_adopted_as_they_are() -> None:
    class Other(nn.Linear):
        pass

    module = nn.Sequential(nn.Linear(3, 4), nn.ModuleList([Other(4, 4), nn.Linear(4, 2, bias=False)]))
    weights = dict(module.named_parameters())
    adopt_linears(module)
    assert [type(m) for m in module.modules() if isinstance(m, nn.Linear)] == [Linear, Other, Linear]
    assert all(weights[name] is parameter for name, parameter in module.named_parameters())
