"""MobileLLM: deep and thin, with shared keys and values, a tied embedding and, in LS, shared blocks."""

from functools import partial

from torch import nn

from cobra.models.lm.attention import Attention
from cobra.models.lm.gated_mlp import GatedMLP
from cobra.models.lm.stacked import Names, StackedLM


class MobileLLM(StackedLM):
    """MobileLLM (arXiv 2402.14905), with random weights; parameter names as published, without `model.`.

    Args:
        vocab_size: rows of the embedding, which is the head as well.
        d_model: width D.
        n_layers: blocks that are stored.
        n_heads: query heads; 64 channels each in every published size.
        n_kv_heads: heads of keys and values, each of which n_heads / n_kv_heads query heads share.
        d_ff: width of the gated MLP.
        share_blocks: apply each block twice in a row (LS); keys and values are kept of every application.
        rope_theta: base of the rotary embedding.
        norm_eps: of the norms.
    """

    names = Names(
        embedding="embed_tokens",
        norm="input_layernorm",
        mixer="self_attn",
        mlp_norm="post_attention_layernorm",
        final_norm="norm",
    )

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        n_kv_heads: int,
        d_ff: int,
        share_blocks: bool = False,
        rope_theta: float = 10_000.0,
        norm_eps: float = 1e-5,
    ) -> None:
        attention = partial(Attention, n_heads=n_heads, n_kv_heads=n_kv_heads, rope_theta=rope_theta)
        mlp = partial(GatedMLP, d_ff=d_ff)
        super().__init__(vocab_size, d_model, [attention] * n_layers, mlp, norm_eps)
        self.passes = 2 if share_blocks else 1
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
