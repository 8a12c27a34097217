"""LLaMA, Phi-2, Phi-3, Qwen2 and StableLM-2 alone, as transformers writes them."""

from collections.abc import Mapping

from cobra.convert.layout import Layout, Tree
from cobra.convert.llava_family import Prefixes, lm_names, tied_head, without_computed
from cobra.convert.source import Source
from cobra.convert.transformers_lm import kind_of, lm_tree
from cobra.weights.tensors import Stored

_AT = Prefixes("model.vision_tower.", "model.mm_projector.", "model.", "lm_head.")


class TransformersLM(Layout):
    """`model.embed_tokens` with a head of its own, and nothing to see with."""

    title = "Hugging Face transformer"

    def recognises(self, source: Source) -> bool:
        """Whether the embedding has transformers' name, there is no projector, and it is no MobileLLM."""
        names = source.tensors
        return (
            "model.embed_tokens.weight" in names
            and source.config.get("model_type") != "mobilellm"
            and not any(name.startswith(_AT.projector) for name in names)
        )

    def parts(self, source: Source) -> dict[str, Tree]:
        """The language model that names and config.json describe."""
        return {"lm": lm_tree(kind_of(lm_names(source, _AT), source.config), source.config)}

    def tensors(self, source: Source) -> Mapping[str, Stored]:
        """Without computed buffers."""
        return without_computed(source.tensors)

    def copies(self, source: Source) -> dict[str, str]:
        """The head of a tied model, where it is stored again (Qwen1.5-0.5B-Chat)."""
        return tied_head(_AT, source.config)

    def key_map(self, source: Source) -> dict[str, str]:
        """Two prefixes."""
        return {_AT.lm: "lm.causal_lm.model.", _AT.head: "lm.causal_lm.lm_head."}
