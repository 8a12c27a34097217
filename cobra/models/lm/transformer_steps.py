"""Which of transformers' models step by kernels alone, and how."""

from collections.abc import Callable
from functools import partial
from typing import Any

import cobra.torchvision_shim  # noqa: F401  (before transformers)

import torch  # isort: skip
from torch import Tensor  # isort: skip
from transformers import (
    LlamaForCausalLM,
    Phi3ForCausalLM,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    StableLmForCausalLM,
)

from cobra.kernels.ops import add_rms_norm
from cobra.models.lm.block_steps import BlockSteps, add_layer
from cobra.models.lm.llama import Llama, Phi3
from cobra.models.lm.phi import Phi

Rotation = Callable[[int], Tensor]

# rotary embeddings whose angles do not depend on how long the text has become
_FIXED_ANGLES = ("default", "linear", "llama3", "yarn")
# two names of one function
_TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh")


def block_steps(causal_lm: PreTrainedModel) -> BlockSteps | None:
    """The steps of a model; None of one whose architecture or options have none."""
    make = _KNOWN.get(type(causal_lm))
    if make is None or getattr(causal_lm.config, "sliding_window", None) is not None:
        return None
    model: Any = causal_lm.base_model
    if model.rotary_emb.rope_type not in _FIXED_ANGLES:
        return None
    return make(model, partial(_rotation, model.rotary_emb))


def _rotation(rotary_emb: Any, length: int) -> Tensor:
    cos, sin = rotary_emb(torch.zeros(1), torch.arange(length)[None])
    half = cos.shape[-1] // 2
    return torch.cat([cos[0, :, :half], sin[0, :, :half]], dim=-1)


def _llama(model: Any, rotation: Rotation, blocks: type[Llama] = Llama) -> BlockSteps | None:
    if model.config.hidden_act != "silu":
        return None
    return blocks(model.layers, model.norm, rotation, partial(_add_rms, eps=model.config.rms_norm_eps))


def _add_rms(norm: Any, x: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return add_rms_norm(x, residual, norm.weight, eps, residual_in_fp32=True)


def _stablelm(model: Any, rotation: Rotation) -> BlockSteps | None:
    config = model.config
    if config.hidden_act != "silu" or config.use_parallel_residual or config.qk_layernorm:
        return None
    return Llama(model.layers, model.norm, rotation, add_layer)


def _phi(model: Any, rotation: Rotation) -> BlockSteps | None:
    if model.config.hidden_act not in _TANH_GELUS or model.config.qk_layernorm:
        return None
    return Phi(model.layers, model.final_layernorm, rotation)


_KNOWN: dict[type, Callable[[Any, Rotation], BlockSteps | None]] = {
    LlamaForCausalLM: _llama,
    Qwen2ForCausalLM: _llama,
    StableLmForCausalLM: _stablelm,
    PhiForCausalLM: _phi,
    Phi3ForCausalLM: partial(_llama, blocks=Phi3),
}
