"""The causal convolution and its one-token step by causal_conv1d's CUDA kernels."""

import torch
from torch import Tensor

from cobra.kernels.call import NO_GRADIENT, Call, Function, Limit, limited
from cobra.kernels.mamba_ssm.limits import NO_MASK, not_empty, one_dtype
from cobra.kernels.mamba_ssm.sequences import numbered
from cobra.kernels.scan_order import Grid, ScanOrder, unvisit, visit

# channels that the kernel for (B, L, C) in memory reads at once
_VECTOR = 8


def _few_taps(call: Call) -> bool:
    shape = call.shape("weight")
    return shape is not None and 2 <= shape[1] <= 4


def _plain(call: Call) -> bool:
    shape, more = call.shape("weight"), (call.shape("seq_idx"), call.shape("initial_state"))
    # the kernel for (B, C, L) in memory knows neither
    return more == (None, None) or (None in more and shape is not None and shape[0] % _VECTOR == 0)


FEW_TAPS = Limit(_few_taps, "takes 2 to 4 taps")


@limited(
    NO_MASK,
    FEW_TAPS,
    Limit(_plain, "takes seq_idx or initial_state, not both, with a multiple of 8 channels"),
    not_empty("x"),
    one_dtype("weight", "bias"),
)
def causal_conv1d(
    causal_conv1d_fn: Function,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    mask: Tensor | None,
    scan_order: ScanOrder,
    grid: Grid | None,
) -> tuple[Tensor, Tensor]:
    """y (B, L, C) and the last K - 1 inputs (B, C, K - 1); as `ops.causal_conv1d`."""
    x, seq_idx = visit(x, scan_order, grid), visit(seq_idx, scan_order, grid)
    before = None if initial_state is None else initial_state.to(x.dtype).transpose(1, 2)  # (B, K - 1, C)
    in_rows = x.shape[2] % _VECTOR == 0
    y = causal_conv1d_fn(
        _aligned(x).transpose(1, 2) if in_rows else _dense(x.transpose(1, 2)),  # (B, C, L)
        weight,
        bias=bias,
        seq_idx=numbered(seq_idx),
        # contiguous here: there it would lose its gradient
        initial_states=None if before is None else _aligned(before).transpose(1, 2),
        activation=activation,
    ).transpose(1, 2)
    if y.requires_grad:
        # of strides that the kernel can read
        y.register_hook(_aligned)
    return unvisit(y, scan_order, grid), _last_inputs(x, before, seq_idx, weight.shape[1] - 1)


def _aligned(x: Tensor) -> Tensor:
    """x (B, L, C) with rows of contiguous channels that begin at multiples of a vector."""
    batch, row, channel = x.stride()
    apart = row >= x.shape[2] and channel == 1
    if apart and all(offset % _VECTOR == 0 for offset in (batch, row, x.storage_offset())):
        return x
    return _dense(x)


def _dense(x: Tensor) -> Tensor:
    """A contiguous copy, whose strides are so, too, where a dimension is 1: `contiguous` keeps any there."""
    return x.clone(memory_format=torch.contiguous_format)


def _last_inputs(x: Tensor, before: Tensor | None, seq_idx: Tensor | None, count: int) -> Tensor:
    """The last inputs (B, C, count) of x (B, L, C) behind those before it (B, count, C), without those of
    another sequence than the last token's."""
    if before is None:
        before = x.new_zeros(x.shape[0], count, x.shape[2])
    last = torch.cat([before, x[:, -count:]], dim=1)[:, -count:].transpose(1, 2)
    if seq_idx is None:
        return last
    # the initial state belongs to the sequence of the first token
    seq = torch.cat([seq_idx[:, :1].expand(-1, count), seq_idx[:, -count:]], dim=1)[:, -count:]
    return last.masked_fill((seq != seq[:, -1:]).unsqueeze(1), 0.0)


@limited(NO_GRADIENT, FEW_TAPS, not_empty("x"), one_dtype("x", "state"), one_dtype("weight", "bias"))
def causal_conv1d_update(
    causal_conv1d_update: Function,
    x: Tensor,
    state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
) -> Tensor:
    """y (B, C) of one more token; `state` (B, C, K - 1) drops its oldest input and takes x (B, C)."""
    bias = None if bias is None else bias.contiguous()
    y = causal_conv1d_update(x, state, weight, bias=bias, activation=activation)
    torch.autograd.graph.increment_version([state])
    return y
