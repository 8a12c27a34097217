"""At full size: every published name, shape and count, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from cobra.config.build import build
from cobra.convert.checkpoint import Checkpoint, arrange
from cobra.convert.published import vision_tree
from cobra.convert.source import Source
from cobra.weights.tensors import Stored
from tests.convert import published_keys
from tests.convert.fakes import COBRA_CONFIG
from tests.convert.published_keys import Shapes

CONFIGS = Path(__file__).parents[2] / "configs"


def unread() -> Tensor:
    raise AssertionError("weights were read")


def listed(keys: Shapes, config: dict[str, Any]) -> Checkpoint:
    """What a file of these fp32 weights is taken for, from its table of contents."""
    tensors = {name: Stored(torch.Size(shape), torch.float32, unread) for name, shape in keys.items()}
    return arrange(Source(Path("published.pt"), config, tensors))


def size(keys: Shapes) -> int:
    return sum(torch.Size(shape).numel() for shape in keys.values())


def test_cobra_3_5b_is_read_key_by_key() -> None:
    keys = published_keys.cobra(2176, 50280, 2560, 64)
    assert len(keys) == 643 + 6
    # the published file has 11,779,648,721 bytes, of which 240,849 are its container
    assert 4 * size(keys) == 11_779_407_872
    checkpoint = listed(keys, COBRA_CONFIG)
    counts = {part: sum(t.shape.numel() for t in checkpoint.part(part).values()) for part in checkpoint.parts}
    assert counts == {"vision": 0, "projector": 47_789_568, "lm": 2_768_345_600}
    assert len(checkpoint.tensors) == 642 + 6
    assert {t.dtype for t in checkpoint.tensors.values()} == {torch.float32}
    assert checkpoint.tensors["lm.layers.63.mixer.x_proj.weight"].shape == (192, 5120)


@pytest.mark.parametrize(
    ("arch", "projector", "parameters"),
    [
        ("no-align+gelu-mlp", "siglip", 9_507_840),
        ("no-align+fused-ldpnet", "fused", 41_259_008),
    ],
)
def test_its_variants_are_read_too(arch: str, projector: str, parameters: int) -> None:
    lm = published_keys.mamba("model/llm_backbone/llm.", 50280, 2560, 64)
    config: dict[str, Any] = {"model": {**COBRA_CONFIG["model"], "arch_specifier": arch}}  # type: ignore[dict-item]
    if projector == "siglip":
        config["model"]["vision_backbone_id"] = "siglip-vit-so400m-384px"
        prefix = "model/projector/projector."
        keys: Shapes = {f"{prefix}0.weight": (2560, 1152), f"{prefix}0.bias": (2560,)}
        keys |= {f"{prefix}2.weight": (2560, 2560), f"{prefix}2.bias": (2560,)}
    else:
        keys = published_keys.fused_ldpnet("model/projector/", 2176, 2560)
    checkpoint = listed(keys | lm, config)
    assert sum(t.shape.numel() for t in checkpoint.part("projector").values()) == parameters


def test_ml_mamba_is_read_key_by_key() -> None:
    keys = published_keys.ml_mamba(2176, 50288, 2560, 64)
    assert 4 * size(keys) == 12_062_969_600
    checkpoint = listed(keys, {})
    counts = {part: sum(t.shape.numel() for t in checkpoint.part(part).values()) for part in checkpoint.parts}
    connector = 5_573_120 + 119_834_560 + 58_997_760
    assert counts == {"vision": 0, "projector": connector, "lm": 2_702_599_680}


def test_ml_mamba_with_another_encoder_is_read_by_the_configuration_beside_it() -> None:
    keys = published_keys.ml_mamba(1152, 50288, 2560, 64)
    config = {
        "model": {"vision_backbone_id": "siglip-vit-so400m-384px", "image_resize_strategy": "letterbox"}
    }
    vision = listed(keys, config).parts["vision"]["init_args"]
    assert vision["name"] == "vit_so400m_patch14_siglip_384.webli"
    assert vision["resize"] == "letterbox-equal-bars"
    with pytest.raises(ValueError, match=r"mis-shaped .*mlp\.0\.weight: \(2560, 1152\) instead of"):
        listed(keys, {})


def test_the_fused_encoder_of_both_systems_has_dinov2s_channels_first() -> None:
    cobra = published_keys.cobra(2176, 50280, 2560, 64)
    ml_mamba = published_keys.ml_mamba(2176, 50288, 2560, 64)
    order = ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_384.webli"]
    for checkpoint in (listed(cobra, COBRA_CONFIG), listed(ml_mamba, {})):
        encoders = checkpoint.parts["vision"]["init_args"]["encoders"]
        assert [encoder["init_args"]["name"] for encoder in encoders] == order
        assert {encoder["init_args"]["resize"] for encoder in encoders} == {"resize-naive"}
    for config in ("cobra_2.8b", "ml_mamba_2.7b"):
        tree = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())["model"]["model"]["init_args"]
        encoders = tree["vision"]["init_args"]["encoders"]
        assert [encoder["init_args"]["name"] for encoder in encoders] == order


MAMBA_SIZES = {
    "130m": (768, 24, 129_135_360),
    "370m": (1024, 48, 371_516_416),
    "790m": (1536, 48, 793_204_224),
    "1.4b": (2048, 48, 1_372_178_432),
    "2.8b": (2560, 64, 2_768_345_600),
}
MAMBA2_SIZES = {
    "130m": (768, 24, 128_989_632),
    "370m": (1024, 48, 368_346_624),
    "780m": (1536, 48, 780_161_280),
    "1.3b": (2048, 48, 1_343_757_312),
    "2.7b": (2560, 64, 2_702_599_680),
}


@pytest.mark.parametrize("name", MAMBA_SIZES)
def test_every_published_mamba_is_read(name: str) -> None:
    width, layers, parameters = MAMBA_SIZES[name]
    config = {"d_model": width, "n_layer": layers, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": True}
    checkpoint = listed(published_keys.mamba("", 50280, width, layers), config)
    assert sum(t.shape.numel() for t in checkpoint.tensors.values()) == parameters


def test_the_language_model_that_cobra_starts_from_is_read() -> None:
    """xiuyul/mamba-2.8b-zephyr, whose configuration spells out the defaults of mamba_ssm."""
    ssm = {
        "d_state": 16, "d_conv": 4, "expand": 2, "dt_rank": "auto", "dt_min": 0.001, "dt_max": 0.1,
        "dt_init": "random", "dt_scale": 1.0, "dt_init_floor": 1e-4, "conv_bias": True, "bias": False,
        "use_fast_path": True,
    }  # fmt: skip
    config = {
        "model_type": "mamba", "vocab_size": 50277, "n_layer": 64, "d_model": 2560, "ssm_cfg": ssm,
        "norm_epsilon": 1e-5, "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
    }  # fmt: skip
    checkpoint = listed(published_keys.mamba("", 50280, 2560, 64), config)
    assert sum(t.shape.numel() for t in checkpoint.part("lm").values()) == 2_768_345_600


@pytest.mark.parametrize("name", MAMBA2_SIZES)
def test_every_published_mamba2_is_read(name: str) -> None:
    width, layers, parameters = MAMBA2_SIZES[name]
    config = {
        "d_model": width, "n_layer": layers, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2"},
        "pad_vocab_size_multiple": 16,
    }  # fmt: skip
    checkpoint = listed(published_keys.mamba2("", 50288, width, layers), config)
    assert sum(t.shape.numel() for t in checkpoint.tensors.values()) == parameters


def test_the_clip_beside_dinov2_has_the_activation_of_cobras_code() -> None:
    """Which leaves timm's erf-GELU there, and overrides it in CLIP alone."""
    both, alone = (
        vision_tree({"vision_backbone_id": name, "image_resize_strategy": "resize-naive"})
        for name in ("dinoclip-vit-l-336px", "clip-vit-l-336px")
    )
    with torch.device("meta"):
        fused, clip = (build(tree)() for tree in (both, alone))
    gelus = [type(tower.tower.blocks[0].mlp.act).__name__ for tower in (*fused.encoders, clip)]
    assert gelus == ["GELU", "GELU", "QuickGELU"]
