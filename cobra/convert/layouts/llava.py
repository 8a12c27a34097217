"""LLaVA-1.5, MobileVLM v1 and V2, TinyLLaVA and Imp: a tower and `mm_projector` inside the language model."""

from collections.abc import Mapping

from cobra.convert.layout import Layout, Tree
from cobra.convert.llava_family import Prefixes, describe, prefix_map, renamed_tower
from cobra.convert.source import Source
from cobra.weights.tensors import Stored

_AT = Prefixes("model.vision_tower.vision_tower.vision_model.", "model.mm_projector.", "model.", "lm_head.")
# Imp's on these language models; all others have LLaVA's
_TEMPLATES = {"qwen2": "imp_qwen2", "phi3": "imp_phi3"}


class Llava(Layout):
    """With the tower (MobileVLM V2, TinyLLaVA, Imp) or without; after alignment `mm_projector` alone."""

    title = "LLaVA"

    def recognises(self, source: Source) -> bool:
        """Whether there is a projector with LLaVA's name."""
        return any(name.startswith(_AT.projector) for name in source.tensors)

    def parts(self, source: Source) -> dict[str, Tree]:
        """What names, shapes and config.json describe."""
        return describe(source, _AT)

    def tensors(self, source: Source) -> Mapping[str, Stored]:
        """With the tower as timm has it."""
        return renamed_tower(source, _AT)

    def key_map(self, source: Source) -> dict[str, str]:
        """The parts are told apart by what follows `model.`."""
        return prefix_map(source, _AT)

    def chat(self, source: Source) -> tuple[str | None, str | None] | None:
        """The tokenizer beside the weights, and LLaVA's or Imp's prompts."""
        kind = self.parts(source)["lm"]["init_args"]["model_type"]
        return None, f"cobra:data/templates/{_TEMPLATES.get(kind, 'vicuna_v1')}.jinja"
