"""Mamba and Mamba-2 as transformers writes them, and back."""

import math
from typing import Any

from cobra.convert.layout import Layout, Tree
from cobra.convert.layouts.mamba_ssm import require
from cobra.convert.source import Source
from cobra.convert.transformers_lm import CLASS_PATH, from_lm_tree

_PREFIX, _HEAD = "backbone.", "lm_head.weight"
# older conversions keep mamba_ssm's name; transformers' classes read both
_EMBEDDINGS = ("backbone.embeddings.weight", "backbone.embedding.weight")
_SHARED = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "state_size": "d_state",
    "conv_kernel": "d_conv",
    "expand": "expand",
    "layer_norm_epsilon": "norm_eps",
}
# its own classes behind ours
_THEIRS = "causal_lm."
# transformers' class: our class, and its sizes by both names
_MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "mamba": ("cobra.models.lm.mamba.MambaLM", {**_SHARED, "time_step_rank": "dt_rank"}),
    "mamba2": (
        "cobra.models.lm.mamba2.Mamba2LM",
        {**_SHARED, "head_dim": "head_dim", "n_groups": "n_groups", "chunk_size": "chunk_size"},
    ),
}
# dt is not clamped; transformers writes infinity both ways
_UNLIMITED = ([0.0, math.inf], [0.0, {"__float__": "Infinity"}])
_ARCHITECTURES = {"mamba": "MambaForCausalLM", "mamba2": "Mamba2ForCausalLM"}
_FIXED = {"use_bias": False, "use_conv_bias": True, "hidden_act": "silu"}
# what transformers takes where a configuration says nothing
_DEFAULTS = {"mamba": {}, "mamba2": {"n_groups": 8, "head_dim": 64, "state_size": 128}}


class HuggingFace(Layout):
    """`MambaForCausalLM` and `Mamba2ForCausalLM`, with or without the tied head."""

    title = "Hugging Face Mamba"

    def recognises(self, source: Source) -> bool:
        """Whether the embedding has transformers' name, or the configuration is transformers'."""
        named = _EMBEDDINGS[0] in source.tensors
        return named or (_EMBEDDINGS[1] in source.tensors and "hidden_size" in source.config)

    def parts(self, source: Source) -> dict[str, Tree]:
        """The language model that transformers' configuration describes."""
        config = source.config
        kind = config.get("model_type")
        if kind not in _MODELS:
            raise ValueError(f"{source.path.parent}: model_type {kind!r} is not one of {', '.join(_MODELS)}")
        foreign = sorted(set(config.get("architectures") or ()) - {_ARCHITECTURES[kind]})
        if foreign:
            raise ValueError(f"config.json names {foreign}: only {_ARCHITECTURES[kind]} can be read")
        require(config, _FIXED)
        limit = config.get("time_step_limit")
        if limit not in (None, *_UNLIMITED):
            raise ValueError(f"config.json: time_step_limit {limit} cannot be read, only {_UNLIMITED[0]}")
        class_path, sizes = _MODELS[kind]
        said = {**_DEFAULTS[kind], **config}
        lacking = sorted({"vocab_size", "hidden_size", "num_hidden_layers"} - set(said))
        if lacking:
            raise ValueError(f"{source.path.parent}: config.json lacks {lacking}")
        arguments = {
            ours: said[theirs] for theirs, ours in sizes.items() if said.get(theirs, "auto") != "auto"
        }
        return {"lm": {"class_path": class_path, "init_args": arguments}}

    def key_map(self, source: Source) -> dict[str, str]:
        """One plural, and a prefix."""
        return {"backbone.embeddings.": "lm.embedding.", _PREFIX: "lm."}

    def copies(self, source: Source) -> dict[str, str]:
        """The head may be stored again."""
        return {_HEAD: next((name for name in _EMBEDDINGS if name in source.tensors), _EMBEDDINGS[0])}


def to_hugging_face(tree: Tree, source: dict[str, Any]) -> dict[str, Any]:
    """transformers' config.json of a language model's complete class_path tree.

    Args:
        tree: with every size in its arguments.
        source: the configuration that the weights came with; its ids of special tokens are kept.

    Raises:
        ValueError: where transformers has no class for it.
    """
    if tree["class_path"] == CLASS_PATH:
        return from_lm_tree(tree)
    kind = next((kind for kind, (path, _) in _MODELS.items() if path == tree["class_path"]), None)
    if kind is None:
        raise ValueError(f"{tree['class_path']} has no class in transformers that --to hf could write")
    arguments = tree["init_args"]
    sizes = {theirs: arguments[ours] for theirs, ours in _MODELS[kind][1].items()}
    if kind == "mamba2":
        sizes["num_heads"] = arguments["expand"] * arguments["d_model"] // arguments["head_dim"]
    elif sizes["time_step_rank"] is None:
        sizes["time_step_rank"] = "auto"
    # <|endoftext|> of the GPT-NeoX tokenizer is all three
    tokens = {name: source.get(name, 0) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    architecture = [_ARCHITECTURES[kind]]
    return {
        "model_type": kind, "architectures": architecture, "tie_word_embeddings": True, **tokens, **sizes,
    }  # fmt: skip


def to_hugging_face_name(name: str) -> str:
    """transformers' name of a language model's weight: `embedding.weight` is `backbone.embeddings.weight`.

    What stands behind `causal_lm.` is transformers' already.
    """
    if name.startswith(_THEIRS):
        return name.removeprefix(_THEIRS)
    return _PREFIX + name.replace("embedding.", "embeddings.", 1)
