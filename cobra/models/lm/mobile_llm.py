"""MobileLLM: deep and thin, with shared keys and values, a tied embedding and, in LS, shared blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.models.lm.attention_lm import AttentionLM
from cobra.models.lm.block_steps import BlockSteps
from cobra.models.lm.kv_state import KVState, attend
from cobra.models.lm.llama import Llama
from cobra.models.lm.state_space import RMSNorm, TiedEmbedding


class MobileLLM(AttentionLM):
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
        super().__init__()
        if d_model % (2 * n_heads):
            raise ValueError(f"d_model {d_model} must be a multiple of twice n_heads {n_heads}")
        if n_heads % n_kv_heads:
            raise ValueError(f"n_heads {n_heads} must be a multiple of n_kv_heads {n_kv_heads}")
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.kv_heads = n_kv_heads
        self.head_dim = d_model // n_heads
        self.passes = 2 if share_blocks else 1
        self.n_slots = self.passes * n_layers
        self.rope_theta = rope_theta
        self.embed_tokens = TiedEmbedding(vocab_size, d_model)
        self.layers = nn.ModuleList(
            Block(d_model, n_heads, n_kv_heads, d_ff, norm_eps) for _ in range(n_layers)
        )
        self.norm = RMSNorm(d_model, norm_eps)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to embeddings (B, T, D)."""
        return self.embed_tokens(ids)

    def run(
        self, embeds: Tensor, seen: Tensor | None, positions: Tensor, state: KVState | None = None
    ) -> Tensor:
        """See `AttentionLM.run`."""
        rotation = rotary(positions, self.head_dim, self.rope_theta, embeds.dtype)
        hidden, residual = embeds, None
        for slot in range(self.n_slots):
            block = self.layers[slot // self.passes]
            hidden, residual = block(hidden, residual, rotation, seen, state, slot)
        return self.norm.add(hidden, residual)[0]

    def block_steps(self) -> BlockSteps:
        """See `AttentionLM.block_steps`."""
        blocks = [block for block in self.layers for _ in range(self.passes)]
        return Llama(blocks, self.norm, self._rotation, RMSNorm.add)

    def _rotation(self, length: int) -> Tensor:
        positions = torch.arange(length)[None]
        cos, sin = rotary(positions, self.head_dim, self.rope_theta, torch.float32)
        half = self.head_dim // 2
        return torch.cat([cos[0, 0, :, :half], sin[0, 0, :, half:]], dim=-1)

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits (..., vocab_size), with the embedding's weights."""
        return self.embed_tokens.logits(hidden)


class Block(nn.Module):
    """Attention and a gated MLP, each after a norm of the residual sum."""

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, d_ff: int, norm_eps: float) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(d_model, norm_eps)
        self.self_attn = Attention(d_model, n_heads, n_kv_heads)
        self.post_attention_layernorm = RMSNorm(d_model, norm_eps)
        self.mlp = GatedMLP(d_model, d_ff)

    def forward(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        rotation: tuple[Tensor, Tensor],
        seen: Tensor | None,
        state: KVState | None,
        slot: int,
    ) -> tuple[Tensor, Tensor]:
        """Output and residual of the block before (B, T, D) to those of this one; `slot` is of `state`."""
        normed, residual = self.input_layernorm.add(hidden, residual)
        attended = self.self_attn(normed, rotation, seen, state, slot)
        normed, residual = self.post_attention_layernorm.add(attended, residual)
        return self.mlp(normed), residual


class Attention(nn.Module):
    """Causal attention with rotary embedding and shared keys and values."""

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int) -> None:
        super().__init__()
        self.head_dim = d_model // n_heads
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, n_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, n_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        seen: Tensor | None,
        state: KVState | None,
        slot: int,
    ) -> Tensor:
        """(B, T, D) to (B, T, D); writes its keys and values to `slot` of `state`."""
        q, keys, values = (
            project(x).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # (B, H or G, T, P)
        q, keys = rotate(q, *rotation), rotate(keys, *rotation)
        if state is not None:
            keys, values = state.write(slot, keys, values)
        return self.o_proj(attend(q, keys, values, seen).transpose(1, 2).flatten(2).to(x.dtype))


class GatedMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d_model, d_ff, bias=False)
        self.up_proj = nn.Linear(d_model, d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def rotary(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines (B, 1, T, P) of the rotary embedding (arXiv 2104.09864).

    Channel i < P / 2 turns with channel i + P / 2, as in LLaMA, by position / theta^(2 i / P), in fp32.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
    angles = positions[:, None, :, None].float() * (1 / theta**exponents)  # (B, 1, T, P / 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys (B, H, T, P), turned by their positions."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin
