"""Imp on Phi-2 with Phi-2's first names, as `Imp-v1.5-3B-196` has them."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from cobra.convert.layout import Layout, Tree
from cobra.convert.layouts.llava import Llava
from cobra.convert.source import Source
from cobra.weights.tensors import Stored

_NAMES = (
    (r"^transformer\.embd\.wte\.", "model.embed_tokens."),
    (r"^transformer\.h\.(\d+)\.ln\.", r"model.layers.\1.input_layernorm."),
    (r"^transformer\.h\.(\d+)\.mixer\.out_proj\.", r"model.layers.\1.self_attn.dense."),
    (r"^transformer\.h\.(\d+)\.", r"model.layers.\1."),
    (r"^transformer\.(mm_projector|vision_tower)\.", r"model.\1."),
    (r"^lm_head\.ln\.", "model.final_layernorm."),
    (r"^lm_head\.linear\.", "lm_head."),
)
# Phi-2's, where the configuration does not say it: its class in transformers has other sizes
_PHI2 = {"num_attention_heads": 32, "partial_rotary_factor": 0.4}


class Imp(Layout):
    """LLaVA's layout after renaming; queries, keys and values are one matrix each, in this order."""

    title = "Imp (Phi-2's first names)"

    def recognises(self, source: Source) -> bool:
        """Whether there are a projector and Phi-2's first name of the embedding."""
        return {"transformer.embd.wte.weight", "transformer.mm_projector.0.weight"} <= set(source.tensors)

    def parts(self, source: Source) -> dict[str, Tree]:
        """Sizes by shapes: the configuration has Phi-2's first names for them, too."""
        return Llava().parts(_renamed(source))

    def tensors(self, source: Source) -> Mapping[str, Stored]:
        """With today's names."""
        return Llava().tensors(_renamed(source))

    def key_map(self, source: Source) -> dict[str, str]:
        """LLaVA's."""
        return Llava().key_map(_renamed(source))

    def chat(self, source: Source) -> tuple[str | None, str | None] | None:
        """The tokenizer beside the weights, whose end of text is `</s>`."""
        return None, "cobra:data/templates/vicuna_v1.jinja"


def _renamed(source: Source) -> Source:
    tensors = dict(pair for name, tensor in source.tensors.items() for pair in _modern(name, tensor))
    return Source(source.path, {**_sizes(tensors), **source.config, "model_type": "phi"}, tensors)


def _modern(name: str, tensor: Stored) -> Iterator[tuple[str, Stored]]:
    fused = re.fullmatch(r"transformer\.h\.(\d+)\.mixer\.Wqkv\.(weight|bias)", name)
    if fused:
        rows = tensor.shape[0] // 3
        shape = torch.Size((rows, *tensor.shape[1:]))
        for number, part in enumerate("qkv"):
            read = partial(_rows, tensor, number * rows, rows)
            yield (
                f"model.layers.{fused[1]}.self_attn.{part}_proj.{fused[2]}",
                Stored(shape, tensor.dtype, read),
            )
        return
    for pattern, today in _NAMES:
        name = re.sub(pattern, today, name)
    yield name, tensor


def _rows(tensor: Stored, start: int, count: int) -> torch.Tensor:
    return tensor.read().narrow(0, start, count)


def _sizes(tensors: Mapping[str, Stored]) -> dict[str, Any]:
    vocab, width = tensors["model.embed_tokens.weight"].shape
    layers = {name.split(".")[2] for name in tensors if name.startswith("model.layers.")}
    inner = tensors.get("model.layers.0.mlp.fc1.weight")
    return {
        **_PHI2, "vocab_size": vocab, "hidden_size": width, "num_hidden_layers": len(layers),
        "intermediate_size": inner.shape[0] if inner else 4 * width,
    }  # fmt: skip
