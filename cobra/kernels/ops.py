"""The public kernels: each checks its arguments, then runs on the backend that `dispatch` picks."""

from cobra.kernels.convolutions import causal_conv1d, causal_conv1d_update
from cobra.kernels.norms import add_rms_norm, rms_norm, rms_norm_gated
from cobra.kernels.scans import selective_scan, ssd_chunk_scan
from cobra.kernels.steps import mamba2_step, mamba_step, selective_state_update

__all__ = [
    "add_rms_norm",
    "causal_conv1d",
    "causal_conv1d_update",
    "mamba2_step",
    "mamba_step",
    "rms_norm",
    "rms_norm_gated",
    "selective_scan",
    "selective_state_update",
    "ssd_chunk_scan",
]
