"""Mamba-2's mixer for pictures: it reads the patches along several paths and takes the mean."""

from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn

from cobra.kernels.ops import causal_conv1d, rms_norm_gated, ssd_chunk_scan
from cobra.kernels.scan_order import SCAN_ORDERS, Grid, ScanOrder
from cobra.models.lm.init import decay_logs, inverse_softplus_dt, scale_output, stack, without_weight_decay
from cobra.models.lm.layers import RMSNorm
from cobra.models.projectors.grid import square_side

Paths = Literal["bidirectional", "cross"]

# The scan orders of a mixer, by the suffix of their own parameters.
PATHS: dict[str, dict[str, ScanOrder]] = {
    "bidirectional": {"": "forward", "_b": "reversed"},
    "cross": {"": "forward", "_b": "reversed", "_c": "columns", "_d": "columns_reversed"},
}


class ScanMixer(nn.Module):
    """Shared in_proj, norm and out_proj; a convolution, dt, A and D for each path.

    "bidirectional" is ML-Mamba's BSM as released, names included. "cross" is a re-creation of its CSM, whose
    code was not: the paths are VMamba's cross-scan (arXiv 2401.10166), by rows and by columns, each in both
    directions; as in BSM the mean is taken, where VMamba adds.
    """

    def __init__(
        self,
        d_model: int,
        paths: Paths,
        d_state: int,
        head_dim: int,
        expand: int,
        d_conv: int,
        chunk_size: int,
    ) -> None:
        super().__init__()
        d_inner = expand * d_model
        if d_inner % head_dim:
            raise ValueError(f"d_inner {d_inner} must be a multiple of head_dim {head_dim}")
        if paths not in PATHS:
            raise ValueError(f"paths {paths!r} is unknown: choose one of {', '.join(PATHS)}")
        heads, channels = d_inner // head_dim, d_inner + 2 * d_state
        self.scan_orders, self.chunk_size = PATHS[paths], chunk_size
        self.splits = (d_inner, channels, heads)
        self.scan_splits = (d_inner, d_state, d_state)
        self.in_proj = nn.Linear(d_model, sum(self.splits), bias=False)
        stack(self.in_proj, (d_inner, d_inner, d_state, d_state, heads))  # z, x, B, C, dt
        for path in self.scan_orders:
            self.add_module(f"conv1d{path}", nn.Conv1d(channels, channels, d_conv, groups=channels))
            for name in ("dt_bias", "A_log", "D"):
                self.register_parameter(name + path, without_weight_decay(nn.Parameter(torch.ones(heads))))
        self.norm = RMSNorm(d_inner, eps=1e-5)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def initialize(self, n_layers: int) -> None:
        """Draw dt and A of each path as Mamba-2's reference code does, and scale the output."""
        heads = self.splits[2]
        with torch.no_grad():
            for path in self.scan_orders:
                self.get_parameter(f"dt_bias{path}").copy_(inverse_softplus_dt(heads, (1e-3, 1e-1)))
                self.get_parameter(f"A_log{path}").copy_(decay_logs(heads, (1.0, 16.0)))
        scale_output(self.out_proj, n_layers)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, N, d_model) to the same shape."""
        z, xBC, dt = self.in_proj(patches).split(self.splits, dim=-1)
        heard = (
            rms_norm_gated(self._scan(xBC, dt, path, scan_order), z, self.norm.weight, self.norm.eps)
            for path, scan_order in self.scan_orders.items()
        )
        return self.out_proj(reduce(torch.add, heard) / len(self.scan_orders))

    def _scan(self, xBC: Tensor, dt: Tensor, path: str, scan_order: ScanOrder) -> Tensor:
        """What one path hears at each patch, (B, N, d_inner), in the patches' own order."""
        by_columns, _ = SCAN_ORDERS[scan_order]
        grid: Grid | None = (square_side(dt.shape[1]),) * 2 if by_columns else None
        weight, bias = (self.get_parameter(f"conv1d{path}.{name}") for name in ("weight", "bias"))
        xBC, _ = causal_conv1d(
            xBC, weight.squeeze(1), bias, activation="silu", scan_order=scan_order, grid=grid
        )
        x, B, C = xBC.split(self.scan_splits, dim=-1)
        y, _ = ssd_chunk_scan(
            x.unflatten(-1, (dt.shape[-1], -1)),  # (B, N, H, P)
            dt,
            -torch.exp(self.get_parameter(f"A_log{path}").float()),
            B.unsqueeze(2),  # (B, N, 1, S)
            C.unsqueeze(2),
            D=self.get_parameter(f"D{path}"),
            dt_bias=self.get_parameter(f"dt_bias{path}"),
            dt_softplus=True,
            scan_order=scan_order,
            grid=grid,
            chunk_size=self.chunk_size,
            return_final_state=False,
        )
        return y.flatten(-2)
