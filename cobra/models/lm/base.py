"""The contract of a language backbone."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from cobra.models.component import Component


class DecodeState(Protocol):
    """What a backbone remembers of the tokens it has seen: fixed buffers, written in place."""

    @property
    def nbytes(self) -> int:
        """Bytes that the buffers take."""

    def clone(self) -> Any:
        """An independent copy, e.g. to ask several questions after one picture."""

    def reset(self) -> None:
        """Forget everything."""


class LanguageModel(Component, ABC):
    """Maps token embeddings to hidden states, all at once (prefill) or one at a time (step).

    Attributes:
        vocab_size: rows of the embedding and of the head.
        d_model: width D of embeddings and hidden states.
    """

    vocab_size: int
    d_model: int

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to embeddings (B, T, D)."""

    @abstractmethod
    def prefill(
        self, embeds: Tensor, state: Any = None, mask: Tensor | None = None, seq_idx: Tensor | None = None
    ) -> Tensor:
        """Embeddings (B, T, D) to hidden states (B, T, D); continues from `state` and updates it in place.

        Args:
            embeds: token and image embeddings.
            state: from `allocate_state`; None in training, where nothing is remembered.
            mask: (B, T) bool, False on left padding; padding changes neither the other outputs nor the state.
                Ragged rows start from an empty state.
            seq_idx: (B, T) int32, number of the packed sequence that a token belongs to, non-decreasing in a
                row; no information crosses from one to the next.
        """

    @abstractmethod
    def step(self, embed: Tensor, state: Any) -> Tensor:
        """One embedding a sequence (B, D) to its hidden state (B, D); updates `state` in place."""

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocab_size)."""

    @abstractmethod
    def allocate_state(
        self,
        batch: int,
        max_length: int,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> DecodeState:
        """An empty state for `batch` sequences of at most `max_length` tokens.

        Defaults to the parameters' dtype and device. A state-space model's does not grow with max_length.
        """
