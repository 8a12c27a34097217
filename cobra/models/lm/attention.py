"""Attention over all tokens so far, whose keys and values are kept."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.kernels.ops import attention_step, decode_attention
from cobra.models.lm.init import scale_output
from cobra.models.lm.mixer import Mixer
from cobra.models.lm.rotary import Rotary, rotate
from cobra.models.lm.state import Buffer, LayerState, Layout
from cobra.models.lm.tokens import Tokens


class Attention(Mixer):
    """Causal attention with rotary embedding and shared keys and values (arXiv 2305.13245).

    Args:
        n_heads: query heads.
        n_kv_heads: heads of keys and values, each of which n_heads / n_kv_heads query heads share.
        rope_theta: base of the rotary embedding.
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, rope_theta: float = 10_000.0) -> None:
        super().__init__()
        if d_model % (2 * n_heads):
            raise ValueError(f"d_model {d_model} must be a multiple of twice n_heads {n_heads}")
        if n_heads % n_kv_heads:
            raise ValueError(f"n_heads {n_heads} must be a multiple of n_kv_heads {n_kv_heads}")
        head_dim = d_model // n_heads
        self.rotary: Rotary = Rotary(head_dim, rope_theta)
        self.layout = keys_and_values(n_kv_heads, head_dim)
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, n_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(d_model, d_model, bias=False)

    def initialize(self, branches: int) -> None:
        """See `Branch.initialize`."""
        scale_output(self.o_proj, branches)

    def forward(self, x: Tensor, state: LayerState | None, tokens: Tokens) -> Tensor:
        """See `Mixer.forward`."""
        q, keys, values = (heads.transpose(1, 2) for heads in self._heads(x))  # (B, H or G, T, P)
        turns = tokens.rotations[self.rotary]
        q, keys = rotate(q, turns), rotate(keys, turns)
        if state is not None and tokens.slots is not None:
            keys, values = (
                tokens.slots.extend(tokens.before(state["keys"]), keys),
                tokens.slots.extend(tokens.before(state["values"]), values),
            )
        y = attend(q, keys, values, tokens.attn_mask)
        return self.o_proj(y.transpose(1, 2).flatten(2).to(x.dtype))

    def step(self, x: Tensor, state: LayerState, tokens: Tokens) -> Tensor:
        """See `Mixer.step`."""
        if tokens.slots is not None:
            return self(x[:, None], state, tokens)[:, 0]
        assert tokens.lengths is not None
        past = (state["keys"], state["values"], tokens.lengths, tokens.rotations[self.rotary])
        return self.o_proj(attention_step(*self._heads(x), *past).flatten(1))

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., D) to queries (..., H, P), keys and values (..., G, P)."""
        q, k, v = (
            p(x).unflatten(-1, (-1, self.rotary.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return q, k, v


def keys_and_values(heads: int, head_dim: int) -> Layout:
    """What attention keeps of each token, (B, G, T, P) of G heads."""
    return {name: Buffer((heads, head_dim), grows=True) for name in ("keys", "values")}


def attend(
    q: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Causal attention of T queries (B, H, T, P) over keys and values (B, G, S, P), to (B, H, T, P).

    Args:
        q: of the last T of S tokens.
        keys: head h reads group h // (H / G).
        values: as keys.
        attn_mask: (B or 1, 1, T, S) bool, what each query sees; or, for one query, how many tokens each row
            has, (B, 1, 1, 1) int64. None: all up to the query itself, where T is 1 or S.
        scale: 1 / sqrt(P) by default.
    """
    if q.shape[2] == 1 and (attn_mask is None or attn_mask.dtype == torch.int64):
        lengths = None if attn_mask is None else attn_mask[:, 0, 0, 0]
        return decode_attention(q[:, :, 0], keys, values, lengths, scale=scale).unsqueeze(2)
    shared = q.shape[1] // keys.shape[1]
    if shared > 1:
        # little beside T x S scores, and no fused kernel is lost, as with enable_gqa under a mask
        keys, values = keys.repeat_interleave(shared, 1), values.repeat_interleave(shared, 1)
    # under autocast the rotary embedding leaves queries and keys in fp32
    q, keys = q.to(values.dtype), keys.to(values.dtype)
    return F.scaled_dot_product_attention(
        q, keys, values, attn_mask=attn_mask, is_causal=attn_mask is None, scale=scale
    )
