"""Transformer backbones: transformers' own classes behind this project's contract."""

import copy
from dataclasses import dataclass
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, StaticCache

from cobra.models.lm.base import LanguageModel


@dataclass
class KVState:
    """Keys and values of every layer in buffers of a fixed length.

    Attributes:
        cache: transformers' static cache.
        valid: (B, max_length) bool, False on padding and on what is not written yet.
        positions: (B,) position id of each row's next token.
        length: tokens written, padding included.
    """

    cache: StaticCache
    valid: Tensor
    positions: Tensor
    length: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes that keys and values take, for all of max_length."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def clone(self) -> "KVState":
        """An independent copy; what is not written yet takes no memory."""
        buffers = [buffer for layer in self.cache.layers for buffer in (layer.keys, layer.values)]
        copies = {id(buffer): _copy_written(buffer, self.length) for buffer in buffers}
        cache = copy.deepcopy(self.cache, copies)
        return KVState(cache, self.valid.clone(), self.positions.clone(), self.length)

    def reset(self) -> None:
        """Forget everything."""
        self.cache.reset()
        self.valid.zero_()
        self.positions.zero_()
        self.length = 0


class TransformerLM(LanguageModel):
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
        self.causal_lm = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to embeddings (B, T, D)."""
        return self.causal_lm.get_input_embeddings()(ids)

    def prefill(
        self,
        embeds: Tensor,
        state: KVState | None = None,
        mask: Tensor | None = None,
        seq_idx: Tensor | None = None,
    ) -> Tensor:
        """Embeddings (B, T, D) to hidden states (B, T, D); see `LanguageModel.prefill`."""
        if state is None:
            return self._run(embeds, _training_mask(embeds, mask, seq_idx), _positions(embeds, mask, seq_idx))
        if seq_idx is not None:
            raise ValueError("seq_idx packs sequences in training; a decode state holds one sequence a row")
        batch, tokens = embeds.shape[:2]
        stop = state.length + tokens
        if stop > state.valid.shape[1]:
            raise ValueError(
                f"{stop} tokens exceed the state's max_length {state.valid.shape[1]}: allocate more"
            )
        new = torch.ones(batch, tokens, dtype=torch.bool, device=embeds.device) if mask is None else mask
        positions = (state.positions[:, None] + new.cumsum(1) - 1).clamp(min=0)
        state.valid[:, state.length : stop] = new
        rows = torch.arange(state.length, stop, device=embeds.device)[:, None]  # (T, 1)
        columns = torch.arange(state.valid.shape[1], device=embeds.device)
        # a padding query sees itself: with nothing to see its softmax would be NaN, which spreads
        allowed = (state.valid[:, None] & (columns <= rows)) | (columns == rows)  # (B, T, max_length)
        hidden = self._run(embeds, allowed[:, None], positions, state.cache)
        state.positions += new.sum(1)
        state.length = stop
        return hidden

    def step(self, embed: Tensor, state: KVState) -> Tensor:
        """One embedding a sequence (B, D) to its hidden state (B, D); updates `state` in place."""
        return self.prefill(embed[:, None], state)[:, 0]

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocab_size)."""
        return self.causal_lm.get_output_embeddings()(hidden)

    def allocate_state(
        self,
        batch: int,
        max_length: int,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> KVState:
        """An empty static cache for `batch` sequences of at most `max_length` tokens."""
        weight = self.causal_lm.get_input_embeddings().weight
        device = device or weight.device
        # under autocast keys and values come in its dtype
        autocast = device.type != "meta" and torch.is_autocast_enabled(device.type)
        dtype = dtype or (torch.get_autocast_dtype(device.type) if autocast else weight.dtype)
        config = self.causal_lm.config
        cache = StaticCache(config, max_cache_len=max_length)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        cache.early_initialization(batch, config.num_key_value_heads, head_dim, dtype, device)
        valid = torch.zeros(batch, max_length, dtype=torch.bool, device=device)
        return KVState(cache, valid, torch.zeros(batch, dtype=torch.long, device=device))

    def _run(
        self,
        embeds: Tensor,
        allowed: Tensor | None,
        positions: Tensor | None,
        cache: StaticCache | None = None,
    ) -> Tensor:
        return self.causal_lm.base_model(
            inputs_embeds=embeds,
            attention_mask=allowed,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state


def _copy_written(buffer: Tensor, length: int) -> Tensor:
    """A copy of the first `length` tokens of keys or values (B, H, max_length, P), zeros behind."""
    new = torch.zeros_like(buffer)
    new[:, :, :length] = buffer[:, :, :length]
    return new


def _training_mask(embeds: Tensor, mask: Tensor | None, seq_idx: Tensor | None) -> Tensor | None:
    """Who sees whom, (B, 1, T, T) bool; None where plain causal attention will do."""
    if mask is None and seq_idx is None:
        return None
    tokens = embeds.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=embeds.device).tril()
    allowed = causal.expand(embeds.shape[0], tokens, tokens)
    if mask is not None:
        allowed = allowed & mask[:, None]
    if seq_idx is not None:
        allowed = allowed & (seq_idx[:, :, None] == seq_idx[:, None])
    itself = torch.eye(tokens, dtype=torch.bool, device=embeds.device)
    return (allowed | itself)[:, None]


def _positions(embeds: Tensor, mask: Tensor | None, seq_idx: Tensor | None) -> Tensor | None:
    """Position ids (B, T) that start at 0 in each sequence; None where 0 … T - 1 will do."""
    if seq_idx is not None:
        index = torch.arange(embeds.shape[1], device=embeds.device).expand(seq_idx.shape)
        starts = torch.cat([seq_idx.new_ones(seq_idx.shape[0], 1), seq_idx.diff(dim=1)], dim=1) != 0
        return index - torch.where(starts, index, 0).cummax(dim=1).values
    return None if mask is None else (mask.cumsum(1) - 1).clamp(min=0)
