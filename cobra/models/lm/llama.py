"""One token through LLaMA's blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cobra.kernels.ops import advance, silu_mul
from cobra.models.lm.block_steps import BlockSteps, attend, qkv
from cobra.models.lm.kv_state import KVState


@dataclass(frozen=True)
class Llama(BlockSteps):
    """Blocks as LLaMA's (arXiv 2302.13971), their modules named as in its release for transformers.

    Attributes:
        add_norm: a norm, what comes before it and the residual to the norm of their sum, and the sum in fp32.
    """

    add_norm: Callable[[Any, Tensor, Tensor | None], tuple[Tensor, Tensor]]

    def step(self, embed: Tensor, state: KVState) -> Tensor:
        """See `BlockSteps.step`."""
        hidden, residual = embed, None
        for block, past in zip(self.blocks, state.layers, strict=True):
            normed, residual = self.add_norm(block.input_layernorm, hidden, residual)
            attended = block.self_attn.o_proj(attend(*self.qkv(block.self_attn, normed), past, state))
            normed, residual = self.add_norm(block.post_attention_layernorm, attended, residual)
            hidden = block.mlp.down_proj(silu_mul(*self.gate_and_up(block.mlp, normed)))
        advance(state.lengths)
        return self.add_norm(self.norm, hidden, residual)[0]

    def qkv(self, attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H P), keys and values (B, G P)."""
        return qkv(attention, x)

    def gate_and_up(self, mlp: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both factors of the MLP, (B, hidden)."""
        return mlp.gate_proj(x), mlp.up_proj(x)


class Phi3(Llama):
    """LLaMA's blocks with one linear for q, k and v and one for gate and up (arXiv 2404.14219)."""

    def qkv(self, attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Llama.qkv`: rows of queries first."""
        y, kv = attention.qkv_proj(x), attention.num_key_value_heads * attention.head_dim
        q, k, v = y.split([y.shape[1] - 2 * kv, kv, kv], 1)
        return q, k, v

    def gate_and_up(self, mlp: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Llama.gate_and_up`."""
        gate, up = mlp.gate_up_proj(x).chunk(2, 1)
        return gate, up
