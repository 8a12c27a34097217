"""The causal depthwise convolution in front of both scans, over a sequence and for one token."""

from torch import Tensor

from cobra.kernels.checks import BOOLEANS, INTEGERS, check, check_activation, check_first, check_state
from cobra.kernels.dispatch import op
from cobra.kernels.scan_order import Grid, ScanOrder, check_scan_order


@op
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
    """y (B, L, C) and the final state (B, C, K - 1), the last K - 1 unmasked inputs, both in x's dtype.

    y[t, c] = act(bias[c] + sum_k weight[c, k] x[t - K + 1 + k, c]),   x before the start = initial_state or 0

    Source: Dao-AILab/causal-conv1d, `causal_conv1d_ref`. Differentiable; sums in fp32 or fp64.

    Args:
        x: inputs (B, L, C), any L from 0.
        weight: one filter a channel (C, K); the last tap is the current token's.
        bias: (C,).
        initial_state: the K - 1 inputs before the first token (B, C, K - 1), oldest first.
        seq_idx: the sequence of each token (B, L), int32 or int64; no token sees another sequence. Equal
            values must be neighbours. `initial_state` belongs to the first token's sequence; the final state
            holds inputs of the last token's and zeros for the others.
        activation: None or "silu".
        mask: False at tokens (B, L) that leave no trace, wherever they are and whatever they hold: the
            others' y, the final state and all gradients are those of the row without them. y is 0 there, its
            gradient is not read.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_first("x", x, "B, L, C")
    check_first("weight", weight, "C, K")
    batch, length, channels = x.shape
    taps = weight.shape[1]
    check("weight", weight, "C, K", (channels, taps), x)
    check("bias", bias, "C", (channels,), x)
    check("initial_state", initial_state, "B, C, K - 1", (batch, channels, taps - 1), x)
    check("seq_idx", seq_idx, "B, L", (batch, length), x, INTEGERS)
    check("mask", mask, "B, L", (batch, length), x, BOOLEANS)
    check_activation(activation)
    check_scan_order(scan_order, grid, length)


@op(changes=("state",))
def causal_conv1d_update(
    x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """y (B, C) of one more token, in x's dtype; `state` drops its oldest input and takes x, in place.

    Args:
        x: the token's input (B, C).
        state: the K - 1 inputs before it (B, C, K - 1), oldest first: the final state of `causal_conv1d`.
        weight: (C, K).
        bias: (C,).
        activation: None or "silu".

    Raises:
        ValueError: if shapes, dtypes or devices do not fit, naming the argument.
    """
    check_first("x", x, "B, C")
    check_first("weight", weight, "C, K")
    batch, channels = x.shape
    taps = weight.shape[1]
    check("state", state, "B, C, K - 1", (batch, channels, taps - 1), x)
    check_state("state", state)
    check("weight", weight, "C, K", (channels, taps), x)
    check("bias", bias, "C", (channels,), x)
    check_activation(activation)
