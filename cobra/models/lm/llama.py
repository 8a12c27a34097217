"""One token through LLaMA's blocks, by kernels alone: whoever's modules hold the weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cobra.kernels.ops import add_rms_norm, advance, attention_step, silu_mul
from cobra.models.lm.kv_state import KVState


@dataclass(frozen=True)
class Llama:
    """Blocks as LLaMA's (arXiv 2302.13971), their modules named as in its release for transformers.

    Attributes:
        blocks: one for each layer of the state; they may repeat. Linears may be packed and have biases.
        norm: after the last.
        eps: of all norms.
        rotation: of so many positions, (length, R) fp32, as `ops.attention_step` takes it.
    """

    blocks: Sequence[Any]
    norm: Any
    eps: float
    rotation: Callable[[int], Tensor]

    def step(self, embed: Tensor, state: KVState) -> Tensor:
        """One embedding a sequence (B, D) to its hidden state (B, D); updates `state`, in place."""
        hidden, residual = embed, None
        for block, (keys, values) in zip(self.blocks, state.layers, strict=True):
            normed, residual = self._normed(block.input_layernorm, hidden, residual)
            attended = _attend(block.self_attn, normed, keys, values, state)
            normed, residual = self._normed(block.post_attention_layernorm, attended, residual)
            mlp = block.mlp
            hidden = mlp.down_proj(silu_mul(mlp.gate_proj(normed), mlp.up_proj(normed)))
        advance(state.position)
        return self._normed(self.norm, hidden, residual)[0]

    def _normed(self, norm: Any, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        return add_rms_norm(x, residual, norm.weight, self.eps, residual_in_fp32=True)


def _attend(attention: Any, x: Tensor, keys: Tensor, values: Tensor, state: KVState) -> Tensor:
    q, k, v = (
        project(x).unflatten(1, (-1, keys.shape[-1]))
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )  # (B, H or G, P)
    assert state.rotation is not None
    y = attention_step(q, k, v, keys, values, state.position, state.rotation, state.padding)
    return attention.o_proj(y.flatten(1))
