"""One token through the blocks of a transformer, by kernels alone: whoever's modules hold the weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cobra.kernels.ops import add_layer_norm, attention_step
from cobra.models.lm.kv_state import KVState


@dataclass(frozen=True)
class BlockSteps(ABC):
    """Blocks and the norm after them; linears may be packed and have biases.

    Attributes:
        blocks: one for each layer of the state; they may repeat.
        norm: after the last.
        rotation: of so many positions, (length, R) fp32, as `ops.attention_step` takes it.
    """

    blocks: Sequence[Any]
    norm: Any
    rotation: Callable[[int], Tensor]

    @abstractmethod
    def step(self, embed: Tensor, state: KVState) -> Tensor:
        """One embedding a sequence (B, D) to its hidden state (B, D); updates `state`, in place."""


def attend(q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor], state: KVState) -> Tensor:
    """q (B, H P), k and v (B, G P) of one token to what its heads read (B, H P).

    `past` is keys and values of its layer in `state`.
    """
    keys, values = past
    q, k, v = (x.unflatten(1, (-1, keys.shape[-1])) for x in (q, k, v))  # (B, H or G, P)
    assert state.rotation is not None
    return attention_step(q, k, v, keys, values, state.lengths, state.rotation).flatten(1)


def qkv(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, D) through the three linears of `attention`."""
    return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)


def add_layer(
    norm: nn.LayerNorm, x: Tensor, residual: Tensor | None, parallel: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`norm` of x + parallel + residual, and that sum in fp32."""
    return add_layer_norm(
        x, residual, norm.weight, norm.bias, norm.eps, parallel=parallel, residual_in_fp32=True
    )
