"""The published sizes of every language model, parameter for parameter."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from cobra.models.lm.mamba import MambaLM
from cobra.models.lm.mamba2 import Mamba2LM
from cobra.models.lm.mobile_llm import MobileLLM
from cobra.models.lm.transformer import TransformerLM

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


# d_model, n_layers, n_heads, n_kv_heads, d_ff, parameters, bytes of keys and values a token in fp16
MOBILE_LLM = {
    "125m": (576, 30, 9, 3, 1536, 124_635_456, 23_040),
    "350m": (960, 32, 15, 5, 2560, 345_355_200, 40_960),
    "600m": (1152, 40, 18, 6, 3072, 603_188_352, 61_440),
    "1b": (1280, 54, 20, 5, 3584, 1_005_461_760, 69_120),
    "1.5b": (1600, 54, 25, 5, 4352, 1_511_188_800, 69_120),
}


@pytest.mark.parametrize(("size", "share"), [*((size, False) for size in MOBILE_LLM), ("125m", True)])
def test_a_mobile_llm_has_exactly_the_published_parameters_and_cache(size: str, share: bool) -> None:
    d_model, n_layers, *heads, d_ff, total, cache = MOBILE_LLM[size]
    with torch.device("meta"):
        lm = MobileLLM(32000, d_model, n_layers, heads[0], heads[1], d_ff, share)
        state = lm.allocate_state(1, 2048, torch.float16)
    assert count(lm) == total
    # a shared block keeps what it saw each time
    assert state.nbytes == 2048 * cache * (2 if share else 1)


def heads(count: int, groups: int, d_ff: int, **more: Any) -> dict[str, Any]:
    return {"num_attention_heads": count, "num_key_value_heads": groups, "intermediate_size": d_ff} | more


# vocab_size, d_model, n_layers, architecture, its options, parameters, KiB of keys and values a token in fp16
TRANSFORMERS = {
    "mobilellama-1.4b": (32000, 2048, 24, "llama", heads(16, 16, 5632), 1_364_297_728, 192),
    "mobilellama-2.7b": (32000, 2560, 32, "llama", heads(32, 32, 6912), 2_701_560_320, 320),
    "vicuna-7b": (32000, 4096, 32, "llama", heads(32, 32, 11008), 6_738_415_616, 512),
    "tinyllama-1.1b": (32000, 2048, 22, "llama", heads(32, 4, 5632), 1_100_048_384, 22),
    "phi-2": (51200, 2560, 32, "phi", heads(32, 32, 10240, partial_rotary_factor=0.4), 2_779_683_840, 320),
    "phi-3-mini": (32064, 3072, 32, "phi3", heads(32, 32, 8192), 3_821_079_552, 384),
    "qwen1.5-1.8b": (151936, 2048, 24, "qwen2", heads(16, 16, 5504), 1_836_828_672, 192),
    "stablelm-2-1.6b": (
        100352, 2048, 24, "stablelm", heads(32, 32, 5632, use_qkv_bias=True, partial_rotary_factor=0.25),
        1_644_515_328, 192,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_transformer_has_exactly_the_published_parameters_and_cache(name: str) -> None:
    *arguments, total, cache = TRANSFORMERS[name]
    with torch.device("meta"):
        lm = TransformerLM(*arguments)  # type: ignore[arg-type]
        state = lm.allocate_state(1, 2048, torch.float16)
    assert count(lm) == total
    assert state.nbytes == 2048 * 1024 * cache
