"""Mamba-1 (Gu & Dao 2023, arXiv 2312.00752)."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from cobra.kernels.ops import (
    causal_conv1d,
    causal_conv1d_update,
    mamba_step,
    selective_scan,
    selective_state_update,
)
from cobra.models.linear import linear
from cobra.models.lm.init import inverse_softplus_dt, scale_output, stack, without_weight_decay
from cobra.models.lm.layers import DepthwiseConv1d, method
from cobra.models.lm.mixer import Mixer
from cobra.models.lm.stacked import StackedLM
from cobra.models.lm.state import Buffer, LayerState, remember
from cobra.models.lm.tokens import Tokens


class MambaLM(StackedLM):
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
        mixer = partial(
            MambaMixer, d_state=d_state, expand=expand, d_conv=d_conv, dt_rank=dt_rank, dt_range=dt_range
        )
        super().__init__(vocab_size, d_model, [mixer] * n_layers, norm_eps=norm_eps)

    def name_in_transformers(self, name: str) -> str:
        """See `LanguageModel.name_in_transformers`."""
        return f"backbone.{name}"


class FusedLinear(nn.Linear):
    """A linear whose weight the step's kernel reads itself: small, and at most rounded to bf16."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N), without the bias, which the scan adds to the time steps."""
        return linear(x, self.weight.to(x.dtype))


class MambaMixer(Mixer):
    """in_proj, causal convolution, selective scan, gate, out_proj; names as in mamba_ssm.

    Args:
        d_state: see `MambaLM`, as for the others.
        expand: inner width as a multiple of d_model.
        d_conv: width of the causal convolution.
        dt_rank: rank of the time step's projection; d_model / 16, rounded up, when left out.
        dt_range: time steps at initialization.
    """

    # of low rank itself
    unadapted = ("dt_proj",)

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        expand: int = 2,
        d_conv: int = 4,
        dt_rank: int | None = None,
        dt_range: tuple[float, float] = (1e-3, 1e-1),
    ) -> None:
        super().__init__()
        d_inner, dt_rank = expand * d_model, dt_rank or math.ceil(d_model / 16)
        self.layout = {
            "conv": Buffer((d_inner, d_conv - 1)),
            "ssm": Buffer((d_inner, d_state), recurrent=True),
        }
        self.splits, self.dt_range = (dt_rank, d_state, d_state), dt_range
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        stack(self.in_proj, (d_inner, d_inner))
        self.conv1d = DepthwiseConv1d(d_inner, d_inner, d_conv, groups=d_inner)
        self.x_proj = FusedLinear(d_inner, sum(self.splits), bias=False)
        stack(self.x_proj, self.splits)
        self.dt_proj = FusedLinear(dt_rank, d_inner)
        without_weight_decay(self.dt_proj.bias)
        decay = torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(d_inner, 1)
        self.A_log = without_weight_decay(nn.Parameter(decay))
        self.D = without_weight_decay(nn.Parameter(torch.ones(d_inner)))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def initialize(self, branches: int) -> None:
        """Draw dt (Mamba's reference code, `Mamba.__init__`) and scale the output."""
        nn.init.uniform_(self.dt_proj.weight, -(self.splits[0] ** -0.5), self.splits[0] ** -0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(inverse_softplus_dt(self.dt_proj.out_features, self.dt_range))
        scale_output(self.out_proj, branches)

    def forward(self, x: Tensor, state: LayerState | None, tokens: Tokens) -> Tensor:
        """See `Mixer.forward`."""
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x, conv_state = causal_conv1d(
            x,
            *method(self.conv1d, "filters")(),
            initial_state=None if state is None else tokens.before(state["conv"]),
            seq_idx=tokens.seq_idx,
            activation="silu",
            mask=tokens.mask,
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
            initial_state=None if state is None else tokens.before(state["ssm"]),
            seq_idx=tokens.seq_idx,
            mask=tokens.mask,
        )
        if state is not None and tokens.kept:
            remember(state, conv=conv_state, ssm=ssm_state)
        return self.out_proj(y)

    def step(self, x: Tensor, state: LayerState, tokens: Tokens) -> Tensor:
        """See `Mixer.step`."""
        xz, (filters, bias), dt_bias = self.in_proj(x), method(self.conv1d, "filters")(), self.dt_proj.bias
        if type(self.x_proj) is type(self.dt_proj) is FusedLinear:
            projections = self.x_proj.weight, self.dt_proj.weight
            y = mamba_step(
                xz, state["conv"], state["ssm"], filters, bias, *projections, dt_bias, self.A_log, self.D
            )
            return self.out_proj(y)
        # what wraps a projection, e.g. LoRA, acts where it is called
        x, z = xz.chunk(2, dim=-1)
        x = causal_conv1d_update(x, state["conv"], filters, bias, "silu")
        dt, B, C = self.x_proj(x).split(self.splits, dim=-1)
        y = selective_state_update(
            state["ssm"],
            x,
            self.dt_proj(dt),
            -torch.exp(self.A_log.float()),
            B.unsqueeze(1),  # (B, 1, N)
            C.unsqueeze(1),
            D=self.D,
            z=z,
            dt_bias=dt_bias,
            dt_softplus=True,
        )
        return self.out_proj(y)
