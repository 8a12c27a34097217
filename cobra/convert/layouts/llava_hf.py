"""LLaVA-1.5 and PhiVA as transformers' `LlavaForConditionalGeneration` writes them."""

from collections.abc import Mapping
from typing import Any

from cobra.convert.layout import Layout, Tree
from cobra.convert.layouts.mamba_ssm import require
from cobra.convert.llava_family import Prefixes, describe, prefix_map, renamed_tower, tied_head
from cobra.convert.source import Source
from cobra.weights.tensors import Stored

# what this project builds; the strategy drops the class token
_FIXED = {
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
}


class LlavaHF(Layout):
    """`vision_tower`, `multi_modal_projector` and `language_model`, with or without `model.` before them."""

    title = "Hugging Face LLaVA"

    def recognises(self, source: Source) -> bool:
        """Whether there is a projector with transformers' name."""
        return any("multi_modal_projector.linear_1." in name for name in source.tensors)

    def parts(self, source: Source) -> dict[str, Tree]:
        """What names, shapes and `text_config` describe."""
        require(source.config, _FIXED)
        return describe(source, _prefixes(source), _text_config(source))

    def tensors(self, source: Source) -> Mapping[str, Stored]:
        """With the tower as timm has it."""
        return renamed_tower(source, _prefixes(source))

    def key_map(self, source: Source) -> dict[str, str]:
        """The three parts, and the head."""
        return prefix_map(source, _prefixes(source))

    def copies(self, source: Source) -> dict[str, str]:
        """The head of a tied language model, where it is stored again."""
        return tied_head(_prefixes(source), _text_config(source))

    def chat(self, source: Source) -> tuple[str | None, str | None] | None:
        """The tokenizer beside the weights, and PhiVA's prompts for Phi-3, else LLaVA's."""
        is_phiva = self.parts(source)["lm"]["init_args"]["model_type"] == "phi3"
        return None, f"cobra:data/templates/{'phiva' if is_phiva else 'vicuna_v1'}.jinja"


def _prefixes(source: Source) -> Prefixes:
    """By version: the head was inside the language model, and the tower is `vision_model` in some."""
    start = (
        "model." if any(name.startswith("model.multi_modal_projector.") for name in source.tensors) else ""
    )
    tower = f"{start}vision_tower."
    if any(name.startswith(f"{tower}vision_model.") for name in source.tensors):
        tower += "vision_model."
    lm, head = (f"{start}language_model.", "lm_head.") if start else (
        "language_model.model.", "language_model.lm_head."
    )  # fmt: skip
    return Prefixes(tower, f"{start}multi_modal_projector.", lm, head)


def _text_config(source: Source) -> dict[str, Any]:
    text = source.config.get("text_config")
    if not isinstance(text, dict):
        raise ValueError(f"{source.path.parent}: config.json has no text_config: restore the file")
    # its ids of padding and such are the model's
    return text
