"""The causal convolution on the native kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cobra.kernels.call import Call, Limit
from cobra.kernels.cpu import OPERATORS
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.tensors import if_present, keep, like_first, native_room, natives, writable
from cobra.kernels.scan_order import for_kernels

_conv = Kernel("causal_conv1d", arrays=12, sizes=7)
_conv_backward = Kernel("causal_conv1d_backward", arrays=12, sizes=7)
_update = Kernel("causal_conv1d_update", arrays=5, sizes=4)


def taken_taps(weight: str) -> Limit:
    """The filters (C, K), an argument, that the kernels take; no published model has wider ones."""

    def accepts(call: Call) -> bool:
        shape = call.shape(weight)
        return shape is not None and 2 <= shape[1] <= 4

    return Limit(accepts, "takes filters of 2, 3 or 4 taps only")


def _fake(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], x.shape[2], weight.shape[1] - 1)


@OPERATORS.register(_fake, limits=[taken_taps("weight")])
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    """y (B, L, C) and the last K - 1 inputs (B, C, K - 1)."""
    y, final = _fake(x, weight)
    inputs = (x, *natives(weight, bias, initial_state), seq_idx, mask)
    sizes = (*x.shape, weight.shape[1], activation is not None, *for_kernels(scan_order, grid))
    _conv((*inputs, y, final, None, None, None, None), sizes)
    return y, final


@OPERATORS.gradient(causal_conv1d, "y final_state", of=("x", "weight", "bias", "initial_state"))
def causal_conv1d_backward(
    dy: Tensor | None,
    dfinal_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    activation: str | None,
    mask: Tensor | None,
    scan_order: str,
    grid: Sequence[int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, the filter, the bias and the first state."""
    (batch, _, channels), taps = x.shape, weight.shape[1]
    dy = x.new_zeros(x.shape) if dy is None else dy
    dx, dinitial = x.new_empty(x.shape), native_room(initial_state, x)
    # summed over the tokens of each row; over the rows below
    dweight = x.new_empty(batch, taps, channels, dtype=torch.float32)
    dbias = x.new_empty(batch, channels, dtype=torch.float32)
    inputs = (x, *natives(weight, bias, initial_state), seq_idx, mask, dy, dfinal_state)
    sizes = (*x.shape, taps, activation is not None, *for_kernels(scan_order, grid))
    _conv_backward((*inputs, dx, dweight, dbias, if_present(dinitial, initial_state)), sizes)
    dbias = dbias.new_empty(0) if bias is None else dbias.sum(0)
    return dx, dweight.sum(0).t().contiguous(), dbias, dinitial


@OPERATORS.register(like_first, changes=("state",), limits=[taken_taps("weight")])
def causal_conv1d_update(
    x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """y (B, C) of one more token; `state` (B, C, K - 1) drops its oldest input and takes x (B, C)."""
    y, changed = x.new_empty(x.shape), writable(state)
    _update((x, changed, *natives(weight, bias), y), (*x.shape, weight.shape[1], activation is not None))
    keep(state, changed)
    return y
