"""Mamba-1 (Gu & Dao 2023, arXiv 2312.00752)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cobra.kernels.ops import causal_conv1d, mamba_step, selective_scan
from cobra.models.lm.init import inverse_softplus_dt, scale_output, stack, without_weight_decay
from cobra.models.lm.state_space import Mixer, SSMState, StateSpaceLM


class MambaLM(StateSpaceLM):
    """A Mamba-1 language model.

    Args:
        vocab_size: rows of the embedding, padding included.
        d_model: width D.
        n_layers: blocks.
        d_state: state size N of a channel.
        expand: inner width as a multiple of d_model.
        d_conv: width of the causal convolution.
        dt_rank: rank of the time step's projection; d_model / 16, rounded up, when left out.
        dt_range: time steps at initialization; see `Mamba2LM` for short sequences.
        norm_eps: epsilon of the norms.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_layers: int,
        d_state: int = 16,
        expand: int = 2,
        d_conv: int = 4,
        dt_rank: int | None = None,
        dt_range: tuple[float, float] = (1e-3, 1e-1),
        norm_eps: float = 1e-5,
    ) -> None:
        rank = dt_rank or math.ceil(d_model / 16)
        mixers = [MambaMixer(d_model, expand * d_model, d_state, rank, d_conv) for _ in range(n_layers)]
        for mixer in mixers:
            mixer.initialize(dt_range, n_layers)
        super().__init__(vocab_size, d_model, mixers, norm_eps)


class FusedLinear(nn.Linear):
    """A linear whose weight the step's kernel reads itself: small, and at most rounded to bf16."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N), without the bias, which the scan adds to the time steps."""
        return F.linear(x, self.weight.to(x.dtype))


class MambaMixer(Mixer):
    """in_proj, causal convolution, selective scan, gate, out_proj; names as in mamba_ssm."""

    def __init__(self, d_model: int, d_inner: int, d_state: int, dt_rank: int, d_conv: int) -> None:
        super().__init__()
        self.conv_shape = (d_inner, d_conv - 1)
        self.ssm_shape = (d_inner, d_state)
        self.splits = (dt_rank, d_state, d_state)
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        stack(self.in_proj, (d_inner, d_inner))
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner)
        self.x_proj = FusedLinear(d_inner, sum(self.splits), bias=False)
        stack(self.x_proj, self.splits)
        self.dt_proj = FusedLinear(dt_rank, d_inner)
        without_weight_decay(self.dt_proj.bias)
        decay = torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(d_inner, 1)
        self.A_log = without_weight_decay(nn.Parameter(decay))
        self.D = without_weight_decay(nn.Parameter(torch.ones(d_inner)))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def initialize(self, dt_range: tuple[float, float], n_layers: int) -> None:
        """Draw dt (Mamba's reference code, `Mamba.__init__`) and scale the output."""
        nn.init.uniform_(self.dt_proj.weight, -(self.splits[0] ** -0.5), self.splits[0] ** -0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(inverse_softplus_dt(self.dt_proj.out_features, dt_range))
        scale_output(self.out_proj, n_layers)

    def forward(
        self,
        x: Tensor,
        state: SSMState | None = None,
        mask: Tensor | None = None,
        seq_idx: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D); continues from `state` and updates it in place."""
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x, conv_state = causal_conv1d(
            x,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            initial_state=None if state is None else state.conv,
            seq_idx=seq_idx,
            activation="silu",
            mask=mask,
        )
        dt, B, C = self.x_proj(x).split(self.splits, dim=-1)
        y, ssm_state = selective_scan(
            x,
            self.dt_proj(dt),
            -torch.exp(self.A_log.float()),
            B.unsqueeze(2),  # (B, T, 1, N)
            C.unsqueeze(2),
            D=self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            initial_state=None if state is None else state.ssm,
            seq_idx=seq_idx,
            mask=mask,
        )
        if state is not None:
            state.conv.copy_(conv_state)
            state.ssm.copy_(ssm_state)
        return self.out_proj(y)

    def step(self, x: Tensor, state: SSMState) -> Tensor:
        """(B, D) to (B, D), one token; updates `state` in place."""
        y = mamba_step(
            self.in_proj(x),
            state.conv,
            state.ssm,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            self.dt_proj.bias,
            self.A_log,
            self.D,
        )
        return self.out_proj(y)
