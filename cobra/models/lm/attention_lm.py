"""What transformer language models share: masks, position ids, a state of keys and values."""

from abc import abstractmethod

import torch
from torch import Tensor

from cobra.models.lm.base import LanguageModel
from cobra.models.lm.block_steps import BlockSteps
from cobra.models.lm.kv_state import KVState


class AttentionLM(LanguageModel):
    """A decoder whose memory is a `KVState`.

    Attributes:
        n_slots: pairs of key and value buffers that it writes, one for each application of a block.
        kv_heads: heads of keys and values.
        head_dim: their width.
    """

    n_slots: int
    kv_heads: int
    head_dim: int

    @abstractmethod
    def run(
        self, embeds: Tensor, seen: Tensor | None, positions: Tensor, state: KVState | None = None
    ) -> Tensor:
        """Embeddings (B, T, D) to hidden states (B, T, D), with attention by `kv_state.attend`.

        Args:
            embeds: token and image embeddings.
            seen: as `attend` takes it.
            positions: position ids, (B, T) or (1, T).
            state: where each layer writes its keys and values.
        """

    def prefill(
        self,
        embeds: Tensor,
        state: KVState | None = None,
        mask: Tensor | None = None,
        seq_idx: Tensor | None = None,
    ) -> Tensor:
        """Embeddings (B, T, D) to hidden states (B, T, D); see `LanguageModel.prefill`."""
        if state is None:
            return self.run(
                embeds, _packed_visibility(embeds, mask, seq_idx), _packed_positions(embeds, mask, seq_idx)
            )
        if seq_idx is not None:
            raise ValueError("seq_idx packs sequences in training; a decode state holds one sequence a row")
        tokens = embeds.shape[1]
        state.begin(tokens, mask)
        hidden = self.run(embeds, state.visibility(tokens), state.positions(tokens), state)
        state.end(tokens)
        return hidden

    def step(self, embed: Tensor, state: KVState) -> Tensor:
        """One embedding a sequence (B, D) to its hidden state (B, D); updates `state` in place."""
        steps = None if state.rotation is None else self.block_steps()
        if steps is None:
            return self.prefill(embed[:, None], state)[:, 0]
        state.begin(1, None)
        return steps.step(embed, state)

    def block_steps(self) -> BlockSteps | None:
        """The steps of a model that takes them by kernels alone; None of others."""
        return None

    def allocate_state(
        self,
        batch: int,
        max_length: int,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> KVState:
        """Empty buffers for `batch` sequences of at most `max_length` tokens."""
        weight = next(self.parameters())
        device = device or weight.device
        # under autocast keys and values come in its dtype
        autocast = device.type != "meta" and torch.is_autocast_enabled(device.type)
        dtype = dtype or (torch.get_autocast_dtype(device.type) if autocast else weight.dtype)
        # elsewhere a length that only a kernel reads would have to be waited for
        steps = self.block_steps() if weight.device.type == device.type == "cpu" else None
        rotation = None if steps is None else steps.rotation(max_length)
        return KVState.empty(
            self.n_slots, batch, self.kv_heads, max_length, self.head_dim, dtype, device, rotation
        )


def _packed_visibility(embeds: Tensor, mask: Tensor | None, seq_idx: Tensor | None) -> Tensor | None:
    """Who sees whom without a state, (B, 1, T, T) bool; None where plain causal attention will do."""
    if mask is None and seq_idx is None:
        return None
    tokens = embeds.shape[1]
    seen = torch.ones(tokens, tokens, dtype=torch.bool, device=embeds.device).tril()
    if mask is not None:
        seen = seen & mask[:, None]
    if seq_idx is not None:
        seen = seen & (seq_idx[:, :, None] == seq_idx[:, None])
    itself = torch.eye(tokens, dtype=torch.bool, device=embeds.device)
    return (seen | itself)[:, None]


def _packed_positions(embeds: Tensor, mask: Tensor | None, seq_idx: Tensor | None) -> Tensor:
    """Position ids without a state, (B, T) or (1, T), that start at 0 in each sequence."""
    index = torch.arange(embeds.shape[1], device=embeds.device)[None]
    if seq_idx is not None:
        starts = torch.cat([seq_idx.new_ones(seq_idx.shape[0], 1), seq_idx.diff(dim=1)], dim=1) != 0
        return index - torch.where(starts, index, 0).cummax(dim=1).values
    return index if mask is None else (mask.cumsum(1) - 1).clamp(min=0)
