"""Transformer backbones: transformers' own classes behind this project's contract."""

from inspect import signature
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, Cache
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cobra.models.linear import adopt_linears
from cobra.models.lm.attention import attend, keys_and_values
from cobra.models.lm.base import LanguageModel
from cobra.models.lm.state import LayerState, Layout, State
from cobra.models.lm.tokens import Tokens, following
from cobra.models.lm.transformer_steps import ROTATION, block_steps

# Entries of a configuration that decide what is computed. Others of transformers' say where code or weights
# are fetched (auto_map, _name_or_path, attn_implementation), and configurations need not be trusted.
OPTIONS = (
    "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "hidden_act",
    "rms_norm_eps", "layer_norm_eps", "use_qkv_bias", "attention_bias", "mlp_bias", "qk_layernorm",
    "use_parallel_residual", "rope_theta", "partial_rotary_factor", "rope_scaling", "rope_parameters",
    "sliding_window", "use_sliding_window", "max_position_embeddings", "original_max_position_embeddings",
    "tie_word_embeddings",
)  # fmt: skip
_IN_TRAINING = ("pad_token_id", "attention_dropout", "initializer_range")


class TransformerLM(LanguageModel):
    """A decoder-only transformer of the transformers library, with random weights.

    Args:
        vocab_size: rows of the embedding.
        d_model: width D.
        n_layers: blocks.
        model_type: transformers' name of the architecture, e.g. `llama`.
        options: further entries of its configuration, e.g. `num_attention_heads`; see `OPTIONS`.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_layers: int,
        model_type: str = "llama",
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.d_model = d_model
        if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise ValueError(f"model_type {model_type!r} is no language model of transformers, e.g. llama")
        options = options or {}
        known = (*OPTIONS, *_IN_TRAINING)
        if unknown := sorted(set(options) - set(known)):
            raise ValueError(f"options {unknown} are not taken, only {', '.join(known)}")
        sizes = {"vocab_size": vocab_size, "hidden_size": d_model, "num_hidden_layers": n_layers}
        config = AutoConfig.for_model(model_type, **sizes, **options)
        self.causal_lm = AutoModelForCausalLM.from_config(
            config, attn_implementation=_ATTENTION, trust_remote_code=False
        )
        # left out where initial values are, e.g. when weights are about to be read
        self.causal_lm.tie_weights()
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or d_model // heads
        self.layout, self.n_layers = keys_and_values(kv_heads, head_dim), n_layers
        # configurations keep a window that is switched off out of sliding_window
        self.window: int | None = getattr(config, "sliding_window", None)
        adopt_linears(self)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to embeddings (B, T, D)."""
        return self.causal_lm.get_input_embeddings()(ids)

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocab_size)."""
        return self.causal_lm.get_output_embeddings()(hidden)

    def layouts(self) -> list[Layout]:
        """See `LanguageModel.layouts`."""
        return [self.layout] * self.n_layers

    def units(self) -> list[nn.Module]:
        """See `LanguageModel.units`."""
        return list(self.causal_lm.base_model.layers)

    def name_in_transformers(self, name: str) -> str:
        """See `LanguageModel.name_in_transformers`."""
        return name.removeprefix("causal_lm.")

    def tables(self, length: int, device: torch.device) -> dict[str, Tensor]:
        """See `LanguageModel.tables`; empty where a step goes through transformers' own modules."""
        # of a state without memory the lengths are on the CPU all the same, where no kernel takes them
        is_there = device.type == next(self.parameters()).device.type != "meta"
        steps = block_steps(self.causal_lm) if is_there else None
        return {} if steps is None else {ROTATION: steps.rotation(length, device)}

    def read(self, embeds: Tensor, layers: list[LayerState] | None, tokens: Tokens) -> Tensor:
        """See `LanguageModel.read`."""
        self._check_window(tokens.slots.end if tokens.slots else embeds.shape[1])
        cache = None if layers is None else _StateCache(layers, tokens)
        return self.causal_lm.base_model(
            inputs_embeds=embeds,
            attention_mask=tokens.attn_mask,
            position_ids=tokens.positions,
            use_cache=layers is not None,
            **{cache_argument(self.causal_lm.base_model): cache},
        ).last_hidden_state

    def read_one(self, embed: Tensor, state: State) -> Tensor:
        """See `LanguageModel.read_one`."""
        steps = block_steps(self.causal_lm) if state.tables else None
        if steps is not None:
            return steps.step(embed, state)
        return self.read(embed[:, None], state.layers, following(state, embed[:, None], None))[:, 0]

    def _check_window(self, tokens: int) -> None:
        """Attention here is over all tokens: refuse to be silently another model than the configuration's."""
        if self.window is not None and tokens > self.window:
            raise ValueError(
                f"{tokens} tokens exceed sliding_window {self.window} of the configuration, behind which "
                "nothing is cut off here: use fewer, or set sliding_window to null in options"
            )


def cache_argument(model: nn.Module) -> str:
    """What a model of transformers calls its cache; older versions have two names."""
    known = signature(model.forward).parameters
    return next(name for name in ("cache", "past_key_values", "cache_params") if name in known)


class _StateCache(Cache):
    """A state's layers as transformers' models ask for them."""

    def __init__(self, layers: list[LayerState], tokens: Tokens) -> None:
        super().__init__(layers=[])
        self.states, self.tokens = layers, tokens

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        slots = self.tokens.slots
        assert slots is not None
        keys, values = map(self.tokens.before, self.states[layer_idx].values())
        return slots.extend(keys, key_states), slots.extend(values, value_states)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """`attend` as transformers' models call it, to (B, T, H, P)."""
    if dropout:
        raise ValueError(f"attention_dropout {dropout} is not supported: set it to 0 in options")
    return attend(query, key, value, attention_mask, scaling).transpose(1, 2), None


# A name that has no mask function: models then pass on what they are given, and make no masks themselves.
_ATTENTION = "cobra"
AttentionInterface.register(_ATTENTION, _attend)
