"""C++ kernels for the CPU behind a plain C interface; csrc/abi.h is what they take."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cobra.kernels.call import Limit
from cobra.kernels.cpu.activations import gelu_tanh, silu_mul
from cobra.kernels.cpu.attention import advance, attention_step, decode_attention
from cobra.kernels.cpu.conv1d import causal_conv1d, causal_conv1d_update
from cobra.kernels.cpu.embeddings import embedding_bf16, embedding_w4, embedding_w8
from cobra.kernels.cpu.library import unavailable
from cobra.kernels.cpu.linears import linear_bf16, linear_w4, linear_w8
from cobra.kernels.cpu.norms import add_layer_norm, add_rms_norm, rms_norm, rms_norm_gated
from cobra.kernels.cpu.selective_scan import selective_scan
from cobra.kernels.cpu.ssd import ssd_chunk_scan
from cobra.kernels.cpu.steps import mamba2_step, mamba_step, selective_state_update

__all__ = ["LIMITS", "OPS", "unavailable"]

# no published model has a wider filter
_TAPS = Limit(lambda call: call.taps in (2, 3, 4), "takes filters of 2, 3 or 4 taps only")
# training takes whole sequences: the gradient of a step may be slow
_NO_GRADIENT = Limit(lambda call: not call.gradient, "has no gradient of a single token")

LIMITS: Mapping[str, Sequence[Limit]] = {
    "causal_conv1d": (_TAPS,),
    "causal_conv1d_update": (_TAPS, _NO_GRADIENT),
    "selective_state_update": (_NO_GRADIENT,),
    "mamba_step": (_TAPS, _NO_GRADIENT),
    "mamba2_step": (_TAPS, _NO_GRADIENT),
    "decode_attention": (_NO_GRADIENT,),
    "attention_step": (_NO_GRADIENT,),
    "silu_mul": (_NO_GRADIENT,),
    "gelu_tanh": (_NO_GRADIENT,),
    "add_layer_norm": (_NO_GRADIENT,),
}

OPS: Mapping[str, Callable[..., Any]] = {
    op.__name__: op
    for op in (
        ssd_chunk_scan,
        selective_scan,
        causal_conv1d,
        causal_conv1d_update,
        selective_state_update,
        mamba_step,
        mamba2_step,
        rms_norm,
        add_rms_norm,
        add_layer_norm,
        rms_norm_gated,
        decode_attention,
        attention_step,
        advance,
        silu_mul,
        gelu_tanh,
        linear_bf16,
        linear_w8,
        linear_w4,
        embedding_bf16,
        embedding_w8,
        embedding_w4,
    )
}
