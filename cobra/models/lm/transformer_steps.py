"""One token through the blocks of transformers' models by kernels alone: which models, and how."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from torch import Tensor, nn  # isort: skip
from transformers import (
    LlamaForCausalLM,
    Phi3ForCausalLM,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    StableLmForCausalLM,
)

from cobra.kernels.ops import add_layer_norm, add_rms_norm, attention_step, gelu_tanh, silu_mul
from cobra.models.lm.state import LayerState, State

# of a state's tables
ROTATION = "rotation"
# rotary embeddings whose angles do not depend on how long the text has become
_FIXED_ANGLES = ("default", "linear", "llama3", "yarn")
# two names of one function
_TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh")

AddNorm = Callable[..., tuple[Tensor, Tensor]]


def block_steps(causal_lm: PreTrainedModel) -> "Llama | None":
    """The steps of a model; None where its architecture, its options or a wrapped norm leave it none."""
    make, config = _KNOWN.get(type(causal_lm)), causal_lm.config
    if make is None or getattr(config, "sliding_window", None) is not None:
        return None
    model: Any = causal_lm.base_model
    steps = make(model)
    fixed = model.rotary_emb.rope_type in _FIXED_ANGLES
    return steps if fixed and steps is not None and not any(map(_is_wrapped, steps.norms())) else None


def _is_wrapped(norm: nn.Module) -> bool:
    """Whether there is more to it than the weight that a kernel reads, e.g. an adapter."""
    return next(norm.children(), None) is not None


@dataclass(frozen=True)
class Llama:
    """Blocks as LLaMA's (arXiv 2302.13971); linears may be packed, wrapped and have biases.

    Attributes:
        model: its modules are named as in LLaMA's release for transformers.
        add_norm: a norm, what comes before it and the residual to the norm of their sum, and the sum in fp32.
    """

    model: Any
    add_norm: AddNorm

    def norms(self) -> list[Any]:
        """All that a step reads."""
        layers = self.model.layers
        return [
            self.model.norm,
            *(n for b in layers for n in (b.input_layernorm, b.post_attention_layernorm)),
        ]

    def rotation(self, length: int, device: torch.device) -> Tensor:
        """Turns of so many positions, (length, R) fp32, as `ops.attention_step` takes them."""
        positions = torch.arange(length, device=device)[None]
        cos, sin = self.model.rotary_emb(torch.zeros(1, device=device), positions)
        half = cos.shape[-1] // 2
        return torch.cat([cos[0, :, :half], sin[0, :, :half]], dim=-1)

    def step(self, embed: Tensor, state: State) -> Tensor:
        """One embedding a sequence (B, D) to its hidden state (B, D); updates `state`, but for lengths."""
        hidden, residual = embed, None
        for block, layer in zip(self.model.layers, state.layers, strict=True):
            normed, residual = self.add_norm(block.input_layernorm, hidden, residual)
            attended = block.self_attn.o_proj(_attend(*self.qkv(block.self_attn, normed), layer, state))
            normed, residual = self.add_norm(block.post_attention_layernorm, attended, residual)
            hidden = block.mlp.down_proj(silu_mul(*self.gate_and_up(block.mlp, normed)))
        return self.add_norm(self.model.norm, hidden, residual)[0]

    def qkv(self, attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, D) to queries (B, H P), keys and values (B, G P)."""
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    def gate_and_up(self, mlp: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) to both factors of the MLP, (B, hidden)."""
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


class Phi(Llama):
    """Blocks as Phi-2's: attention and MLP side by side."""

    def norms(self) -> list[Any]:
        """See `Llama.norms`."""
        return [self.model.final_layernorm, *(block.input_layernorm for block in self.model.layers)]

    def step(self, embed: Tensor, state: State) -> Tensor:
        """See `Llama.step`."""
        attended, mixed, residual = embed, None, None
        for block, layer in zip(self.model.layers, state.layers, strict=True):
            normed, residual = self.add_norm(block.input_layernorm, attended, residual, mixed)
            attended = block.self_attn.dense(_attend(*self.qkv(block.self_attn, normed), layer, state))
            mixed = block.mlp.fc2(gelu_tanh(block.mlp.fc1(normed)))
        return self.add_norm(self.model.final_layernorm, attended, residual, mixed)[0]


def _attend(q: Tensor, k: Tensor, v: Tensor, layer: LayerState, state: State) -> Tensor:
    """q (B, H P), k and v (B, G P) of one token a row to what its heads read, (B, H P)."""
    keys, values = layer["keys"], layer["values"]
    q, k, v = (x.unflatten(1, (-1, keys.shape[-1])) for x in (q, k, v))  # (B, H or G, P)
    return attention_step(q, k, v, keys, values, state.lengths, state.tables[ROTATION]).flatten(1)


def _add_rms(norm: Any, x: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return add_rms_norm(x, residual, norm.weight, eps, residual_in_fp32=True)


def _add_layer(
    norm: nn.LayerNorm, x: Tensor, residual: Tensor | None, parallel: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`norm` of x + parallel + residual, and that sum in fp32."""
    return add_layer_norm(
        x, residual, norm.weight, norm.bias, norm.eps, parallel=parallel, residual_in_fp32=True
    )


def _llama(model: Any, blocks: type[Llama] = Llama) -> Llama | None:
    if model.config.hidden_act != "silu":
        return None
    return blocks(model, partial(_add_rms, eps=model.config.rms_norm_eps))


def _stablelm(model: Any) -> Llama | None:
    config = model.config
    others = config.hidden_act != "silu" or config.use_parallel_residual or config.qk_layernorm
    return None if others else Llama(model, _add_layer)


def _phi(model: Any) -> Llama | None:
    config = model.config
    others = config.hidden_act not in _TANH_GELUS or config.qk_layernorm
    return None if others else Phi(model, _add_layer)


_KNOWN: dict[type, Callable[[Any], Llama | None]] = {
    LlamaForCausalLM: _llama,
    Qwen2ForCausalLM: _llama,
    StableLmForCausalLM: _stablelm,
    PhiForCausalLM: _phi,
    Phi3ForCausalLM: partial(_llama, blocks=Phi3),
}
