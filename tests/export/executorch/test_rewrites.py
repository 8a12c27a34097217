import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from cobra.export.executorch.programs import EncodeImage
from cobra.export.executorch.rewrites import softplus
from cobra.export.executorch.write import blank_pixels
from cobra.models.vision.pictures import Pictures
from cobra.models.vlm import CobraVLM
from tests.models.builders import ENCODERS, LMS, PROJECTORS


def test_softplus_is_exact_where_it_is_small() -> None:
    x = torch.linspace(-60, 40, 4001)
    exact = torch.nn.functional.softplus(x.double())
    assert ((softplus(x) - exact).abs() <= 4e-7 * exact).all()


@pytest.mark.parametrize("encoder", ["small_vit", "timm", "fused"])
@torch.inference_mode()
def test_an_encoder_sees_the_same_without_its_norms(encoder: str) -> None:
    torch.manual_seed(0)
    model = CobraVLM(ENCODERS[encoder], PROJECTORS["mlp"], LMS["mamba2"]).eval()
    for parameter in model.vision.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    pixels = tree_map(torch.randn_like, blank_pixels(model))
    program = EncodeImage(model, pixels)
    expected = model.image_tokens(Pictures.of(pixels))
    assert (program(*tree_leaves(pixels)) - expected).norm() < 1e-5 * expected.norm()
    assert not any(isinstance(module, nn.LayerNorm | nn.GroupNorm) for module in program.modules())
