"""The contract of a language backbone."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cobra.kernels.ops import advance
from cobra.models.component import Component
from cobra.models.lm.state import LayerState, Layout, State
from cobra.models.lm.tokens import Tokens, following, packed

# what the command line calls the precisions of a recurrent state
_STATE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class LanguageModel(Component, ABC):
    """Maps token embeddings to hidden states, all at once (prefill) or one at a time (step).

    Attributes:
        vocab_size: rows of the embedding and of the head.
        d_model: width D of embeddings and hidden states.
        state_dtype: of the recurrent state of a model that is not fp64. bf16 halves what a step reads and
            writes of it, and rounds it at every token.
        quantized: the arguments of `quantize_` that its weights were packed with; None if they were not.
    """

    vocab_size: int
    d_model: int
    state_dtype = torch.float32
    quantized: dict[str, Any] | None = None

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to embeddings (B, T, D)."""

    @abstractmethod
    def read(self, embeds: Tensor, layers: list[LayerState] | None, tokens: Tokens) -> Tensor:
        """Embeddings (B, T, D) to hidden states (B, T, D); continues from a state's layers, in place."""

    @abstractmethod
    def read_one(self, embed: Tensor, state: State) -> Tensor:
        """One embedding a sequence (B, D) to its hidden state (B, D); updates `state`, but for lengths."""

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocab_size)."""

    @abstractmethod
    def layouts(self) -> list[Layout]:
        """The buffers of each layer of its state."""

    def units(self) -> Sequence[nn.Module]:
        """The blocks that it applies one after the other, by which it is sharded and recomputed."""
        return []

    def name_in_transformers(self, name: str) -> str:
        """What transformers calls one of its modules or weights, where it has the model."""
        return name

    def tables(self, length: int, device: torch.device) -> Mapping[Any, Tensor]:
        """What its steps look up by position, for `length` positions; see `State`."""
        return {}

    def prefill(
        self,
        embeds: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        seq_idx: Tensor | None = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """Embeddings (B, T, D) to hidden states (B, T, D); continues from `state` and updates it in place.

        Where autograd records, gradients reach what the state has read, up to its last `detach_`: truncated
        backpropagation through a text in pieces.

        Args:
            embeds: token and image embeddings.
            state: from `allocate_state`; None where nothing is to be remembered.
            mask: (B, T) bool, False at padding, wherever it is: the state and the other outputs are those of
                the row without it.
            seq_idx: (B, T) int32, number of the packed sequence that a token belongs to, non-decreasing in a
                row; no information crosses from one to the next.
            rows: of `state`, one that each sequence is read behind, perhaps several behind one; the state is
                left as it is. As with `state.take(rows)`, without its copy. Without gradients only.

        Raises:
            ValueError: where there is no room for the tokens, sequences are packed into a state, gradients
                that it holds would be cut off, or rows are not there, or not one for each sequence.
        """
        if rows is not None:
            _check_rows(rows, len(embeds), state)
        if state is None:
            attends = any(buffer.grows for layout in self.layouts() for buffer in layout.values())
            tokens = packed(embeds, mask, seq_idx) if attends else Tokens(mask, seq_idx)
            return self.read(embeds, None, tokens)
        if seq_idx is not None:
            raise ValueError("seq_idx packs sequences in training; a decode state holds one sequence a row")
        gradients = self._is_recorded(embeds, state)
        if gradients and rows is not None:
            raise ValueError(
                "rows of a state are read behind without gradients: call it under torch.no_grad()"
            )
        state.record(gradients)
        picked = None if rows is None else torch.tensor(rows, dtype=torch.int64, device=embeds.device)
        tokens = following(state, embeds, mask, picked) if state.grows else Tokens(mask)
        hidden = self.read(embeds, state.layers, replace(tokens, rows=picked))
        if rows is None:
            state.lengths += embeds.shape[1] if mask is None else mask.sum(1)
        return hidden

    def step(self, embed: Tensor, state: State) -> Tensor:
        """One embedding a sequence (B, D) to its hidden state (B, D); as `prefill` of one token a row."""
        state.record(self._is_recorded(embed, state))
        hidden = self.read_one(embed, state)
        advance(state.lengths)
        return hidden

    def _is_recorded(self, embeds: Tensor, state: State) -> bool:
        """Whether autograd records what is computed from these."""
        # first what is asked for every token
        return torch.is_grad_enabled() and (
            state.recorded
            or embeds.requires_grad
            or any(weight.requires_grad for weight in self.parameters())
        )

    def allocate_state(
        self,
        batch: int,
        max_length: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> State:
        """An empty state for `batch` sequences of at most `max_length` tokens.

        Defaults to the parameters' dtype and device. A state-space model's does not grow with max_length, and
        is never full.
        """
        weight = next(self.parameters())
        device = torch.device(device or weight.device)
        # under autocast keys and values come in its dtype
        autocast = device.type != "meta" and torch.is_autocast_enabled(device.type)
        dtype = dtype or (torch.get_autocast_dtype(device.type) if autocast else weight.dtype)
        recurrent_dtype = dtype if dtype == torch.float64 else self.state_dtype
        tables = self.tables(max_length, device)
        return State(self.layouts(), batch, max_length, dtype, recurrent_dtype, device, tables)

    @property
    def recurrent(self) -> bool:
        """Whether a layer has a recurrent state."""
        return any(buffer.recurrent for layout in self.layouts() for buffer in layout.values())

    def set_state_dtype(self, name: str) -> None:
        """Allocate recurrent states of fp32 or bf16 from now on; see `state_dtype`.

        Raises:
            ValueError: where there is none to narrow.
        """
        if name != "fp32" and not self.recurrent:
            raise ValueError(
                f"--state-dtype {name}: a {type(self).__name__} has no recurrent state; leave it out"
            )
        self.state_dtype = _STATE_DTYPES[name]


def _check_rows(rows: Sequence[int], sequences: int, state: State | None) -> None:
    if state is None:
        raise ValueError("rows are of no state: give one, or leave them out")
    if len(rows) != sequences or not all(0 <= row < state.rows for row in rows):
        raise ValueError(
            f"rows {list(rows)} of a state of {state.rows} are not one for each of {sequences} sequences"
        )
