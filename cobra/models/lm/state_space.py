"""What Mamba-1 and Mamba-2 language models share: embedding, residual blocks, tied head, state."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.kernels import huge_pages
from cobra.kernels.ops import add_rms_norm, rms_norm
from cobra.models.lm.base import LanguageModel


@dataclass
class SSMState:
    """The state of every layer: constant in size, whatever the context.

    Attributes:
        conv: (layers, B, channels, d_conv - 1), the last inputs of each causal convolution.
        ssm: (layers, B, ...), the recurrent state of each layer.
    """

    conv: Tensor
    ssm: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that the buffers take, the same at any length."""
        return self.conv.nbytes + self.ssm.nbytes

    def clone(self) -> "SSMState":
        """An independent copy."""
        return SSMState(self.conv.clone(), huge_pages.copy(self.ssm))

    def reset(self) -> None:
        """Forget everything."""
        self.conv.zero_()
        self.ssm.zero_()

    @cached_property
    def layers(self) -> list["SSMState"]:
        """The state of each layer, sharing memory with the whole."""
        return [SSMState(conv, ssm) for conv, ssm in zip(self.conv, self.ssm, strict=True)]


class Mixer(nn.Module, ABC):
    """The sequence mixer of a block.

    Attributes:
        conv_shape: (channels, d_conv - 1), one sequence's convolution state.
        ssm_shape: one sequence's recurrent state.
    """

    conv_shape: tuple[int, ...]
    ssm_shape: tuple[int, ...]

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        state: SSMState | None = None,
        mask: Tensor | None = None,
        seq_idx: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D); continues from `state` and updates it in place."""

    @abstractmethod
    def step(self, x: Tensor, state: SSMState) -> Tensor:
        """(B, D) to (B, D), one token; updates `state` in place."""


class Block(nn.Module):
    """Residual block: the sum is kept in fp32, normalized, and mixed."""

    def __init__(self, d_model: int, mixer: Mixer, norm_eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model, norm_eps)
        self.mixer: Mixer = mixer

    def forward(self, hidden: Tensor, residual: Tensor | None, *state: Any) -> tuple[Tensor, Tensor]:
        """Mixer output and residual of the block before (B, T, D) to those of this one."""
        normed, residual = self.norm.add(hidden, residual)
        return self.mixer(normed, *state), residual

    def step(self, hidden: Tensor, residual: Tensor | None, state: SSMState) -> tuple[Tensor, Tensor]:
        """As forward for one token a sequence, (B, D)."""
        normed, residual = self.norm.add(hidden, residual)
        return self.mixer.step(normed, state), residual


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        return rms_norm(x, self.weight, self.eps)

    def add(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Norm of x + residual, and that sum, in fp32 whatever the dtype of x; residual None is 0."""
        return add_rms_norm(x, residual, self.weight, self.eps, residual_in_fp32=True)


class TiedEmbedding(nn.Embedding):
    """An embedding whose weight is the head's, too."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., rows of the embedding)."""
        return F.linear(hidden, self.weight)


class StateSpaceLM(LanguageModel):
    """Embedding, blocks, final norm and tied head; parameter names as in mamba_ssm's `backbone`.

    Attributes:
        state_dtype: of the recurrent state of a model that is not fp64. bf16 halves what a step reads and
            writes of it, and rounds it at every token.
    """

    state_dtype = torch.float32

    def __init__(self, vocab_size: int, d_model: int, mixers: Sequence[Mixer], norm_eps: float) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.embedding = TiedEmbedding(vocab_size, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Block(d_model, mixer, norm_eps) for mixer in mixers)
        self.norm_f = RMSNorm(d_model, norm_eps)

    @property
    def blocks(self) -> list[Block]:
        """The layers, by their type."""
        return cast(list[Block], list(self.layers))

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to embeddings (B, T, D)."""
        return self.embedding(ids)

    def prefill(
        self,
        embeds: Tensor,
        state: SSMState | None = None,
        mask: Tensor | None = None,
        seq_idx: Tensor | None = None,
    ) -> Tensor:
        """Embeddings (B, T, D) to hidden states (B, T, D); see `LanguageModel.prefill`."""
        hidden, residual = embeds, None
        for index, block in enumerate(self.blocks):
            layer_state = None if state is None else state.layers[index]
            hidden, residual = block(hidden, residual, layer_state, mask, seq_idx)
        return self.norm_f.add(hidden, residual)[0]

    def step(self, embed: Tensor, state: SSMState) -> Tensor:
        """One embedding a sequence (B, D) to its hidden state (B, D); updates `state` in place."""
        hidden, residual = embed, None
        for block, layer_state in zip(self.blocks, state.layers, strict=True):
            hidden, residual = block.step(hidden, residual, layer_state)
        return self.norm_f.add(hidden, residual)[0]

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocab_size), with the embedding's weights."""
        return self.embedding.logits(hidden)

    def allocate_state(
        self,
        batch: int,
        max_length: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> SSMState:
        """An empty state; max_length does not matter. dtype: of the convolutions, see also `state_dtype`."""
        weight = self.embedding.weight
        mixer = self.blocks[0].mixer
        layers = len(self.layers)
        dtype, device = dtype or weight.dtype, device or weight.device
        wide = dtype if dtype == torch.float64 else self.state_dtype
        conv = torch.zeros(layers, batch, *mixer.conv_shape, dtype=dtype, device=device)
        ssm = huge_pages.zeros((layers, batch, *mixer.ssm_shape), wide, torch.device(device))
        return SSMState(conv, ssm)
