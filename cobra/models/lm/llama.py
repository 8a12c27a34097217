"""One token through LLaMA's blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cobra.kernels.ops import advance, silu_mul
from cobra.models.lm.block_steps import BlockSteps, attend
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
            attended = block.self_attn.o_proj(attend(block.self_attn, normed, past, state))
            normed, residual = self.add_norm(block.post_attention_layernorm, attended, residual)
            mlp = block.mlp
            hidden = mlp.down_proj(silu_mul(mlp.gate_proj(normed), mlp.up_proj(normed)))
        advance(state.position)
        return self.add_norm(self.norm, hidden, residual)[0]
