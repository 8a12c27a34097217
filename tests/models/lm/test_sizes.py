"""The published sizes of Mamba and Mamba-2, parameter for parameter."""

from functools import partial

import pytest
import torch
from torch import nn

from cobra.models.lm.mamba import MambaLM
from cobra.models.lm.mamba2 import Mamba2LM

# GPT-NeoX's 50277 tokens, padded to a multiple of 8 and of 16
mamba, mamba2 = partial(MambaLM, 50280), partial(Mamba2LM, 50288)

# n_layers, d_model, parameters of a block and of the model with its tied embedding counted once
MAMBA = {
    "130m": (24, 768, 3_771_648, 129_135_360),
    "370m": (48, 1024, 6_667_264, 371_516_416),
    "790m": (48, 1536, 14_916_096, 793_204_224),
    "1.4b": (48, 2048, 26_441_728, 1_372_178_432),
    "2.8b": (64, 2560, 41_244_160, 2_768_345_600),
}
MAMBA2 = {
    "130m": (24, 768, 3_765_320, 128_989_632),
    "370m": (48, 1024, 6_601_056, 368_346_624),
    "780m": (48, 1536, 14_644_112, 780_161_280),
    "1.3b": (48, 2048, 25_849_280, 1_343_757_312),
    "2.7b": (64, 2560, 40_216_560, 2_702_599_680),
}
SIZES = [
    pytest.param(build, *size, id=f"{build.func.__name__}-{name}")
    for build, sizes in ((mamba, MAMBA), (mamba2, MAMBA2))
    for name, size in sizes.items()
]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("build", "n_layers", "d_model", "block", "total"), SIZES)
def test_a_published_size_has_exactly_the_published_parameters(
    build: partial, n_layers: int, d_model: int, block: int, total: int
) -> None:
    with torch.device("meta"):
        lm = build(d_model, n_layers)
    assert {count(layer) for layer in lm.layers} == {block}
    assert count(lm) == total


def test_shapes_are_those_of_the_published_checkpoints() -> None:
    """Tables of Cobra's and ML-Mamba's checkpoints; rows [x; z], [dt; B; C] and [z; x; B; C; dt]."""
    with torch.device("meta"):
        first, second = mamba(2560, 1), mamba2(2560, 1)
    shapes = [{k: tuple(v.shape) for k, v in lm.state_dict().items()} for lm in (first, second)]
    mixer = "layers.0.mixer."
    assert shapes[0] == {
        "embedding.weight": (50280, 2560),
        "layers.0.norm.weight": (2560,),
        f"{mixer}in_proj.weight": (10240, 2560),
        f"{mixer}conv1d.weight": (5120, 1, 4),
        f"{mixer}conv1d.bias": (5120,),
        f"{mixer}x_proj.weight": (192, 5120),
        f"{mixer}dt_proj.weight": (5120, 160),
        f"{mixer}dt_proj.bias": (5120,),
        f"{mixer}A_log": (5120, 16),
        f"{mixer}D": (5120,),
        f"{mixer}out_proj.weight": (2560, 5120),
        "norm_f.weight": (2560,),
    }
    assert shapes[1] == {
        "embedding.weight": (50288, 2560),
        "layers.0.norm.weight": (2560,),
        f"{mixer}in_proj.weight": (10576, 2560),
        f"{mixer}conv1d.weight": (5376, 1, 4),
        f"{mixer}conv1d.bias": (5376,),
        **{f"{mixer}{name}": (80,) for name in ("dt_bias", "A_log", "D")},
        f"{mixer}norm.weight": (5120,),
        f"{mixer}out_proj.weight": (2560, 5120),
        "norm_f.weight": (2560,),
    }
