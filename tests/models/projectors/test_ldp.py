"""LDP and LDPv2 against torchvision's block, plain loops and the published names."""

# declares operators that torchvision's import needs
import cobra.torchvision_shim  # noqa: F401  isort: skip

from functools import partial
from math import ceil, floor

import pytest
import torch
from timm.layers import LayerNormAct2d
from torchvision.models.mobilenetv3 import InvertedResidual as TorchvisionBlock
from torchvision.models.mobilenetv3 import InvertedResidualConfig

from cobra.models.projectors.ldp import InvertedResidual, LDPProjector
from cobra.models.projectors.ldpv2 import GridPool, LDPv2Projector, PositionalConv


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_a_block_equals_torchvisions_from_the_same_weights(stride: int, side: int) -> None:
    torch.manual_seed(0)
    config = InvertedResidualConfig(32, 3, 32, 32, True, "HS", stride, 1, 1)
    theirs = TorchvisionBlock(config, partial(LayerNormAct2d, apply_act=False))
    for parameter in theirs.parameters():
        parameter.normal_(std=0.5)
    ours = InvertedResidual(32, stride)
    ours.load_state_dict(theirs.state_dict())
    feature_map = torch.randn(2, 32, side, side)
    expected = theirs(feature_map.clone())
    torch.testing.assert_close(ours(feature_map), expected, rtol=1e-4, atol=1e-5)


def test_names_are_mobilevlms_but_for_a_prefix() -> None:
    with torch.device("meta"):
        v1, v2 = LDPProjector(1024, 2048), LDPv2Projector(1024, 2048)
    shapes = {key: tuple(value.shape) for key, value in v1.state_dict().items()}
    published = {  # model.mm_projector.model.mb_block.1. is our blocks.0., model.mlp.1. our mlp.0.
        "mlp.0.weight": (2048, 1024), "mlp.0.bias": (2048,),
        "mlp.2.weight": (2048, 2048), "mlp.2.bias": (2048,),
    }  # fmt: skip
    for block in ("blocks.0.block", "blocks.1.block"):
        published |= {
            f"{block}.0.0.weight": (2048, 1, 3, 3),
            f"{block}.1.fc1.weight": (512, 2048, 1, 1),
            f"{block}.1.fc1.bias": (512,),
            f"{block}.1.fc2.weight": (2048, 512, 1, 1),
            f"{block}.1.fc2.bias": (2048,),
            f"{block}.2.0.weight": (2048, 2048, 1, 1),
        }
        for norm in ("0.1", "2.1"):
            published |= {f"{block}.{norm}.weight": (2048,), f"{block}.{norm}.bias": (2048,)}
    assert shapes == published
    assert {key: tuple(value.shape) for key, value in v2.state_dict().items()} == {
        "projector.0.weight": (2048, 1024), "projector.0.bias": (2048,),
        "projector.2.weight": (2048, 2048), "projector.2.bias": (2048,),
        "projector.4.peg.0.weight": (2048, 1, 3, 3), "projector.4.peg.0.bias": (2048,),
    }  # fmt: skip


@pytest.mark.parametrize(("grid", "side"), [(24, 12), (27, 14), (16, 14)])
def test_pooling_windows_are_those_of_the_published_code(grid: int, side: int) -> None:
    patches = torch.randn(1, grid * grid, 3, generator=torch.Generator().manual_seed(0))
    rows = patches.unflatten(1, (grid, grid))
    windows = [slice(floor(i * grid / side), ceil((i + 1) * grid / side)) for i in range(side)]
    expected = [rows[:, y, x].mean((1, 2)) for y in windows for x in windows]
    torch.testing.assert_close(GridPool(side)(patches), torch.stack(expected, 1))


@torch.no_grad()
def test_the_positional_convolution_adds_its_neighbours_to_each_token() -> None:
    torch.manual_seed(0)
    layer, tokens = PositionalConv(5), torch.randn(1, 9, 5)
    weight, bias = layer.peg.state_dict().values()
    centre = bias.clone()
    for y in range(3):
        for x in range(3):
            centre += weight[:, 0, y, x] * tokens[0, 3 * y + x]
    torch.testing.assert_close(layer(tokens)[0, 4], tokens[0, 4] + centre)


def test_fused_projectors_are_four_inputs_wide_inside() -> None:
    assert LDPProjector(6, 32, fused=True).mlp[0].out_features == 24
    assert LDPv2Projector(6, 32, fused=True).projector[0].out_features == 24
    assert LDPv2Projector(6, 32).projector[0].out_features == 32
