"""The causal depthwise convolution in front of both scans, and its one-token step."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.precision import accumulator, without_autocast
from cobra.kernels.scan_order import Grid, ScanOrder, unvisit, visit


@without_autocast
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    activation: str | None = None,
    mask: Tensor | None = None,
    scan_order: ScanOrder = "forward",
    grid: Grid | None = None,
) -> tuple[Tensor, Tensor]:
    """y (B, L, C) and the last K - 1 inputs (B, C, K - 1); as in `cobra.kernels.ops.causal_conv1d`."""
    dtype, (channels, taps) = accumulator(x), weight.shape
    x, seq_idx, mask = (
        visit(x, scan_order, grid),
        visit(seq_idx, scan_order, grid),
        visit(mask, scan_order, grid),
    )
    if mask is not None:
        x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
    if initial_state is None:
        initial_state = x.new_zeros(x.shape[0], channels, taps - 1)
    # channel-last in memory, as it came: the convolution then reads and writes without a transpose
    padded = torch.cat([initial_state.to(x.dtype).transpose(1, 2), x], dim=1).transpose(
        1, 2
    )  # (B, C, K - 1 + L)
    final_state = padded[..., x.shape[1] :].clone()
    if x.shape[1] == 0:
        return torch.empty_like(x), final_state
    kernel = weight.to(dtype)
    offset = None if bias is None else bias.to(dtype)
    if seq_idx is None:
        # as a picture one pixel high: only for those is channel-last a layout that torch knows
        picture, taps_2d = padded.to(dtype).unsqueeze(2), kernel[:, None, None]
        y = F.conv2d(picture, taps_2d, offset, groups=channels).squeeze(2)  # (B, C, L)
    else:
        y, kept = _conv_within_sequences(padded.to(dtype), kernel, offset, seq_idx)
        final_state = final_state * kept.unsqueeze(1)
    return unvisit(_activate(y, activation).transpose(1, 2).to(x.dtype), scan_order, grid), final_state


def _conv_within_sequences(
    padded: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor
) -> tuple[Tensor, Tensor]:
    """The convolution (B, C, L) that never looks into another sequence, and which of the last K - 1 inputs
    (B, K - 1) belong to the last token's."""
    taps, length = weight.shape[1], seq_idx.shape[1]
    # the initial state belongs to the sequence of the first token
    seq = torch.cat([seq_idx[:, :1].expand(-1, taps - 1), seq_idx], dim=1)  # (B, K - 1 + L)
    y = torch.zeros_like(padded[..., :length])
    if bias is not None:
        y = y + bias.unsqueeze(-1)
    for k in range(taps):
        near = slice(k, k + length)
        same = (seq[:, near] == seq_idx).unsqueeze(1)  # (B, 1, L)
        y = torch.addcmul(y, padded[..., near] * same, weight[:, k, None])
    return y, seq[:, length:] == seq_idx[:, -1:]


def _activate(y: Tensor, activation: str | None) -> Tensor:
    return y if activation is None else F.silu(y)


@without_autocast
def causal_conv1d_update(
    x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """y (B, C) of one more token; `state` (B, C, K - 1) drops its oldest input and takes x (B, C)."""
    dtype = accumulator(x)
    window = torch.cat([state.to(dtype), x.to(dtype).unsqueeze(-1)], dim=-1)  # (B, C, K)
    y = (window * weight.to(dtype)).sum(-1)
    if bias is not None:
        y = y + bias.to(dtype)
    state.copy_(window[..., 1:])
    return _activate(y, activation).to(x.dtype)
