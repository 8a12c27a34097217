"""Language models of the transformers library: their class_path tree from names and config.json."""

from collections.abc import Iterable
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING  # isort: skip
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cobra.convert.layout import Tree
from cobra.models.lm.transformer import OPTIONS

# what only this architecture, of those that follow, has in a layer
_KINDS = {
    "phi3": "layers.0.self_attn.qkv_proj.weight",
    "phi": "layers.0.self_attn.dense.weight",
    "stablelm": "layers.0.input_layernorm.bias",
    "qwen2": "layers.0.self_attn.q_proj.bias",
    "llama": "layers.0.self_attn.q_proj.weight",
}
# `model_type` of those that are LLaMA behind an encoder, for files that hold a projector alone
_LLAMAS = ("llava", "llava_llama", "mobilevlm")
CLASS_PATH = "cobra.models.lm.transformer.TransformerLM"
_SIZES = {"vocab_size": "vocab_size", "hidden_size": "d_model", "num_hidden_layers": "n_layers"}


def kind_of(names: Iterable[str], config: dict[str, Any]) -> str:
    """transformers' `model_type` of a language model, by the names in it, from `layers.0.` on.

    Raises:
        ValueError: where it is none that is known, or config.json calls it another.
    """
    held, said = set(names), config.get("model_type")
    if not held:
        kind = "llama" if said in _LLAMAS else said
    else:
        kind = next((kind for kind, name in _KINDS.items() if name in held), None)
    if kind not in _KINDS:
        raise ValueError(
            f"the language model (model_type {said!r}) has the names of none of {', '.join(_KINDS)}"
        )
    # Gemma's and Mistral's names are LLaMA's
    if said in _causal_lms() and said != kind:
        raise ValueError(f"config.json: model_type {said!r} cannot be read, only {', '.join(_KINDS)}")
    return kind


def lm_tree(kind: str, config: dict[str, Any]) -> Tree:
    """The language model that transformers' configuration describes; what it leaves out is transformers'."""
    defaults = CONFIG_MAPPING[kind]()
    arguments: dict[str, Any] = {
        ours: config.get(theirs, getattr(defaults, theirs)) for theirs, ours in _SIZES.items()
    }
    arguments["model_type"] = kind
    options = {name: config[name] for name in OPTIONS if config.get(name) is not None}
    if defaults.pad_token_id is not None:
        # padding is masked; a row for it could not be trained, and may lie outside the vocabulary
        options["pad_token_id"] = None
    arguments["options"] = options
    return {"class_path": CLASS_PATH, "init_args": arguments}


def from_lm_tree(tree: Tree) -> dict[str, Any]:
    """transformers' config.json of a language model of its own that `lm_tree`, or a yaml, describes."""
    arguments = tree["init_args"]
    sizes = {theirs: arguments[ours] for theirs, ours in _SIZES.items()}
    kind = arguments["model_type"]
    names = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]]
    return {"model_type": kind, "architectures": names, **sizes, **(arguments["options"] or {})}


def _causal_lms() -> set[str]:
    return {config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING}
