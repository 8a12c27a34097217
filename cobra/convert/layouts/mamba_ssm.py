"""Mamba and Mamba-2 as state-spaces/mamba writes them (`MambaLMHeadModel.save_pretrained`)."""

from typing import Any

from cobra.convert.layout import Layout, Tree
from cobra.convert.source import Source

_EMBEDDING, _HEAD = "backbone.embedding.weight", "lm_head.weight"
# what a layer's weights are made by, as this project calls it; the rest of ssm_cfg concerns initialization
_SIZES = {
    "d_state": "d_state",
    "d_conv": "d_conv",
    "expand": "expand",
    "dt_rank": "dt_rank",
    "headdim": "head_dim",
    "ngroups": "n_groups",
    "chunk_size": "chunk_size",
}
_INITIAL = {"dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "A_init_range", "use_fast_path"}
# whatever else there is must have the value that this project builds
_FIXED = {"conv_bias": True, "bias": False, "rmsnorm": True, "norm_before_gate": False, "D_has_hdim": False}
_LAYERS = {"Mamba1": "cobra.models.lm.mamba.MambaLM", "Mamba2": "cobra.models.lm.mamba2.Mamba2LM"}


class MambaSSM(Layout):
    """A config.json with `ssm_cfg`, and `backbone.embedding`, which is also the head."""

    title = "mamba_ssm"

    def recognises(self, source: Source) -> bool:
        """Whether the embedding has mamba_ssm's name, and the configuration is not transformers'."""
        return _EMBEDDING in source.tensors and "hidden_size" not in source.config

    def parts(self, source: Source) -> dict[str, Tree]:
        """The language model that `d_model`, `n_layer`, `vocab_size` and `ssm_cfg` describe."""
        config = source.config
        if not {"d_model", "n_layer", "vocab_size"} <= set(config):
            raise ValueError(f"{source.path.parent} has no config.json with d_model, n_layer and vocab_size")
        require(config, {"rms_norm": True, "tie_embeddings": True, "d_intermediate": 0, "attn_layer_idx": []})
        ssm = dict(config.get("ssm_cfg") or {})
        layer = ssm.pop("layer", "Mamba1")
        if layer not in _LAYERS:
            raise ValueError(f"config.json: ssm_cfg.layer {layer!r} is not one of {', '.join(_LAYERS)}")
        require(ssm, _FIXED)
        unknown = sorted(set(ssm) - set(_SIZES) - _INITIAL - set(_FIXED))
        if unknown:
            raise ValueError(f"config.json: ssm_cfg has {unknown}, which this project does not build")
        sizes = {_SIZES[name]: value for name, value in ssm.items() if name in _SIZES and value != "auto"}
        arguments = {
            "vocab_size": _padded(config["vocab_size"], config.get("pad_vocab_size_multiple", 8)),
            "d_model": config["d_model"],
            "n_layers": config["n_layer"],
            **sizes,
        }
        if "norm_epsilon" in config:
            arguments["norm_eps"] = config["norm_epsilon"]
        return {"lm": {"class_path": _LAYERS[layer], "init_args": arguments}}

    def key_map(self, source: Source) -> dict[str, str]:
        """All but the prefix is the same."""
        return {"backbone.": "lm."}

    def copies(self, source: Source) -> dict[str, str]:
        """The head is stored again."""
        return {_HEAD: _EMBEDDING}


def require(config: dict[str, Any], values: dict[str, Any]) -> None:
    """Refuse a configuration that says anything else where it says anything.

    Raises:
        ValueError: naming the entry and the value that can be read.
    """
    for name, value in values.items():
        if config.get(name, value) != value:
            raise ValueError(f"config.json: {name} {config[name]!r} cannot be read, only {value!r}")


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
