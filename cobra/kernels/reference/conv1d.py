"""The causal depthwise convolution in front of both scans, and its one-token step."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cobra.kernels.reference.masks import blank, places
from cobra.kernels.reference.precision import accumulator, without_autocast
from cobra.kernels.scan_order import Grid, ScanOrder, unvisit, visit


@without_autocast
def causal_conv1d(
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
    """y (B, L, C) and the last K - 1 inputs (B, C, K - 1); as in `cobra.kernels.ops.causal_conv1d`."""
    dtype, (channels, taps) = accumulator(x), weight.shape
    x, seq_idx, mask = (
        visit(x, scan_order, grid),
        visit(seq_idx, scan_order, grid),
        visit(mask, scan_order, grid),
    )
    if mask is not None:
        # behind all others a token is in no window but its own
        index = places(mask)
        x = x.scatter(1, index.unsqueeze(-1).expand_as(x), blank(x, mask))
        seq_idx = None if seq_idx is None else seq_idx.scatter(1, index, seq_idx)
    if initial_state is None:
        initial_state = x.new_zeros(x.shape[0], channels, taps - 1)
    # channel-last in memory, as it came: the convolution then reads and writes without a transpose
    padded = torch.cat([initial_state.to(x.dtype).transpose(1, 2), x], dim=1).transpose(
        1, 2
    )  # (B, C, K - 1 + L)
    final_state = _last_inputs(padded, taps, mask)
    if x.shape[1] == 0:
        return torch.empty_like(x), final_state
    kernel = weight.to(dtype)
    offset = None if bias is None else bias.to(dtype)
    if seq_idx is None:
        # as a picture one pixel high: only for those is channel-last a layout that torch knows
        picture, taps_2d = padded.to(dtype).unsqueeze(2), kernel[:, None, None]
        y = F.conv2d(picture, taps_2d, offset, groups=channels).squeeze(2)  # (B, C, L)
    else:
        y, seq = _conv_within_sequences(padded.to(dtype), kernel, offset, seq_idx)
        last = _last_inputs(seq.unsqueeze(1), taps, mask)
        final_state = final_state.masked_fill(last != last[..., -1:], 0.0)
    y = _activate(y, activation).transpose(1, 2).to(x.dtype)
    if mask is not None:
        y = blank(y.gather(1, index.unsqueeze(-1).expand_as(y)), mask)
    return unvisit(y, scan_order, grid), final_state


def _last_inputs(padded: Tensor, taps: int, mask: Tensor | None) -> Tensor:
    """The last K - 1 of the K - 1 + L columns of (B, C, K - 1 + L), behind which those under the mask are."""
    if mask is None:
        return padded[..., padded.shape[2] - taps + 1 :].clone()
    index = mask.sum(1, keepdim=True) + torch.arange(taps - 1, device=mask.device)  # (B, K - 1)
    return padded.gather(2, index.unsqueeze(1).expand(-1, padded.shape[1], -1))


def _conv_within_sequences(
    padded: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor
) -> tuple[Tensor, Tensor]:
    """The convolution (B, C, L) that never looks into another sequence, and the sequence of each column of
    `padded` (B, K - 1 + L)."""
    taps, length = weight.shape[1], seq_idx.shape[1]
    # the initial state belongs to the sequence of the first token
    seq = torch.cat([seq_idx[:, :1].expand(-1, taps - 1), seq_idx], dim=1)  # (B, K - 1 + L)
    y = torch.zeros_like(padded[..., :length])
    if bias is not None:
        y = y + bias.unsqueeze(-1)
    for k in range(taps):
        near = slice(k, k + length)
        other = (seq[:, near] != seq_idx).unsqueeze(1)  # (B, 1, L)
        y = torch.addcmul(y, padded[..., near].masked_fill(other, 0.0), weight[:, k, None])
    return y, seq


def _activate(y: Tensor, activation: str | None) -> Tensor:
    return y if activation is None else F.silu(y)


@without_autocast
def causal_conv1d_update(
    x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """y (B, C) of one more token; `state` (B, C, K - 1) drops its oldest input and takes x (B, C)."""
    dtype = accumulator(x)
    window = torch.cat([state.to(dtype), x.to(dtype).unsqueeze(-1)], dim=-1)  # (B, C, K)
    y = (window * weight.to(dtype)).sum(-1)
    if bias is not None:
        y = y + bias.to(dtype)
    state.copy_(window[..., 1:])
    return _activate(y, activation).to(x.dtype)
