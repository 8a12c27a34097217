"""MobileLLM's checkpoints: every published name at full size, logits against LLaMA's, and LS told apart."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from cobra.convert.run import convert
from cobra.models.lm.base import LanguageModel
from cobra.pretrained import lm_from_pretrained
from tests.convert import llava_keys
from tests.convert.published_keys import Shapes
from tests.convert.test_published_keys import listed

# width, layers, heads, their keys and values, inner width; parameters
SIZES = {
    "125M": (576, 30, 9, 3, 1536, 124_635_456),
    "350M": (960, 32, 15, 5, 2560, 345_355_200),
    "600M": (1152, 40, 18, 6, 3072, 603_188_352),
    "1B": (1280, 54, 20, 5, 3584, 1_005_461_760),
    "1.5B": (1600, 54, 25, 5, 4352, 1_511_188_800),
}


def described(d: int, layers: int, heads: int, kv: int, inner: int, vocab: int = 32000) -> dict[str, Any]:
    """As the config.json of facebook/MobileLLM-125M has it."""
    return {
        "model_type": "mobilellm", "vocab_size": vocab, "hidden_size": d, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "intermediate_size": inner,
        "head_dim": d // heads, "layer_sharing": False, "share_embedding": True, "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None, "hidden_act": "silu",
    }  # fmt: skip


def keys(d: int, layers: int, kv_width: int, inner: int, vocab: int = 32000) -> Shapes:
    whole = llava_keys.llama(vocab, d, inner, layers, kv=kv_width)
    return {name: shape for name, shape in whole.items() if name != "lm_head.weight"}


@pytest.mark.parametrize("name", SIZES)
def test_every_published_size_is_read_and_counted(name: str) -> None:
    d, layers, heads, kv, inner, parameters = SIZES[name]
    checkpoint = listed(keys(d, layers, kv * 64, inner), described(d, layers, heads, kv, inner))
    assert sum(t.shape.numel() for t in checkpoint.part("lm").values()) == parameters


def test_a_configuration_that_leaves_sharing_open_is_refused() -> None:
    """Its code shares where nothing is said, its evaluation does not: the same weights, another model."""
    said = described(64, 2, 4, 2, 96, 64)
    held = keys(64, 2, 32, 96, 64)
    for change, message in (
        ({"layer_sharing": None}, None),
        ({"share_embedding": False}, "share_embedding False cannot be read"),
    ):
        config = {name: value for name, value in {**said, **change}.items() if value is not None or message}
        with pytest.raises(ValueError, match=message or r"lacks \['layer_sharing'\].* MobileLLM-LS"):
            listed(held, config)


def published(folder: Path, shared: bool) -> tuple[LanguageModel, LlamaForCausalLM]:
    """Ours from a checkpoint, and LLaMA with its blocks written out."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    theirs = LlamaForCausalLM(
        LlamaConfig(
            **sizes, num_hidden_layers=2, num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=True
        )
    ).eval()
    state: dict[str, Tensor] = {
        name: t.clone() for name, t in theirs.state_dict().items() if name != "lm_head.weight"
    }
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin")
    said = {**described(32, 2, 4, 2, 48, 64), "layer_sharing": shared}
    (folder / "config.json").write_text(json.dumps(said))
    convert(str(folder), folder / "ours")
    return lm_from_pretrained(folder / "ours"), theirs


@torch.no_grad()
@pytest.mark.parametrize("shared", [False, True])
def test_logits_are_those_of_llama_with_every_application_written_out(shared: bool, tmp_path: Path) -> None:
    ours, theirs = published(tmp_path / "published", shared)
    if shared:
        deep = LlamaForCausalLM(LlamaConfig(**{**theirs.config.to_dict(), "num_hidden_layers": 4})).eval()
        state = theirs.state_dict()
        for name, weight in deep.state_dict().items():
            layer = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", name)
            weight.copy_(state[f"model.layers.{int(layer[1]) // 2}.{layer[2]}" if layer else name])
        theirs = deep
    ids = torch.arange(9)[None]
    logits = ours.head(ours.prefill(ours.embed(ids)))
    torch.testing.assert_close(logits, theirs(ids).logits, rtol=1e-4, atol=1e-5)
