"""Mamba-2 (Dao & Gu 2024, arXiv 2405.21060)."""

from collections.abc import Iterable
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from cobra.kernels.ops import causal_conv1d, mamba2_step, rms_norm_gated, ssd_chunk_scan
from cobra.models.lm.init import decay_logs, inverse_softplus_dt, scale_output, stack, without_weight_decay
from cobra.models.lm.layers import DepthwiseConv1d, RMSNorm, method
from cobra.models.lm.mixer import Mixer
from cobra.models.lm.stacked import StackedLM
from cobra.models.lm.state import Buffer, LayerState, remember
from cobra.models.lm.tokens import Tokens

Range = tuple[float, float]


class Mamba2LM(StackedLM):
    """A Mamba-2 language model.

    Args:
        vocab_size: rows of the embedding, padding included.
        d_model: width D.
        n_layers: blocks.
        d_state: state size N of a head channel.
        head_dim: channels of a head, P.
        expand: inner width as a multiple of d_model.
        n_groups: groups of heads that share B and C, G.
        d_conv: width of the causal convolution.
        chunk_size: tokens a chunk of the scan; a hint, which changes speed and not results.
        dt_range: time steps at initialization, log-uniform over the heads and rising with their number.
        A_range: decay rates at initialization, uniform; one range, or one for each layer. A head forgets
            within 1 / (dt A) tokens: docs/shapes_vqa.md has what that means for a small model.
        norm_eps: epsilon of the norms.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_layers: int,
        d_state: int = 128,
        head_dim: int = 64,
        expand: int = 2,
        n_groups: int = 1,
        d_conv: int = 4,
        chunk_size: int = 64,
        dt_range: Range = (1e-3, 1e-1),
        A_range: Range | list[Range] = (1.0, 16.0),
        norm_eps: float = 1e-5,
    ) -> None:
        mixer = partial(
            Mamba2Mixer, d_state=d_state, head_dim=head_dim, expand=expand, n_groups=n_groups, d_conv=d_conv,
            chunk_size=chunk_size, dt_range=dt_range, norm_eps=norm_eps,
        )  # fmt: skip
        mixers = (partial(mixer, A_range=rates) for rates in _by_layer(A_range, n_layers))
        super().__init__(vocab_size, d_model, list(mixers), norm_eps=norm_eps)

    def name_in_transformers(self, name: str) -> str:
        """See `LanguageModel.name_in_transformers`."""
        return f"backbone.{name}"


def _by_layer(ranges: Any, n_layers: int) -> Iterable[Range]:
    """A range for each layer, of one or as many."""
    # files hold lists, not tuples
    if not isinstance(ranges[0], list | tuple):
        return repeat(ranges, n_layers)
    if len(ranges) != n_layers:
        raise ValueError(
            f"A_range holds {len(ranges)} ranges for {n_layers} layers: give one, or one for each"
        )
    return ranges


class Mamba2Mixer(Mixer):
    """in_proj, causal convolution, state-space duality scan, gated norm, out_proj; names as in mamba_ssm.

    Args:
        d_state: see `Mamba2LM`, as for the others.
        head_dim: channels of a head, P.
        expand: inner width as a multiple of d_model.
        n_groups: groups of heads that share B and C, G.
        d_conv: width of the causal convolution.
        chunk_size: tokens a chunk of the scan; a hint, which changes speed and not results.
        dt_range: time steps at initialization.
        A_range: decay rates at initialization.
        norm_eps: epsilon of the gated norm.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        head_dim: int = 64,
        expand: int = 2,
        n_groups: int = 1,
        d_conv: int = 4,
        chunk_size: int = 64,
        dt_range: Range = (1e-3, 1e-1),
        A_range: Range = (1.0, 16.0),
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        d_inner = expand * d_model
        if d_inner % head_dim:
            raise ValueError(f"d_inner {d_inner} must be a multiple of head_dim {head_dim}")
        n_heads = d_inner // head_dim
        if n_heads % n_groups:
            raise ValueError(f"the number of heads {n_heads} must be a multiple of n_groups {n_groups}")
        self.n_heads, self.n_groups, self.chunk_size = n_heads, n_groups, chunk_size
        self.dt_range, self.A_range = dt_range, A_range
        channels, maps = d_inner + 2 * n_groups * d_state, n_groups * d_state
        self.layout = {
            "conv": Buffer((channels, d_conv - 1)),
            "ssm": Buffer((n_heads, head_dim, d_state), recurrent=True),
        }
        self.splits, self.scan_splits = (d_inner, channels, n_heads), (d_inner, maps, maps)
        self.group_size = d_inner // n_groups
        self.in_proj = nn.Linear(d_model, sum(self.splits), bias=False)
        # z, x, B and C of each group, dt
        stack(self.in_proj, (d_inner, d_inner, *[d_state] * (2 * n_groups), n_heads))
        self.conv1d = DepthwiseConv1d(channels, channels, d_conv, groups=channels)
        self.dt_bias = without_weight_decay(nn.Parameter(torch.zeros(n_heads)))
        self.A_log = without_weight_decay(nn.Parameter(torch.zeros(n_heads)))
        self.D = without_weight_decay(nn.Parameter(torch.ones(n_heads)))
        self.norm = RMSNorm(d_inner, norm_eps)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def initialize(self, branches: int) -> None:
        """Draw dt and A from ranges as Mamba-2's reference code does (`Mamba2.__init__`), but from all parts
        of them, dt in rising order; scale the output.
        """
        with torch.no_grad():
            self.dt_bias.copy_(inverse_softplus_dt(self.n_heads, self.dt_range))
            self.A_log.copy_(decay_logs(self.n_heads, self.A_range))
        scale_output(self.out_proj, branches)

    def forward(self, x: Tensor, state: LayerState | None, tokens: Tokens) -> Tensor:
        """See `Mixer.forward`."""
        z, xBC, dt = self.in_proj(x).split(self.splits, dim=-1)
        xBC, conv_state = causal_conv1d(
            xBC,
            *method(self.conv1d, "filters")(),
            initial_state=None if state is None else tokens.before(state["conv"]),
            seq_idx=tokens.seq_idx,
            activation="silu",
            mask=tokens.mask,
        )
        x, B, C = xBC.split(self.scan_splits, dim=-1)
        y, ssm_state = ssd_chunk_scan(
            x.unflatten(-1, (self.n_heads, -1)),  # (B, T, H, P)
            dt,
            -torch.exp(self.A_log.float()),
            B.unflatten(-1, (self.n_groups, -1)),  # (B, T, G, N)
            C.unflatten(-1, (self.n_groups, -1)),
            D=self.D,
            dt_bias=self.dt_bias,
            dt_softplus=True,
            initial_state=None if state is None else state["ssm"],
            initial_rows=tokens.rows,
            seq_idx=tokens.seq_idx,
            mask=tokens.mask,
            chunk_size=self.chunk_size,
            return_final_state=state is not None and tokens.kept,
        )
        if state is not None and tokens.kept:
            remember(state, conv=conv_state, ssm=ssm_state)
        scale = method(self.norm, "scale")()
        return self.out_proj(rms_norm_gated(y.flatten(-2), z, *scale, group_size=self.group_size))

    def step(self, x: Tensor, state: LayerState, tokens: Tokens) -> Tensor:
        """See `Mixer.step`."""
        (filters, bias), (scale, eps) = method(self.conv1d, "filters")(), method(self.norm, "scale")()
        y = mamba2_step(
            self.in_proj(x),
            state["conv"],
            state["ssm"],
            filters,
            bias,
            self.dt_bias,
            self.A_log,
            self.D,
            scale,
            n_groups=self.n_groups,
            eps=eps,
        )
        return self.out_proj(y)
