"""The public kernels: each checks its arguments, then runs on the backend that `dispatch` picks."""

from cobra.kernels.dispatch import OPS
from cobra.kernels.ops.activations import gelu_tanh, silu_mul
from cobra.kernels.ops.attention import advance, attention_step, decode_attention
from cobra.kernels.ops.conv1d import causal_conv1d, causal_conv1d_update
from cobra.kernels.ops.embeddings import embedding_bf16, embedding_w4, embedding_w8
from cobra.kernels.ops.linears import linear_bf16, linear_w4, linear_w8
from cobra.kernels.ops.norms import add_layer_norm, add_rms_norm, rms_norm, rms_norm_gated
from cobra.kernels.ops.selective_scan import selective_scan
from cobra.kernels.ops.ssd import ssd_chunk_scan
from cobra.kernels.ops.steps import mamba2_step, mamba_step, selective_state_update
from cobra.kernels.quantize import pack_w4, pack_w8, unpack_w4, unpack_w8
