"""Plain PyTorch: the spec of every op. Runs on every device, in float64 too, and exports."""

from collections.abc import Callable, Mapping
from typing import Any

from cobra.kernels.reference.activations import gelu_tanh, silu_mul
from cobra.kernels.reference.attention import advance, attention_step, decode_attention
from cobra.kernels.reference.conv1d import causal_conv1d, causal_conv1d_update
from cobra.kernels.reference.embeddings import embedding_bf16, embedding_w4, embedding_w8
from cobra.kernels.reference.linears import linear_bf16, linear_w4, linear_w8
from cobra.kernels.reference.norms import add_layer_norm, add_rms_norm, rms_norm, rms_norm_gated
from cobra.kernels.reference.selective_scan import selective_scan
from cobra.kernels.reference.ssd import ssd_chunk_scan
from cobra.kernels.reference.steps import mamba2_step, mamba_step, selective_state_update

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
