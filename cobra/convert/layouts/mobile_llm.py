"""MobileLLM as its repositories have it (facebook/MobileLLM-125M and larger)."""

from collections.abc import Mapping

from cobra.convert.layout import Layout, Tree
from cobra.convert.layouts.mamba_ssm import require
from cobra.convert.llava_family import without_computed
from cobra.convert.source import Source
from cobra.weights.tensors import Stored

_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "intermediate_size": "d_ff",
    "layer_sharing": "share_blocks",
}
_OPTIONAL = {"rope_theta": "rope_theta", "rms_norm_eps": "norm_eps"}
_FIXED = {
    "share_embedding": True, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
    "rope_scaling": None,
}  # fmt: skip


class MobileLLMLayout(Layout):
    """LLaMA's names without a head: the embedding is it, whatever `tie_word_embeddings` says."""

    title = "MobileLLM"

    def recognises(self, source: Source) -> bool:
        """Whether config.json says so: its names are LLaMA's."""
        return (
            source.config.get("model_type") == "mobilellm" and "model.embed_tokens.weight" in source.tensors
        )

    def parts(self, source: Source) -> dict[str, Tree]:
        """The sizes in config.json, which must say whether blocks are applied twice: no weight shows it."""
        config = source.config
        lacking = sorted(set(_SIZES) - set(config))
        if lacking:
            raise ValueError(
                f"{source.path.parent}: config.json lacks {lacking}: add what the weights were trained with "
                f"(layer_sharing is true for MobileLLM-LS alone)"
            )
        require(config, {**_FIXED, "head_dim": config["hidden_size"] // config["num_attention_heads"]})
        arguments = {ours: config[theirs] for theirs, ours in _SIZES.items()}
        arguments |= {ours: config[theirs] for theirs, ours in _OPTIONAL.items() if theirs in config}
        return {"lm": {"class_path": "cobra.models.lm.mobile_llm.MobileLLM", "init_args": arguments}}

    def tensors(self, source: Source) -> Mapping[str, Stored]:
        """Without computed buffers."""
        return without_computed(source.tensors)

    def key_map(self, source: Source) -> dict[str, str]:
        """All but the prefix is the same."""
        return {"model.": "lm."}

    def copies(self, source: Source) -> dict[str, str]:
        """A head that was stored again."""
        return {"lm_head.weight": "model.embed_tokens.weight"}
