"""Transformer backbones: transformers' own classes behind this project's contract."""

from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

from torch import Tensor, nn  # isort: skip
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, Cache

from cobra.models.lm.attention_lm import AttentionLM
from cobra.models.lm.block_steps import BlockSteps
from cobra.models.lm.kv_state import KVState, attend
from cobra.models.lm.transformer_steps import block_steps


class TransformerLM(AttentionLM):
    """A decoder-only transformer of the transformers library, with random weights.

    Args:
        vocab_size: rows of the embedding.
        d_model: width D.
        n_layers: blocks.
        model_type: transformers' name of the architecture, e.g. `llama`.
        options: further entries of its configuration, e.g. `num_attention_heads`.
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
        sizes = {"vocab_size": vocab_size, "hidden_size": d_model, "num_hidden_layers": n_layers}
        config = AutoConfig.for_model(model_type, **sizes, **(options or {}))
        self.causal_lm = AutoModelForCausalLM.from_config(config, attn_implementation=_ATTENTION)
        # left out where initial values are, e.g. when weights are about to be read
        self.causal_lm.tie_weights()
        heads = config.num_attention_heads
        self.n_slots = n_layers
        self.kv_heads = getattr(config, "num_key_value_heads", None) or heads
        self.head_dim = getattr(config, "head_dim", None) or d_model // heads
        # configurations keep a window that is switched off out of sliding_window
        self.window: int | None = getattr(config, "sliding_window", None)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to embeddings (B, T, D)."""
        return self.causal_lm.get_input_embeddings()(ids)

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocab_size)."""
        return self.causal_lm.get_output_embeddings()(hidden)

    def run(
        self, embeds: Tensor, seen: Tensor | None, positions: Tensor, state: KVState | None = None
    ) -> Tensor:
        """See `AttentionLM.run`."""
        self._check_window(embeds.shape[1] + (0 if state is None else state.length))
        return self.causal_lm.base_model(
            inputs_embeds=embeds,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=None if state is None else _WrittenCache(state),
            use_cache=state is not None,
        ).last_hidden_state

    def block_steps(self) -> BlockSteps | None:
        """See `AttentionLM.block_steps`."""
        return block_steps(self.causal_lm)

    def _check_window(self, tokens: int) -> None:
        """Attention here is over all tokens: refuse to be silently another model than the configuration's."""
        if self.window is not None and tokens > self.window:
            raise ValueError(
                f"{tokens} tokens exceed sliding_window {self.window} of the configuration, behind which "
                "nothing is cut off here: use fewer, or set sliding_window to null in options"
            )


class _WrittenCache(Cache):
    """A `KVState` as transformers' models ask for it."""

    def __init__(self, state: KVState) -> None:
        super().__init__(layers=[])
        self.state = state

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        return self.state.write(layer_idx, key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.state.length


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
