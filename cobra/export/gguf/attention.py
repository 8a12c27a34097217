"""Transformer baselines as llama.cpp has them: LLaMA and MobileLLM, Qwen2, Phi, Phi-3, StableLM."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

from torch import Tensor  # isort: skip

from cobra.export.gguf.described import Description, Part, described
from cobra.export.gguf.file import Value
from cobra.models.lm.attention import Attention
from cobra.models.lm.gated_mlp import GatedMLP
from cobra.models.lm.mobile_llm import MobileLLM
from cobra.models.lm.transformer import TransformerLM

# what llama.cpp calls the linears and norms of a block, by transformers' names
_LINEARS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.dense": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


@dataclass(frozen=True)
class _Kind:
    """One of transformers' architectures in llama.cpp.

    Attributes:
        architecture: llama.cpp's name.
        act: the one activation that it has.
        norm_eps: llama.cpp's name of its norms' epsilon, and transformers'.
        interleaved: neighbouring channels turn together, where transformers turns halves of a head.
        needs_head: the file has a head even where it is the embedding.
        lacks: see `Description`.
    """

    architecture: str
    act: str = "silu"
    norm_eps: tuple[str, str] = ("layer_norm_rms_epsilon", "rms_norm_eps")
    interleaved: bool = False
    needs_head: bool = False
    lacks: tuple[str, ...] = ()


_LAYER_NORM = ("layer_norm_epsilon", "layer_norm_eps")
_PHI = "the last digits of its activations: llama.cpp reads GELU off a table in fp16 (logits differ by 1e-3)"
_KINDS = {
    "llama": _Kind("llama", interleaved=True),
    "qwen2": _Kind("qwen2"),
    "phi": _Kind("phi2", act="gelu_new", norm_eps=_LAYER_NORM, needs_head=True, lacks=(_PHI,)),
    "phi3": _Kind("phi3"),
    "stablelm": _Kind("stablelm", norm_eps=_LAYER_NORM, needs_head=True),
}


@described.register
def _(lm: TransformerLM) -> Description:
    config = lm.causal_lm.config
    kind = _KINDS.get(config.model_type)
    if kind is None:
        raise ValueError(f"model_type {config.model_type!r} cannot be exported, only {', '.join(_KINDS)}")
    _check(config, kind)
    heads, kv_heads, head_dim = config.num_attention_heads, *lm.layout["keys"].shape
    parts: dict[str, Part] = {}
    names = {name: tensor.dim() for name, tensor in lm.state_dict().items()}
    root = f"causal_lm.{lm.causal_lm.base_model_prefix}."
    final = "final_layernorm" if f"{root}final_layernorm.weight" in names else "norm"
    table = {f"{root}embed_tokens": "token_embd", f"{root}{final}": "output_norm"}
    if not config.tie_word_embeddings:
        table["causal_lm.lm_head"] = "output"
    turns = {"attn_q": heads, "attn_k": kv_heads} if kind.interleaved else {}
    for number in range(lm.n_layers):
        for theirs, ours in {**_LINEARS, **_NORMS}.items():
            table[f"{root}layers.{number}.{theirs}"] = f"blk.{number}.{ours}"
    for source, name in table.items():
        for end in ("weight", "bias"):
            if (found := f"{source}.{end}") in names:
                parts[f"{name}.{end}"] = _part(found, names[found] == 2, turns.get(name.split(".")[-1]))
    if config.tie_word_embeddings and kind.needs_head:
        parts["output.weight"] = parts["token_embd.weight"]
    settings = _settings(lm.d_model, lm.n_layers, heads, kv_heads, head_dim, config.rope_parameters)
    settings |= {
        "context_length": min(config.max_position_embeddings, lm.window or config.max_position_embeddings),
        "feed_forward_length": config.intermediate_size,
        "vocab_size": lm.vocab_size,
        f"attention.{kind.norm_eps[0]}": float(getattr(config, kind.norm_eps[1])),
    }
    return Description(kind.architecture, settings, parts, lacks=kind.lacks)


@described.register
def _(lm: MobileLLM) -> Description:
    attention: Attention = lm.layers[0].self_attn  # type: ignore[assignment]
    mlp: GatedMLP = lm.layers[0].mlp  # type: ignore[assignment]
    kv_heads, head_dim = attention.layout["keys"].shape
    heads = lm.d_model // head_dim
    parts = {"token_embd.weight": Part("embed_tokens.weight", is_matrix=True)}
    for number in range(len(lm.blocks)):
        # a block that is applied twice is in the file twice: llama.cpp shares none
        source, name = f"layers.{number // lm.passes}", f"blk.{number}"
        for theirs, ours in _NORMS.items():
            parts[f"{name}.{ours}.weight"] = Part(f"{source}.{theirs}.weight")
        for theirs in ("q_proj", "k_proj", "v_proj", "o_proj"):
            ours = _LINEARS[f"self_attn.{theirs}"]
            turned = {"q_proj": heads, "k_proj": kv_heads}.get(theirs)
            parts[f"{name}.{ours}.weight"] = _part(f"{source}.self_attn.{theirs}.weight", True, turned)
        for theirs in ("gate_proj", "up_proj", "down_proj"):
            ours = _LINEARS[f"mlp.{theirs}"]
            parts[f"{name}.{ours}.weight"] = Part(f"{source}.mlp.{theirs}.weight", is_matrix=True)
    parts["output_norm.weight"] = Part("norm.weight")
    rotation = {"rope_theta": attention.rotary.theta, "rope_type": "default"}
    settings = _settings(lm.d_model, len(lm.blocks), heads, kv_heads, head_dim, rotation)
    settings |= {
        # as published; a cache is as long as it is asked to be
        "context_length": 2048,
        "feed_forward_length": mlp.gate_proj.out_features,
        "vocab_size": lm.vocab_size,
        "attention.layer_norm_rms_epsilon": float(lm.init_args["norm_eps"]),
    }
    return Description("llama", settings, parts)


def _settings(
    d_model: int, n_layers: int, heads: int, kv_heads: int, head_dim: int, rotation: Mapping[str, Any]
) -> dict[str, Value]:
    return {
        "embedding_length": d_model,
        "block_count": n_layers,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "rope.dimension_count": int(head_dim * rotation.get("partial_rotary_factor", 1.0)),
        "rope.freq_base": float(rotation["rope_theta"]),
    }


def _check(config: Any, kind: _Kind) -> None:
    """Refuse what llama.cpp would compute in another way."""
    settings = {
        "hidden_act": (config.hidden_act, kind.act),
        "rope_type": (config.rope_parameters["rope_type"], "default"),
        "qk_layernorm": (getattr(config, "qk_layernorm", False), False),
        "use_parallel_residual": (getattr(config, "use_parallel_residual", False), False),
    }
    for name, (found, known) in settings.items():
        if found != known:
            raise ValueError(
                f"{name} {found!r} of a {config.model_type} cannot be exported, llama.cpp's "
                f"{kind.architecture} has {known!r}"
            )


def _part(source: str, is_matrix: bool, turned_heads: int | None) -> Part:
    change: Callable[[Tensor], Tensor] = Tensor.detach
    if turned_heads is not None:
        change = partial(_interleave, heads=turned_heads)
    return Part(source, change, is_matrix)


def _interleave(weight: Tensor, heads: int) -> Tensor:
    """Channels of each head (H × P, ...) from halves that turn together to neighbours that do."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
