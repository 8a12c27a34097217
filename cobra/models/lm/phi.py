"""One token through Phi-2's blocks."""

from dataclasses import dataclass

from torch import Tensor

from cobra.kernels.ops import advance, gelu_tanh
from cobra.models.lm.block_steps import BlockSteps, add_layer, attend, qkv
from cobra.models.lm.kv_state import KVState


@dataclass(frozen=True)
class Phi(BlockSteps):
    """Blocks as Phi-2's, attention and MLP side by side, their modules named as in transformers."""

    def step(self, embed: Tensor, state: KVState) -> Tensor:
        """See `BlockSteps.step`."""
        attended, mixed, residual = embed, None, None
        for block, past in zip(self.blocks, state.layers, strict=True):
            normed, residual = add_layer(block.input_layernorm, attended, residual, mixed)
            attended = block.self_attn.dense(attend(*qkv(block.self_attn, normed), past, state))
            mixed = block.mlp.fc2(gelu_tanh(block.mlp.fc1(normed)))
        advance(state.lengths)
        return add_layer(self.norm, attended, residual, mixed)[0]
