"""The causal convolution on the native kernels; arguments as in `cobra.kernels.ops`."""

from typing import Any

import torch
from torch import Tensor

from cobra.kernels.call import NO_GRADIENT, Call, Limit, limited
from cobra.kernels.cpu.library import Kernel
from cobra.kernels.cpu.registration import differentiate, refuse_second_derivative, register
from cobra.kernels.cpu.tensors import if_given, if_present, native, room_for_gradient, writable
from cobra.kernels.scan_order import Grid, ScanOrder, for_kernels

_conv = Kernel("causal_conv1d", arrays=12, sizes=7)
_conv_backward = Kernel("causal_conv1d_backward", arrays=12, sizes=7)
_update = Kernel("causal_conv1d_update", arrays=5, sizes=4)


def taken_taps(weight: str) -> Limit:
    """The filters (C, K), an argument, that the kernels take; no published model has wider ones."""

    def accepts(call: Call) -> bool:
        shape = call.shape(weight)
        return shape is not None and 2 <= shape[1] <= 4

    return Limit(accepts, "takes filters of 2, 3 or 4 taps only")


@limited(taken_taps("weight"))
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
    """y (B, L, C) and the last K - 1 inputs (B, C, K - 1)."""
    inputs = (native(weight), native(bias), native(initial_state), seq_idx, mask)
    return _causal_conv1d(x, *inputs, activation is not None, *for_kernels(scan_order, grid))


@limited(taken_taps("weight"), NO_GRADIENT)
def causal_conv1d_update(
    x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """y (B, C) of one more token; `state` (B, C, K - 1) drops its oldest input and takes x (B, C)."""
    changed = writable(state)
    y = _causal_conv1d_update(x, changed, native(weight), native(bias), activation is not None)
    if changed is not state:
        state.copy_(changed)
    return y


# ---- causal_conv1d


def _conv_run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    *options: int,
) -> tuple[Tensor, Tensor]:
    y, final = _conv_fake(x, weight)
    arrays = (x, weight, bias, initial_state, seq_idx, mask, y, final, None, None, None, None)
    _conv(arrays, (*x.shape, weight.shape[1], *options))
    return y, final


def _conv_fake(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], x.shape[2], weight.shape[1] - 1)


def _conv_backward_run(
    dy: Tensor,
    dfinal: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    mask: Tensor | None,
    *options: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (batch, _, channels), taps = x.shape, weight.shape[1]
    dx, dinitial = x.new_empty(x.shape), room_for_gradient(initial_state, x)
    # summed over the tokens of each row; over the rows below
    dweight = x.new_empty(batch, taps, channels, dtype=torch.float32)
    dbias = x.new_empty(batch, channels, dtype=torch.float32)
    inputs = (x, weight, bias, initial_state, seq_idx, mask, dy, dfinal)
    results = (dx, dweight, dbias, if_present(dinitial, initial_state))
    _conv_backward((*inputs, *results), (*x.shape, taps, *options))
    dbias = dbias.new_empty(0) if bias is None else dbias.sum(0).to(bias.dtype)
    return dx, dweight.sum(0).t().to(weight.dtype).contiguous(), dbias, dinitial


def _conv_backward_fake(
    dy: Tensor,
    dfinal: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dbias = x.new_empty(0, dtype=torch.float32) if bias is None else torch.empty_like(bias)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), dbias, room_for_gradient(initial_state, x)


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.options = inputs[6:]
    ctx.save_for_backward(*inputs[:6])


def _conv_gradients(ctx: Any, dy: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
    _, _, bias, initial_state, _, _ = ctx.saved_tensors
    dx, dweight, dbias, dinitial = _causal_conv1d_backward(dy, dfinal, *ctx.saved_tensors, *ctx.options)
    return dx, dweight, if_given(dbias, bias), if_given(dinitial, initial_state), *[None] * 5


_ARGUMENTS = (
    "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? seq_idx, Tensor? mask, bool silu,"
    " bool reversed, SymInt grid_height"
)
_causal_conv1d = register(f"causal_conv1d({_ARGUMENTS}) -> (Tensor, Tensor)", _conv_run, _conv_fake)
_causal_conv1d_backward = register(
    f"causal_conv1d_backward(Tensor dy, Tensor dfinal, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    _conv_backward_run,
    _conv_backward_fake,
)
refuse_second_derivative(_causal_conv1d_backward)
differentiate(_causal_conv1d, _conv_gradients, _conv_setup)


# ---- causal_conv1d_update


def _update_run(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    y = x.new_empty(x.shape)
    _update((x, state, weight, bias, y), (*x.shape, weight.shape[1], silu))
    return y


_causal_conv1d_update = register(
    "causal_conv1d_update(Tensor x, Tensor(a!) state, Tensor weight, Tensor? bias, bool silu) -> Tensor",
    _update_run,
    lambda x, *_: x.new_empty(x.shape),
)
