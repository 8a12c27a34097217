"""Checkpoints of TinyLLaVA Factory: `vision_tower`, `connector` and `language_model` in wrappers."""

from collections.abc import Mapping
from typing import Any

from cobra.convert.layout import Layout, Tree
from cobra.convert.layouts.mamba_ssm import require
from cobra.convert.llava_family import Prefixes, describe, prefix_map, renamed_tower, tied_head
from cobra.convert.source import Source
from cobra.weights.tensors import Stored

_AT = Prefixes(
    "vision_tower._vision_tower.vision_model.",
    "connector._connector.",
    "language_model.model.",
    "language_model.lm_head.",
)
_FIXED = {"vision_feature_layer": -2, "vision_feature_select_strategy": "patch"}


class TinyLlavaFactory(Layout):
    """Its models drop a tower's first token, whether that is a class token or, as SigLIP's, a patch."""

    title = "TinyLLaVA Factory"

    def recognises(self, source: Source) -> bool:
        """Whether there is a connector in its wrapper."""
        return any(name.startswith(_AT.projector) for name in source.tensors)

    def parts(self, source: Source) -> dict[str, Tree]:
        """What names, shapes and `text_config` describe."""
        require(source.config, _FIXED)
        parts = describe(source, _AT, _text_config(source))
        if "siglip" in parts["vision"]["init_args"]["name"]:
            parts["vision"]["init_args"]["drop_first"] = True
        return parts

    def tensors(self, source: Source) -> Mapping[str, Stored]:
        """With the tower as timm has it."""
        return renamed_tower(source, _AT)

    def key_map(self, source: Source) -> dict[str, str]:
        """The three wrappers, and the head."""
        return prefix_map(source, _AT)

    def copies(self, source: Source) -> dict[str, str]:
        """The head of a tied language model, where it is stored again."""
        return tied_head(_AT, _text_config(source))

    def chat(self, source: Source) -> tuple[str | None, str | None] | None:
        """The tokenizer beside the weights; all have LLaVA's prompts, and their own end of text."""
        return None, "cobra:data/templates/vicuna_v1.jinja"


def _text_config(source: Source) -> dict[str, Any]:
    text = source.config.get("text_config")
    return text if isinstance(text, dict) else source.config
